"""How reliable are the checkers? `python -m bagel.world.trial [N] [TASK ...]` tries N samples of every
category of these tasks, or of all.

Right outputs go through an imitation of an autoencoder and must be accepted; spoilt ones go through it too and must
be rejected. What is truly right or wrong is known from the states, not from pixels.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random
from typing import cast

import numpy as np

from .check import judge
from .check.recognise import Reading, Seen
from .check.scene import check_reading
from .distort import imitate_autoencoder
from .goals import AnswerGoal, Goal, SceneGoal
from .sample import Sample, State, TargetAnswer, TargetPicture, pixels_of
from .scene import Scene
from .spoil import spoilt_answer, spoilt_pictures
from .stream import Split, make
from .tasks import TASKS
from .wording.lexicon import Language

SHOWS = 35.0  # levels by which two views must differ ...
SHOWN_PIXELS = 60  # ... in so many pixels for one to be a wrong picture of the other


@dataclass
class Rates:
    """Counts of one category, and the first few errors in words."""

    right: int = 0
    accepted: int = 0
    wrong: int = 0
    rejected: int = 0
    errors: list[str] = field(default_factory=list)
    missed: Counter[str] = field(default_factory=Counter)

    def __iadd__(self, more: "Rates") -> "Rates":
        self.right += more.right
        self.accepted += more.accepted
        self.wrong += more.wrong
        self.rejected += more.rejected
        self.errors += more.errors
        self.missed += more.missed
        return self


def is_right(goal: Goal, state: State) -> bool | None:
    """Does a state fulfil a picture goal? None where its picture differs too little from the expected one to say."""
    if isinstance(goal, SceneGoal):
        assert isinstance(state, Scene)
        things = tuple(Seen(t.shape, t.colour, t.x, t.y, t.r) for t in state.things)
        return bool(check_reading(Reading(state.background, things), goal))
    assert not isinstance(goal, AnswerGoal)
    delta = pixels_of(state).astype(int) - pixels_of(goal.state)
    off = int((np.linalg.norm(delta, axis=2) > SHOWS).sum())
    if not delta.any():
        return True
    return False if off >= SHOWN_PIXELS else None


def attempts(sample: Sample, another: Sample, rng: Random) -> Iterator[tuple[str, Goal, State | str, bool]]:
    """(what it is, goal, output as state or text, is it right): every target itself, its spoilt versions, and the last
    target of another sample."""
    for number, (target, goal) in enumerate(zip(sample.targets, sample.goals, strict=True)):
        if isinstance(target, TargetAnswer) and isinstance(goal, AnswerGoal):
            yield "right", goal, target.text, True
            yield "answer", goal, spoilt_answer(goal, target, cast(Language, sample.language), rng), False
        elif isinstance(target, TargetPicture):
            yield "right", goal, target.state, True
            strange = another.targets[-1]
            strangers = [("another sample's", strange.state)] if isinstance(strange, TargetPicture) else []
            for kind, state in [*spoilt_pictures(sample, number, rng), *strangers]:
                right = is_right(goal, state)
                if right is not None:
                    yield kind, goal, state, right


def try_sample(sample: Sample, another: Sample, rng: Random, noise: np.random.Generator) -> Rates:
    """Run every attempt on one sample through the checker."""
    rates = Rates()
    for kind, goal, output, is_ok in attempts(sample, another, rng):
        verdict = judge(goal, output if isinstance(output, str) else imitate_autoencoder(pixels_of(output), noise))
        if is_ok:
            rates.right += 1
            rates.accepted += verdict.ok
        else:
            rates.wrong += 1
            rates.rejected += not verdict.ok
        if verdict.ok != is_ok:
            rates.missed[kind] += 1
            rates.errors.append(f"{kind}: {verdict.reason}")
    return rates


def try_category(task: str, category: str, n: int, split: Split = "heldout", seed: int = 0) -> Rates:
    """The rates over `n` samples."""
    rates, rng, noise = Rates(), Random(seed), np.random.default_rng(seed)
    drawn = [make(task, category, seed, index, split) for index in range(n + 1)]
    for sample, another in pairwise(drawn):
        rates += try_sample(sample, another, rng, noise)
    return rates


def main(n: int, tasks: list[str]) -> None:
    """Print a table of all categories of some tasks."""
    total = Rates()
    for task in tasks:
        for category in TASKS[task]:
            rates = try_category(task, category, n)
            total += rates
            print(
                f"{task + ' / ' + category:24}{_row(rates)}  {dict(rates.missed) or ''} {rates.errors[:2] or ''}",
                flush=True,
            )
    print(f"{'all':24}{_row(total)}")


def _row(rates: Rates) -> str:
    accepted, rejected = rates.accepted / max(1, rates.right), rates.rejected / max(1, rates.wrong)
    return f"accepts {accepted:8.3%} of {rates.right:6}  rejects {rejected:8.3%} of {rates.wrong:6}"


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20, sys.argv[2:] or list(TASKS))
