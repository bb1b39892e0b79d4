"""The checkers accept what is right after an autoencoder's losses, and reject single mistakes."""

from random import Random

import numpy as np
import pytest

from bagel.world import TASKS, make
from bagel.world.check import judge, judge_sample
from bagel.world.check.recognise import read
from bagel.world.distort import imitate_autoencoder
from bagel.world.goals import SceneGoal, Want, scene_goal
from bagel.world.palette import BACKGROUNDS
from bagel.world.render import draw
from bagel.world.scene import LOOKS, Scene, Thing
from bagel.world.trial import Rates, try_category

ALL = [(task, category) for task, categories in TASKS.items() for category in categories]
SCENE = Scene((Thing("circle", "red", 30, 30, 15), Thing("star", "blue", 90, 80, 21)), "white")


@pytest.mark.parametrize("task", list(TASKS))
def test_a_few_samples_of_each_category(task):
    total = Rates()
    for category in TASKS[task]:
        total += try_category(task, category, 2)
    assert total.accepted == total.right, total.errors
    assert total.rejected == total.wrong, total.errors


@pytest.mark.slow
@pytest.mark.parametrize(("task", "category"), ALL)
def test_many_samples_of_each_category(task, category):
    rates = try_category(task, category, 60, seed=1)
    assert rates.accepted >= 0.98 * rates.right, rates.errors
    assert rates.rejected >= 0.99 * rates.wrong, rates.errors


@pytest.mark.parametrize("background", list(BACKGROUNDS))
def test_every_look_is_recognised_at_the_smallest_size(background):
    noise = np.random.default_rng(0)
    for start in range(0, len(LOOKS), 9):
        looks = LOOKS[start : start + 9]
        things = tuple(Thing(*look, 21 + 43 * (i % 3), 21 + 43 * (i // 3), 10) for i, look in enumerate(looks))
        seen = read(imitate_autoencoder(draw(Scene(things, background)), noise))
        assert seen.background == background
        assert sorted((thing.shape, thing.colour) for thing in seen.things) == sorted(looks)
        assert not seen.fault


def test_a_radius_and_a_place_are_measured():
    seen = read(draw(SCENE)).things[1]
    assert (seen.x, seen.y, seen.r) == pytest.approx((90, 80, 21), abs=0.6)


@pytest.mark.parametrize(
    ("spoilt", "reason"),
    [
        (SCENE.on("grey"), "the background is grey, not white"),
        (SCENE.without(0), "1 things where 2 belong"),
        (SCENE.put(0, SCENE.things[0].but(x=40)), "not where it belongs"),
        (SCENE.put(0, SCENE.things[0].but(colour="pink")), "not red"),
        (SCENE.put(0, SCENE.things[0].but(r=11)), "of radius 11"),
        (SCENE.put(1, SCENE.things[1].but(shape="ring")), "not a star"),
    ],
)
def test_the_reason_names_the_mistake(spoilt, reason):
    verdict = judge(scene_goal(SCENE), draw(spoilt))
    assert not verdict
    assert reason in verdict.reason


def test_a_smear_is_no_shape():
    picture = draw(SCENE)
    picture[20:24, 60:120] = picture[30, 30]
    assert "no clear shape" in judge(SceneGoal((Want("circle"), Want("star"), Want())), picture).reason


def test_a_thing_of_two_colours_is_no_thing():
    picture = draw(SCENE)
    picture[30:60, 10:60][picture[30:60, 10:60, 1] < 100] = (40, 150, 60)
    assert not judge(scene_goal(SCENE), picture)


def test_relations_are_read_from_the_picture():
    goal = SceneGoal((Want("circle"), Want("star")), ((0, "left", 1),))
    assert judge(goal, draw(SCENE))
    assert not judge(SceneGoal(goal.wants, ((0, "right", 1),)), draw(SCENE))


def test_noise_and_grey_are_rejected_everywhere():
    rng = Random(0)
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3)).astype(np.uint8)
    grey = np.full((128, 128, 3), 128, np.uint8)
    for task, category in rng.sample([pair for pair in ALL if pair[0] != "ask"], 12):
        sample = make(task, category, 1, 0)
        assert not any(judge(goal, picture) for goal in sample.goals for picture in (noise, grey))


def test_a_sample_is_judged_target_by_target():
    sample = make("think", "steps", 0, 0)
    pictures = [target.pixels() for target in sample.targets]
    assert all(judge_sample(sample, pictures))
    assert [verdict.ok for verdict in judge_sample(sample, pictures[:1])] == [True, False]
    assert not judge(sample.goals[0], "a text")
