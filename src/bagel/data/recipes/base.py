"""What a recipe is, and what several of them share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from bagel.data.sample import Part, Text
from bagel.data.schema import Column, Reader, Schema
from bagel.data.video import Video
from bagel.errors import InputError
from bagel.tokens import THINK_PROMPT


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a row becomes the parts of a sample. `options`: a dataclass of what can be set; `make` gets the
    row, an instance of it, and the randomness of this (epoch, row)."""

    schema: Schema
    options: type
    make: Callable[[Reader, Any, Random], list[Part]]


@dataclass(frozen=True, kw_only=True)
class NoOptions:
    """A recipe that needs none."""


IMAGE = Column("image", ("images", "file_name"))
VIDEO = Column("video")
CAPTIONS = Column("captions", ("caption", "text", "prompt"))
THOUGHT = Column("thought", ("thoughts",))


def prompt(row: Reader, column: str, rng: Random, drop: int | None) -> Text:
    """One of the texts of a column, drawn. None at all gives a blank, as upstream does for captions."""
    choices = row.choices(row.get(column), column)
    return Text(rng.choice(choices) if choices else " ", drop=drop)


def thought_part(thought: str, drop: int | None) -> Text:
    """The plan before a picture, which the model learns to write; it goes where its prompt goes."""
    return Text(in_tags(thought), loss=True, drop=drop)


def in_tags(thought: str) -> str:
    """As the system prompts show it; a thought that brings its tags stays as it is."""
    return thought if "<think>" in thought else f"<think> {thought.strip()} </think>"


def system_prompt(before: str) -> Text:
    """`before`: `image` or `text`, what the thought leads to."""
    return Text(THINK_PROMPT[before])


def at_least(options: Any, **limits: int) -> None:
    """Refuses options below these limits."""
    for name, limit in limits.items():
        if getattr(options, name) < limit:
            raise InputError(f"{name} is {getattr(options, name)}; it must be at least {limit}.")


def open_video(row: Reader, value: Any, column: str) -> Video:
    content = row.media(value, column)
    if not isinstance(content, bytes):
        raise InputError(f"{column} holds a picture; it must be a path or the bytes of a video.")
    return Video(content, value if isinstance(value, str) else column)
