"""A sample: what the model is given and what it must produce, in reading order, with what a right output is.

Parts hold the *state* a picture shows, not its pixels: a sample is small, hashable, comparable and cheap to send
between processes, and `Picture.pixels()` draws it where it is needed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from . import blocks, render, room
from .goals import Goal
from .scene import Scene
from .splits import Combo

State = Scene | room.Stand | blocks.Shot


def pixels_of(state: State) -> np.ndarray:
    """The exact picture of a state: uint8 RGB [128, 128, 3]."""
    if isinstance(state, Scene):
        return render.draw(state)
    return room.view(state) if isinstance(state, room.Stand) else blocks.view(state)


@dataclass(frozen=True)
class Text:
    """Words given to the model."""

    text: str


@dataclass(frozen=True)
class Picture:
    """A picture given to the model."""

    state: State

    def pixels(self) -> np.ndarray:
        """uint8 RGB [128, 128, 3]."""
        return pixels_of(self.state)


@dataclass(frozen=True)
class Said:
    """Words the model said earlier in a conversation: given, but learnt like an answer."""

    text: str


@dataclass(frozen=True)
class Thought:
    """Words the model thinks before it goes on; `tagged` is how they are written out."""

    text: str

    @property
    def tagged(self) -> str:
        return f"<think>\n{self.text}\n</think>"


@dataclass(frozen=True)
class TargetPicture(Picture):
    """A picture the model must make."""


@dataclass(frozen=True)
class TargetAnswer:
    """Words the model must say."""

    text: str


Part = Text | Picture | Said | Thought | TargetPicture | TargetAnswer


@dataclass(frozen=True)
class Sample:
    """One exercise. `goals` go with the targets (pictures and answers, not thoughts) in their order; `combos` are the
    attribute combinations that occur in it, by which `splits` keeps training and held-out apart."""

    task: str
    category: str
    split: str
    language: str
    parts: tuple[Part, ...]
    goals: tuple[Goal, ...]
    combos: frozenset[Combo]

    @property
    def targets(self) -> tuple[TargetPicture | TargetAnswer, ...]:
        """What the model must produce, in order."""
        return tuple(part for part in self.parts if isinstance(part, TargetPicture | TargetAnswer))

    @property
    def prompt(self) -> tuple[Part, ...]:
        """What comes before the first thing the model produces."""
        produced = (Thought, TargetPicture, TargetAnswer)
        first = next(i for i, part in enumerate(self.parts) if isinstance(part, produced))
        return self.parts[:first]

    def without_thoughts(self) -> Sample:
        """The same exercise, answered straight away."""
        return replace(self, parts=tuple(part for part in self.parts if not isinstance(part, Thought)))
