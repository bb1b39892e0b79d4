"""Samples by number: the same (seed, index) gives the same sample in every process."""

from collections.abc import Iterator, Mapping
from random import Random
from typing import Literal

from .room import Stand
from .sample import Part, Picture, Sample, Thought
from .scene import Scene
from .splits import Combo, heldout
from .tasks import TASKS
from .tasks.kit import Draft, Kit
from .wording.grammar import Words
from .wording.lexicon import Language
from .wording.reading import named

Split = Literal["train", "heldout"]

VERSION = 5
"""Of the exercises: raised whenever the same numbers give others, so that runs judged on either are not mixed."""
# How often a task is drawn in a mixed stream.
WEIGHTS: dict[str, float] = {
    "draw": 6, "ask": 5, "edit": 5, "reason": 5, "frames": 3, "navigate": 3, "turn": 2, "think": 3,
}  # fmt: skip
CHINESE = 0.35  # share of samples in Chinese
NEW_WORDING = 0.5  # share of held-out samples whose wording is new too, beside the combination
TRIES = 4000


def make(
    task: str, category: str, seed: int, index: int, split: Split = "train", language: Language | None = None
) -> Sample:
    """Sample number `index` of one category. A train sample holds no held-out combination; a held-out sample names at
    least one. `language` None draws one."""
    rng = Random(f"{seed}/{index}/{split}/{task}/{category}")
    language = language or ("zh" if rng.random() < CHINESE else "en")
    new = split == "heldout" and rng.random() < NEW_WORDING
    for _ in range(TRIES):
        words = Words(rng, language, new)
        draft = TASKS[task][category](Kit(rng, words, split))
        if draft is not None and _fits(draft, split):
            parts = [part for part in draft.parts if task == "think" or not isinstance(part, Thought)]
            combos = frozenset(draft.stated | _occurring(draft.parts) | words.used)
            return Sample(task, category, split, language, tuple(parts), tuple(draft.goals), combos)
    raise RuntimeError(f"no {split} sample of {task}/{category} in {TRIES} tries; is the category drawable?")


def sample(seed: int, index: int, split: Split = "train", weights: Mapping[str, float] = WEIGHTS) -> Sample:
    """Sample number `index` of the mixture: a task by weight, a category of it evenly."""
    rng = Random(f"{seed}/{index}")
    task = rng.choices(list(weights), list(weights.values()))[0]
    return make(task, rng.choice(list(TASKS[task])), seed, index, split)


def samples(
    seed: int, start: int = 0, step: int = 1, split: Split = "train", weights: Mapping[str, float] = WEIGHTS
) -> Iterator[Sample]:
    """The endless mixture from `start` on; worker k of n takes start=k, step=n."""
    index = start
    while True:
        yield sample(seed, index, split, weights)
        index += step


def _fits(draft: Draft, split: Split) -> bool:
    if split == "heldout":
        return any(heldout(combo) for combo in draft.stated)
    return not any(map(heldout, draft.stated)) and not any(map(heldout, _occurring(draft.parts)))


def _occurring(parts: list[Part]) -> set[Combo]:
    """The combinations that the pictures show and the words name, read off them, whatever the sample is about."""
    found: set[Combo] = set()
    for part in parts:
        if not isinstance(part, Picture):
            found |= named(part.text)
        elif isinstance(part.state, Scene):
            found.update(("look", *thing.look) for thing in part.state.things)
        elif isinstance(part.state, Stand):
            found.update(("prop", prop.kind, prop.colour) for prop in part.state.room.props)
    return found
