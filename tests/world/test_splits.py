"""No held-out combination occurs in training, and every attribute by itself does."""

from collections import Counter

import pytest

from bagel.world import TASKS, heldout, make, samples
from bagel.world.palette import COLOURS, SOLID_COLOURS
from bagel.world.room import PROPS, Stand
from bagel.world.sample import Picture, Sample
from bagel.world.scene import Scene
from bagel.world.shapes import SHAPES
from bagel.world.splits import HELDOUT_LOOKS, TRAIN_LOOKS, pair, relation
from bagel.world.wording.reading import named

ALL = [(task, category) for task, categories in TASKS.items() for category in categories]


def looks_shown(sample: Sample) -> set[tuple[str, ...]]:
    """What the pictures show, found anew."""
    states = [part.state for part in sample.parts if isinstance(part, Picture)]
    flat = {("look", t.shape, t.colour) for state in states if isinstance(state, Scene) for t in state.things}
    return flat | {("prop", p.kind, p.colour) for state in states if isinstance(state, Stand) for p in state.room.props}


def check_train(sample: Sample) -> None:
    """Nothing in the sample is held out."""
    held = [combo for combo in sample.combos if heldout(combo)]
    assert not held, f"{sample.task}/{sample.category}: {held}"
    assert looks_shown(sample) <= {combo for combo in sample.combos if combo[0] in ("look", "prop")}


def test_no_heldout_combination_in_a_train_stream():
    for sample, _ in zip(samples(seed=1), range(3000), strict=False):
        check_train(sample)


@pytest.mark.slow
def test_no_heldout_combination_in_a_long_train_stream():
    for sample, _ in zip(samples(seed=2), range(60_000), strict=False):
        check_train(sample)


def test_no_text_of_a_train_stream_names_a_heldout_look_pair_binding_or_count():
    for sample, _ in zip(samples(seed=3), range(2000), strict=False):
        texts = [part.text for part in sample.parts if not isinstance(part, Picture)]
        assert not any(heldout(combo) for text in texts for combo in named(text))


@pytest.mark.parametrize(("task", "category"), ALL)
def test_every_heldout_sample_is_new(task, category):
    for index in range(4):
        sample = make(task, category, 4, index, "heldout")
        assert any(heldout(combo) for combo in sample.combos if combo[0] != "wording")


def test_about_half_of_the_heldout_samples_are_worded_anew():
    new = sum(
        any(combo[0] == "wording" and heldout(combo) for combo in make("edit", "recolour", 5, index, "heldout").combos)
        for index in range(200)
    )
    assert 60 < new < 140


def test_each_attribute_is_common_in_training():
    shapes, colours = Counter(s for s, _ in TRAIN_LOOKS), Counter(c for _, c in TRAIN_LOOKS)
    assert all(shapes[shape] >= len(COLOURS) - 1 for shape in SHAPES)
    assert all(colours[colour] >= len(SHAPES) - 2 for colour in COLOURS)
    assert 0.08 < len(HELDOUT_LOOKS) / (len(SHAPES) * len(COLOURS)) < 0.15
    assert all(sum(heldout(("prop", kind, colour)) for colour in SOLID_COLOURS) == 1 for kind in PROPS)


def test_hashed_kinds_hold_out_about_their_share():
    pairs = {pair(a, b) for a in SHAPES for b in SHAPES if a != b}
    relations = {relation(a, how, b) for a in SHAPES for b in SHAPES if a != b for how in ("left", "above")}
    for combos in (pairs, relations):
        assert 0.05 < sum(map(heldout, combos)) / len(combos) < 0.3
    for n in range(2, 7):
        assert not all(heldout(("count", n, shape)) for shape in SHAPES)


def test_a_relation_is_one_combination_from_either_side():
    assert relation("star", "right", "ring") == relation("ring", "left", "star")
    assert pair("star", "ring") == pair("ring", "star")
