"""Muon: matrices move orthogonally, the rest as before, on any number of ranks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from bagel.errors import InputError
from bagel.train import optim
from bagel.train.config import OptimPart, TrainConfig
from bagel.train.loop import train
from bagel.train.master import joined
from bagel.train.muon import Muon, orthogonal

from .packs import SharedPacks, losses, run_config
from .ranks import finish, start
from .test_ranks import assert_close, folder_of


@pytest.mark.parametrize("shape", [(64, 32), (32, 64), (48, 48)])
def test_singular_values_become_equal_and_directions_stay(shape: tuple[int, int]) -> None:
    x = (
        torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
        * torch.tensor([1e-3, 1.0, 50.0])[:, None, None]
    )
    made = orthogonal(x)
    values = torch.linalg.svdvals(made)
    assert values.min() > 0.4
    assert values.max() < 1.3
    left, _, right = torch.linalg.svd(x, full_matrices=False)
    along = torch.einsum("srk,src,skc->sk", left, made, right)  # how far each direction of x is kept
    torch.testing.assert_close(along.sort().values, values.sort().values, rtol=1e-3, atol=1e-3)


def test_nothing_asked_moves_nothing() -> None:
    assert not orthogonal(torch.zeros(2, 8, 4)).any()


def matrices(dtype: torch.dtype) -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(1)
    shapes = {"decoder.layers.0.o.weight": (16, 8), "decoder.layers.1.o.weight": (16, 8),
              "vit.layers.0.o.weight": (8, 8), "vit.layers.0.norm1.weight": (8,), "embed.weight": (20, 8)}  # fmt: skip
    return {
        name: nn.Parameter(torch.randn(shape, generator=generator).bfloat16().to(dtype))
        for name, shape in shapes.items()
    }


def moved(dtype: torch.dtype, lr: float, steps: int) -> tuple[dict[str, nn.Parameter], torch.optim.Optimizer]:
    parameters = matrices(dtype)
    optimizer = optim.make(parameters, OptimPart(name="muon", lr=lr, weight_decay=0.1))
    generator = torch.Generator().manual_seed(2)
    for _ in range(steps):
        for value in parameters.values():
            value.grad = torch.randn(value.shape, generator=generator).bfloat16().to(dtype)
        optim.clip(parameters, 1.0, optimizer)
        optimizer.step()
    return parameters, optimizer


def test_bf16_weights_follow_float32_ones() -> None:
    """Moves of some 1e-4 from about 1: a bf16 weight alone would hardly move, its master goes along."""
    (narrow, optimizer), (wide, _) = moved(torch.bfloat16, 5e-4, 40), moved(torch.float32, 5e-4, 40)
    first = matrices(torch.float32)
    for name, value in wide.items():
        way = (value - first[name]).norm()
        assert way > 0
        kept = joined(narrow[name].detach(), optimizer.state[narrow[name]]["low"])
        assert (kept - value).norm() < 0.12 * way, name
    states = optim.states(optimizer, narrow)
    assert {name.rpartition(".")[2] for name in states if name.startswith("decoder")} == {"momentum", "low"}
    assert {name.rpartition(".")[2] for name in states if name.startswith("embed")} == {
        "low", "exp_avg", "exp_avg_sq", "step"
    }  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_rest_may_go_slower(dtype: torch.dtype) -> None:
    """Of a first step AdamW moves every number by its rate, and Muon a matrix by a fifth of it."""
    parameters = matrices(dtype)
    optimizer = optim.make(parameters, OptimPart(name="muon", lr=1.0, rest_share=0.25))
    optim.set_rate(optimizer, 0.5)
    before = {name: value.detach().float().clone() for name, value in parameters.items()}
    for value in parameters.values():
        value.grad = torch.randn(value.shape, generator=torch.Generator().manual_seed(3)).to(dtype)
    optimizer.step()
    moves = {name: value.detach().float() - before[name] for name, value in parameters.items()}
    for name in ("embed.weight", "vit.layers.0.norm1.weight"):
        torch.testing.assert_close(moves[name].abs(), torch.full_like(moves[name], 0.125), rtol=0, atol=0.01)
    assert float(moves["decoder.layers.0.o.weight"].square().mean().sqrt()) == pytest.approx(0.1, rel=0.3)


def test_an_update_is_as_large_as_adamws() -> None:
    parameters = matrices(torch.float32)
    optimizer = optim.make(parameters, OptimPart(name="muon", lr=1e-2))
    before = {name: value.detach().clone() for name, value in parameters.items()}
    for value in parameters.values():
        value.grad = torch.randn_like(value)
    optimizer.step()
    size = (parameters["decoder.layers.0.o.weight"] - before["decoder.layers.0.o.weight"]).square().mean().sqrt()
    assert 0.1e-2 < size < 0.3e-2
    step = (parameters["embed.weight"] - before["embed.weight"]).abs()
    torch.testing.assert_close(step, torch.full_like(step, 1e-2), rtol=1e-3, atol=0)  # AdamW's first one


def test_one_rate_for_both() -> None:
    parameters = matrices(torch.float32)
    optimizer = optim.make(parameters, OptimPart(name="muon", lr=1e-2))
    optim.set_rate(optimizer, 0.0)
    before = {name: value.detach().clone() for name, value in parameters.items()}
    for value in parameters.values():
        value.grad = torch.randn_like(value)
    optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in parameters.items())
    assert isinstance(optimizer, Muon)


def test_without_a_matrix_it_is_refused() -> None:
    with pytest.raises(InputError, match="use adamw"):
        optim.make({"embed.weight": nn.Parameter(torch.ones(4, 4))}, OptimPart(name="muon"))


def test_two_ranks_equal_one(tmp_path: Path) -> None:
    settings = {"name": "muon", "lr": 1e-3}
    for name, ranks in (("one", 1), ("two", 2)):
        config = run_config(folder_of(tmp_path, name), steps=3, accumulate=2 // ranks, optim=settings)
        if ranks == 1:
            train(TrainConfig.from_dict(config), SharedPacks(config["data"], 0, 1))
        else:
            finish(start(config, ranks, "shared"))
    assert_close(tmp_path / "two", tmp_path / "one", 3, tolerance=1e-4)


def test_a_resumed_run_goes_on_to_the_bit(tmp_path: Path) -> None:
    for name, stops in (("whole", (4,)), ("parts", (2, 4))):
        folder = folder_of(tmp_path, name)
        for steps in stops:
            config = run_config(folder, steps=steps, optim={"name": "muon", "lr": 1e-3, "ema": 0.9})
            config["parallel"] = {**config.get("parallel", {}), "params": "bf16"}
            train(TrainConfig.from_dict(config), SharedPacks(config["data"], 0, 1))
    assert losses(tmp_path / "parts" / "run") == losses(tmp_path / "whole" / "run")
