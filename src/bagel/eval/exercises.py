"""An exercise of the world as a request, and its outputs as verdicts."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, cast
from zlib import crc32

import numpy as np
from PIL import Image

from bagel import world
from bagel.errors import InputError
from bagel.infer import jobs
from bagel.infer.conversation import Runtime
from bagel.infer.engine import Job
from bagel.infer.inputs import check_size
from bagel.infer.result import Result
from bagel.options import ImageOptions, TextOptions, settle
from bagel.world.splits import heldout


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Which exercises, and how they are put.

    tasks: tasks (`draw`) or categories (`draw/counting`), empty for all; count: of each category; seed: of the
    exercises and of the noise; split: heldout or train. think: thoughts are asked for where the exercise has them.
    free: of exercises with several outputs the model decides what comes next; else their kinds are given. see: how
    given pictures are read by exercises that draw, as the model was trained: context (latents), look (ViT), both.
    """

    tasks: tuple[str, ...] = ()
    count: int = 50
    seed: int = 1000
    split: str = "heldout"
    think: bool = True
    free: bool = False
    see: tuple[str, ...] = ("context", "look")

    def __post_init__(self) -> None:
        _one_of(self.split, ("train", "heldout"), "split")
        for use in self.see or ("nothing",):
            _one_of(use, tuple(SEES), "see")
        if self.count < 1:
            raise InputError(f"the number of exercises is {self.count}; it must be at least 1.")
        _ = self.categories

    @property
    def categories(self) -> list[tuple[str, str]]:
        """(task, category) of everything that is asked for."""
        found: list[tuple[str, str]] = []
        for name in self.tasks or tuple(world.TASKS):
            task, slash, category = name.partition("/")
            _one_of(task, tuple(world.TASKS), "task")
            if slash:
                _one_of(category, tuple(world.TASKS[task]), f"category of {task}")
            found += [(task, each) for each in ([category] if slash else world.TASKS[task])]
        return list(dict.fromkeys(found))

    def exercises(self) -> Iterator[Exercise]:
        """One of each category, then the next of each, so that a run cut short is a smaller whole one."""
        split = cast(Literal["train", "heldout"], self.split)
        for index in range(self.count):
            for task, category in self.categories:
                sample = world.make(task, category, self.seed, index, split)
                yield Exercise(f"{task}/{category}/{index}", sample if self.think else sample.without_thoughts())


def _one_of(value: str, known: Sequence[str], what: str) -> None:
    if value not in known:
        close = difflib.get_close_matches(value, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"use one of {', '.join(known)}."
        raise InputError(f"{what}: {value!r} is not known; {hint}")


SEES = {"context": "latents", "look": "vit"}
"""The words of training for what inference reads."""


class Exercise(NamedTuple):
    name: str
    sample: world.Sample

    @property
    def seed(self) -> int:
        """Of the noise; the name's own, so that it is the same in any batch."""
        return crc32(self.name.encode())

    @property
    def inputs(self) -> list[jobs.Input]:
        return [
            Image.fromarray(part.pixels()) if isinstance(part, world.Picture) else part.text
            for part in self.sample.prompt
        ]

    @property
    def wanted(self) -> list[str]:
        """Kinds of the outputs in order, "text" or "image"."""
        produced = self.sample.parts[len(self.sample.prompt) :]
        return ["image" if isinstance(part, world.Picture) else "text" for part in produced]

    @property
    def thinks(self) -> bool:
        return any(isinstance(part, world.Thought) for part in self.sample.parts)

    def truth(self) -> list[np.ndarray | str]:
        """What a perfect model puts out."""
        return [
            target.pixels() if isinstance(target, world.TargetPicture) else target.text
            for target in self.sample.targets
        ]


def job_of(runtime: Runtime, exercise: Exercise, image: ImageOptions, text: TextOptions, free: bool = False) -> Job:
    """The request, through the same code that serves users."""
    presets, wanted = runtime.checkpoint.config.presets, exercise.wanted
    written = settle(replace(text, seed=exercise.seed), "chat", presets)
    if wanted == ["text"]:
        return jobs.answer(runtime, exercise.inputs, written)
    pictures = any(isinstance(part, world.Picture) for part in exercise.sample.prompt)
    options = replace(image, seed=exercise.seed, think=exercise.thinks)
    drawn = check_size(settle(options, "edit" if pictures else "draw", presets), runtime.checkpoint.config)
    if wanted in (["image"], ["text", "image"]):
        return jobs.draw(runtime, exercise.inputs, drawn)
    plan = jobs.Plan(None if free else wanted, max_images=wanted.count("image"))
    return jobs.interleave(runtime, exercise.inputs, plan, drawn, replace(written, max_tokens=drawn.max_tokens))


class Verdict(NamedTuple):
    """ok: every output is right. reasons: of the wrong ones. text: what was written, thought or answer. wording: of a
    held-out exercise, "known" from training or "new"; language: en or zh."""

    name: str
    ok: bool
    reasons: list[str]
    text: str | None
    wording: str | None = None
    language: str | None = None


def outputs_of(exercise: Exercise, result: Result) -> list[np.ndarray | str]:
    if exercise.wanted == ["text"]:
        return [result.text or ""]
    return [np.asarray(picture) for picture in result.images]


def judged(exercise: Exercise, outputs: Sequence[np.ndarray | str], text: str | None = None) -> Verdict:
    from bagel.world.check import judge_sample  # here, as it loads SciPy

    verdicts = judge_sample(exercise.sample, list(outputs))
    reasons = [verdict.reason for verdict in verdicts if not verdict]
    sample = exercise.sample
    new = any(combo[0] == "wording" and heldout(combo) for combo in sample.combos)
    wording = None if sample.split == "train" else "new" if new else "known"
    return Verdict(exercise.name, not reasons, reasons, text, wording, sample.language)
