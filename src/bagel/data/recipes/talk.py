"""Conversations about pictures, about a video, or about nothing seen; plain text. Upstream's JSONL rows
(`data/vlm_dataset.py`), and the role / content spelling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from random import Random
from typing import Any

from PIL import Image

from bagel.data.recipes.base import (
    IMAGE,
    THOUGHT,
    VIDEO,
    NoOptions,
    Recipe,
    at_least,
    in_tags,
    open_video,
    system_prompt,
)
from bagel.data.sample import Part, Picture, Text, Use
from bagel.data.schema import Column, Reader, Schema
from bagel.data.video import spread_frames
from bagel.errors import InputError

ROLES = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"
}  # fmt: skip
CONVERSATIONS = Column("conversations", ("messages",))
MARK = "<image>"


@dataclass(frozen=True, kw_only=True)
class UnderstandOptions:
    """min_frames, max_frames: of a video; how many is drawn.
    system_prompt: put the official one first where answers hold a thought.
    """

    min_frames: int = 8
    max_frames: int = 12
    system_prompt: bool = True

    def __post_init__(self) -> None:
        at_least(self, min_frames=1, max_frames=self.min_frames)


def understand(row: Reader, options: UnderstandOptions, rng: Random) -> list[Part]:
    """The turns, with pictures where `<image>` stands; every answer is learnt."""
    turns = _turns(row)
    images: list[Image.Image] = []
    if row.has("image"):
        images = row.pictures("image")
    elif row.has("video"):
        images = _frames(row, options, rng)
        turns = _mark_video(turns, len(images))
    parts = _placed(turns, images)
    thinks = any(isinstance(part, Text) and part.loss and "<think>" in part.text for part in parts)
    return [system_prompt("text"), *parts] if thinks and options.system_prompt else parts


UNDERSTAND = Recipe(Schema(((CONVERSATIONS,),), (IMAGE, VIDEO, THOUGHT)), UnderstandOptions, understand)


def plain_text(row: Reader, options: NoOptions, rng: Random) -> list[Part]:
    """A text to be learnt whole, or a conversation."""
    if row.has("text"):
        return [Text(row.text(row.get("text"), "text"), loss=True)]
    return understand(row, UnderstandOptions(), rng)


TEXT = Recipe(Schema(((Column("text"),), (CONVERSATIONS,)), (IMAGE, VIDEO, THOUGHT)), NoOptions, plain_text)


def _turns(row: Reader) -> list[tuple[str, str]]:
    """(role, text), thoughts put before their answers."""
    value = row.get("conversations")
    if not isinstance(value, list) or not value:
        raise InputError("conversations must be a list of turns, {from, value} each.")
    turns = []
    for number, turn in enumerate(value, 1):
        if not isinstance(turn, Mapping):
            raise InputError(f"conversations: turn {number} must be an object with from and value.")
        role, text = turn.get("from", turn.get("role")), turn.get("value", turn.get("content"))
        if role not in ROLES:
            raise InputError(f"conversations: turn {number} is from {role!r}; it must be one of {', '.join(ROLES)}.")
        turns.append((ROLES[role], row.text(text, f"conversations: turn {number}")))
    if not any(role == "assistant" and text for role, text in turns):
        raise InputError("conversations: there is no answer (from gpt) to learn; add one.")
    return _with_thoughts(turns, row)


def _with_thoughts(turns: list[tuple[str, str]], row: Reader) -> list[tuple[str, str]]:
    if not row.has("thought"):
        return turns
    thoughts = row.choices(row.get("thought"), "thought")
    answers = sum(role == "assistant" for role, _ in turns)
    if len(thoughts) != answers:
        raise InputError(f"thought must hold {answers} texts, one for each answer, not {len(thoughts)}.")
    left = iter(thoughts)
    return [(role, f"{in_tags(next(left))} {text}" if role == "assistant" else text) for role, text in turns]


def _mark_video(turns: list[tuple[str, str]], frames: int) -> list[tuple[str, str]]:
    """The first `<video>` becomes as many `<image>`."""
    for number, (role, text) in enumerate(turns):
        if "<video>" in text:
            return [*turns[:number], (role, text.replace("<video>", MARK * frames, 1)), *turns[number + 1 :]]
    return turns


def _placed(turns: list[tuple[str, str]], images: list[Image.Image]) -> list[Part]:
    """Pictures stand where users' turns mark them, or before everything if no turn does."""
    marks = sum(text.count(MARK) for role, text in turns if role == "user")
    if marks not in (0, len(images)):
        raise InputError(f"conversations: {marks} times {MARK} for {len(images)} pictures; the numbers must be equal.")
    left = iter(images)
    parts: list[Part] = []
    if not marks:
        parts += [_seen(image, len(images)) for image in left]
    for role, text in turns:
        pieces = text.split(MARK) if role == "user" and MARK in text else [text]
        for number, piece in enumerate(pieces):
            if number:
                parts.append(_seen(next(left), len(images)))
            piece = piece.strip() if len(pieces) > 1 else piece
            if piece:
                parts.append(Text(piece, loss=role == "assistant"))
    return parts


def _seen(image: Image.Image, share: int) -> Picture:
    return Picture(image, Use.LOOK, share=share)


def _frames(row: Reader, options: UnderstandOptions, rng: Random) -> list[Image.Image]:
    """Of a video file, or of a list of pictures."""
    value: Any = row.get("video")
    if isinstance(value, list):
        chosen = spread_frames(len(value), options.min_frames, options.max_frames, rng) if value else []
        if not chosen:
            raise InputError("video is an empty list; name its frames.")
        return [row.picture(value[number], "video") for number in chosen]
    if isinstance(value, str) and PurePosixPath(value).suffix.lower() == ".gif":
        raise InputError("video: GIF files are not read as videos; use MP4 or WebM.")
    video = open_video(row, value, "video")
    return video.read(spread_frames(len(video), options.min_frames, options.max_frames, rng))
