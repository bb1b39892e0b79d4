"""Step caches and solvers: what they compute, and that they are as exact as they claim."""

import math
from itertools import pairwise

import pytest
import torch

from bagel.infer.image import Guidance, schedule
from bagel.infer.reuse import Forecast, GuidanceReuse, Line, reuse_for
from bagel.infer.solver import SOLVERS
from bagel.options import STEP_CACHES
from conftest import error

BRANCHES = {"cond": "cond", "no_text": "no_text", "no_image": "cond"}
OFFICIAL = {"height": 32, "width": 32, "seed": 1, "num_timesteps": 50}


def straight(t):
    """Linear in the logarithm that the forecasts are straight over."""
    return torch.tensor([2.0 + 3.0 * math.log((1.001 - t) / t)])


@pytest.mark.parametrize(("interval", "computed"), [(3, [0, 1, 2, 5, 8, 11]), (5, [0, 1, 2, 7, 12])])
def test_a_line_is_computed_where_it_says_and_goes_on_straight(interval, computed):
    line, found = Line(interval), []
    for update, t in enumerate(schedule(14, 3.0)[:-1].tolist()):
        if not line.goes_on:
            found.append(update)
        value = line.step(t, None if line.goes_on else straight(t))
        torch.testing.assert_close(value, straight(t), rtol=1e-4, atol=1e-4)
    assert found == computed


@pytest.mark.parametrize(
    "make", [lambda: Forecast(BRANCHES, lambda x: x, 3), lambda: GuidanceReuse(BRANCHES, lambda x: x)]
)
def test_branches_are_forecast_each_by_itself(make):
    reuse, names = make(), ["cond", "no_text", "no_image"]
    for t in schedule(30, 3.0)[:-1].tolist():
        true = {"cond": straight(t), "no_text": 5 - 2 * straight(t)}
        streams = {BRANCHES[name]: true[BRANCHES[name]] for name in reuse.wanted(names)}
        found = reuse.velocities(names, t, streams)
        assert list(found) == names
        for name in names:
            torch.testing.assert_close(found[name], true[BRANCHES[name]], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("cache", "calls"), [(None, 90), ("guidance", 64), ("taylorseer", 36), ("forecast3", 33), ("forecast5", 22)]
)
def test_model_calls_of_the_official_preset(bagel, cache, calls):
    assert bagel.draw("a cube", step_cache=cache, **OFFICIAL).stats.model_calls == calls


@pytest.mark.parametrize("cache", STEP_CACHES)
def test_a_cached_edit_stays_near_the_exact_one(bagel, pictures, cache):
    exact = bagel.edit(pictures["tall"], "make it red", num_timesteps=30, seed=2)
    cached = bagel.edit(pictures["tall"], "make it red", num_timesteps=30, seed=2, step_cache=cache)
    assert cached.stats.model_calls < exact.stats.model_calls
    assert 0 < error(cached.latent, exact.latent) < 0.1


def test_an_unknown_cache_is_no_exact_drawing():
    with pytest.raises(KeyError):
        reuse_for("magic", BRANCHES, lambda x: x)


def followed(solver, count):
    """dx/dt = x cos(5 t) from t = 1 to 0 by uneven steps, against its solution."""
    one = SOLVERS[solver](lambda velocity: velocity["cond"])
    x = torch.ones(1, dtype=torch.float64)
    for t, t_next in pairwise(schedule(count, 2.0).double().tolist()):
        _, slope = one.slope(t, t_next, {"cond": x * math.cos(5 * t)})
        x = x - slope * (t - t_next)
    return abs(float(x) - math.exp(-math.sin(5) / 5))


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("ab2", 2)])
def test_order_of_a_solver(solver, order):
    assert math.log2(followed(solver, 101) / followed(solver, 201)) == pytest.approx(order, abs=0.15)


def test_the_end_of_guidance_is_no_change_of_the_velocity():
    """A constant velocity a branch: every update must follow the guided one exactly, also behind the interval."""
    guidance = Guidance(4.0, 1.5, (0.4, 1.0), 1.0, "global")
    solver = SOLVERS["ab2"](guidance.combine)
    constant = {"cond": torch.ones(4, 2), "no_text": torch.zeros(4, 2), "no_image": torch.ones(4, 2)}
    for t, t_next in pairwise(schedule(20, 3.0).tolist()):
        parts = {name: constant[name] for name in guidance.branches(t)}
        v, slope = solver.slope(t, t_next, parts)
        torch.testing.assert_close(slope, guidance.combine(parts))
        assert torch.equal(v, guidance.combine(parts))


def test_the_solver_costs_no_calls_and_euler_is_the_default(bagel):
    plain, euler, second = (bagel.draw("a cube", **OFFICIAL, **o) for o in ({}, {"solver": "euler"}, {"solver": "ab2"}))
    assert torch.equal(plain.latent, euler.latent)
    assert second.stats.model_calls == plain.stats.model_calls
    assert 0 < error(second.latent, plain.latent) < 0.1
