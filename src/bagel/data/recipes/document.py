"""Interleaved documents: texts, thoughts, pictures and clips in any order, each learnt or given. The one
recipe in which a row can say everything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from bagel.data.config import nearest
from bagel.data.recipes.base import Recipe, at_least, in_tags, open_video
from bagel.data.sample import SEEN, Clip, Drops, Next, Part, Picture, Text, Use, picture
from bagel.data.schema import Column, Reader, Schema
from bagel.data.video import spread_frames
from bagel.errors import InputError

KINDS = ("text", "thought", "image", "video", "frames")
FLAGS = ("loss", "drop", "then", "use", "deltas")


@dataclass(frozen=True, kw_only=True)
class DocumentOptions:
    """text_loss, image_loss: for parts that do not say `loss` themselves.
    markers: learn what comes next (a picture, a text, the end) at the end of every part.
    min_frames, max_frames: of a video that is seen.
    """

    text_loss: bool = True
    image_loss: bool = True
    markers: bool = False
    min_frames: int = 8
    max_frames: int = 12

    def __post_init__(self) -> None:
        at_least(self, min_frames=1, max_frames=self.min_frames)


@dataclass(frozen=True, slots=True)
class _Item:
    """One entry of `parts`, its defaults filled in."""

    kind: str
    value: Any
    loss: bool
    entry: Mapping[str, Any]

    @property
    def drawn(self) -> bool:
        return self.loss and self.kind in ("image", "frames")


def document(row: Reader, options: DocumentOptions, rng: Random) -> list[Part]:
    entries = row.get("parts")
    if not isinstance(entries, list) or not entries:
        raise InputError("parts must be a list of objects, each a text or a picture.")
    items = [_item(entry, number, options) for number, entry in enumerate(entries, 1)]
    draws = any(item.drawn for item in items)
    drops, said = Drops(), None
    parts: list[Part] = []
    for number, item in enumerate(items):
        following = items[number + 1] if number + 1 < len(items) else None
        if item.kind in ("text", "thought"):
            may_drop = _flag(item.entry, "drop", draws and not item.loss)
            said = drops.new() if may_drop else said if item.kind == "thought" else None
            text = row.text(item.value, item.kind)
            made: list[Part] = [Text(in_tags(text) if item.kind == "thought" else text, loss=item.loss, drop=said)]
        else:
            made = _seen_or_drawn(row, item, options, rng, drops, draws, following is not None)
        parts += _labelled(made, item, following, options)
    return parts


DOCUMENT = Recipe(Schema(((Column("parts", ("content",)),),)), DocumentOptions, document)


def _item(entry: Any, number: int, options: DocumentOptions) -> _Item:
    if not isinstance(entry, Mapping):
        raise InputError(f"parts: entry {number} must be an object.")
    entry = {key: value for key, value in entry.items() if value is not None}
    for key in entry:
        if key not in KINDS + FLAGS and key != "type":
            raise InputError(f"parts: entry {number} has the key {key!r}{nearest(key, KINDS + FLAGS)}")
    kinds = [kind for kind in KINDS if kind in entry]
    if len(kinds) != 1:
        raise InputError(f"parts: entry {number} must hold one of {', '.join(KINDS)}, not {len(kinds)}.")
    kind = kinds[0]
    if "use" in entry:
        loss = Use.TARGET.value in _names(entry["use"])
    else:
        default = options.text_loss if kind == "text" else kind == "thought"
        default = options.image_loss if kind in ("image", "frames") else default
        loss = _flag(entry, "loss", default)
    return _Item(kind, entry[kind], loss, entry)


def _seen_or_drawn(
    row: Reader,
    item: _Item,
    options: DocumentOptions,
    rng: Random,
    drops: Drops,
    draws: bool,
    followed: bool,
) -> list[Part]:
    may_drop = _flag(item.entry, "drop", draws)
    if item.kind == "frames":
        frames = tuple(row.picture(frame, "frames") for frame in item.value)
        deltas = [*item.entry.get("deltas", [])]
        deltas += [None] * (len(frames) - len(deltas))
        drop = drops.new() if may_drop and not item.loss else None
        return [Clip(frames, tuple(deltas[: len(frames)]), loss=item.loss, drop=drop)]
    if item.kind == "video":
        video = open_video(row, item.value, "video")
        chosen = spread_frames(len(video), options.min_frames, options.max_frames, rng)
        return [Picture(frame, Use.LOOK, share=len(chosen)) for frame in video.read(chosen)]
    uses = _uses(item, options, draws, followed)
    return picture(row.picture(item.value, "image"), uses, drops if may_drop else None)


def _uses(item: _Item, options: DocumentOptions, draws: bool, followed: bool) -> tuple[Use, ...]:
    if "use" in item.entry:
        try:
            return tuple(Use(name) for name in _names(item.entry["use"]))
        except ValueError as error:
            raise InputError(f"parts: {error}; use look, context or target.") from None
    if not item.loss:
        return SEEN if draws else (Use.LOOK,)
    if followed:
        return (Use.TARGET, *SEEN)
    return (Use.TARGET, Use.CONTEXT) if options.markers else (Use.TARGET,)


def _labelled(made: list[Part], item: _Item, following: _Item | None, options: DocumentOptions) -> list[Part]:
    """Puts the label of the last marker on the last part."""
    then: Next | None = None
    if "then" in item.entry:
        try:
            then = Next(item.entry["then"])
        except ValueError as error:
            raise InputError(f"parts: {error}; `then` is image, text or end.") from None
    elif options.markers and following is not None and following.loss:
        then = Next.IMAGE if following.drawn else Next.TEXT
    elif options.markers and item.loss:
        then = Next.END
    last = made[-1]
    if then is Next.END and following is None and isinstance(last, Picture):
        last = replace(last, drop=None)  # nothing else carries this label
    return [*made[:-1], replace(last, then=then)]


def _names(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _flag(entry: Mapping[str, Any], key: str, default: bool) -> bool:
    value = entry.get(key, default)
    if value not in (True, False):
        raise InputError(f"parts: {key} is {value!r}; it must be true or false.")
    return bool(value)
