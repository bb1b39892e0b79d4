"""A held-out prompt is new to the model: what training reads, made as training makes it, against what is judged.

Combinations and sentences are found anew in the pictures and texts, not taken from what a sample says of itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

from bagel import world
from bagel.data.recipes.world import WorldOptions, exercise
from bagel.eval.exercises import Plan
from bagel.train import config as configs
from bagel.world.blocks import Shot
from bagel.world.room import ACTIONS, Stand, act
from bagel.world.scene import Scene
from bagel.world.splits import Combo, heldout
from bagel.world.wording.grammar import FRAMES, PLAIN, TABLES, in_frame, is_command
from bagel.world.wording.reading import named
from world.wordings import said

CONFIGS = Path(__file__).parents[2] / "configs" / "mini"
COUNT = 20_000


def stream(config: str, count: int) -> Iterator[world.Sample]:
    (dataset,) = configs.load(CONFIGS / config).data.datasets
    options = WorldOptions(**dataset.options)
    return (exercise(options, number) for number in range(count))


def found_anew(sample: world.Sample) -> set[Combo]:
    """What the pictures show and the texts name."""
    combos: set[Combo] = set()
    for part in sample.parts:
        if not isinstance(part, world.Picture):
            combos |= named(part.text)
        elif isinstance(part.state, Scene):
            combos |= {("look", thing.shape, thing.colour) for thing in part.state.things}
        elif isinstance(part.state, Stand):
            combos |= {("prop", prop.kind, prop.colour) for prop in part.state.room.props}
        elif isinstance(part.state, Shot):
            towers = (stack.colours for stack in part.state.stacks)
            combos |= {("tower", *colours) for colours in towers if len(colours) > 1}
    return combos | walked(sample)


def walked(sample: world.Sample) -> set[Combo]:
    """The chain of actions of an interleaved walk, read off the views."""
    stands = [part.state for part in sample.parts if isinstance(part, world.Picture) and isinstance(part.state, Stand)]
    if len(stands) < 3:
        return set()
    return {("walk", *(next(a for a in ACTIONS if act(x, a) == y) for x, y in pairwise(stands)))}


@cache
def new_sentences() -> tuple[re.Pattern[str], ...]:
    """The reserved templates, commands without a frame, and the reserved frames as patterns: those with enough words
    of their own to be told from others, and a form that no template of training has ("The moon should be ..." may go on
    with a size in training, with a colour not)."""
    usual, new = set(), [frame for _, reserved in FRAMES.values() for frame in reserved]
    for language, table in TABLES.items():
        for key, (_, reserved) in table.items():
            usual |= {re.sub(r"\{\w+\}", "it", sentence) for sentence in said(language, key, False)}
            new += [in_frame(text, PLAIN[language]) if is_command(text) else text for text in reserved]
    patterns = [pattern_of(text) for text in new if len(bare(text)) >= 6]
    return tuple(pattern for pattern in patterns if not any(map(pattern.fullmatch, usual)))


def bare(template: str) -> str:
    """A template's own letters."""
    return re.sub(r"\{\w+\}|[\[\]|\W]", "", template).lower()


def pattern_of(template: str) -> re.Pattern[str]:
    escaped = re.escape(template).replace(r"\[", "(?:").replace(r"\]", ")").replace(r"\|", "|")
    return re.compile(re.sub(r"\\\{\w+\\\}", r"[^.!?。！？]+", escaped), re.IGNORECASE)


def test_the_patterns_find_reserved_sentences() -> None:
    """Else the next test would pass for nothing."""
    found, new = 0, 0
    for one in Plan(count=4).exercises():
        texts = [part.text for part in one.sample.parts if not isinstance(part, world.Picture)]
        new += any(combo[0] == "wording" and combo[-1] == "new" for combo in one.sample.combos)
        found += any(pattern.fullmatch(text) for pattern in new_sentences() for text in texts)
    assert len(new_sentences()) > 60
    assert found > 0.6 * new > 40


@pytest.mark.parametrize(("config", "count"), [("pretrain.yaml", COUNT), ("finish.yaml", 3000)])
def test_training_holds_nothing_that_is_held_out(config: str, count: int) -> None:
    judged = {one.sample.prompt for one in Plan(count=8).exercises()}
    tasks = set()
    for sample in stream(config, count):
        where = f"{sample.task}/{sample.category}"
        held = [combo for combo in sample.combos | found_anew(sample) if heldout(combo)]
        assert not held, (where, held)
        texts = [part.text for part in sample.parts if not isinstance(part, world.Picture)]
        said = [text for text in texts for pattern in new_sentences() if pattern.fullmatch(text)]
        assert not said, (where, said)
        assert sample.prompt not in judged, where
        tasks.add(where)
    assert len(tasks) == sum(map(len, world.TASKS.values()))
