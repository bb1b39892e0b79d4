"""Exercises of the generated world, made as they are read: no files. What the model reads and learns follows how
it is asked later: a thought under the system prompt, a picture that something follows three times, and at the end
of every part the marker that names what comes next."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from random import Random
from typing import Any, Literal, cast

from PIL import Image

from bagel import world
from bagel.data.config import choose
from bagel.data.recipes.base import Recipe, system_prompt
from bagel.data.sample import Drops, Next, Part, Picture, Text, Use, picture
from bagel.data.schema import Column, Reader, Schema
from bagel.errors import InputError

KEPT = 2048
"""So many exercises, with their pictures, a process keeps where they are used again."""


@dataclass(frozen=True, kw_only=True, eq=False)
class WorldOptions:
    """seed: of the exercises; split: train or heldout.
    tasks: weight of each task, as `draw`, or of a single category, as `draw/counting`; empty for the world's own.
    chinese: share of exercises in Chinese.
    unthought: share of exercises with thoughts that are given without them.
    read_back: share of exercises whose last picture is read again, so that the end after it is learnt.
    noises: at how many noise levels each picture to be drawn is shown, where pictures are given: what those cost is
        then paid once.
    repeats: how often each exercise is used, each time with other noise, some 2,000 rows later: made and painted once.
        Rows that follow one another are then wanted (`shuffle: false`), as a process keeps the last 2048 exercises
        alone.
    see: how given pictures are read by exercises that draw: context (latents), look (ViT), or both.
    """

    seed: int = 0
    split: str = "train"
    tasks: Mapping[str, Any] = field(default_factory=dict)
    chinese: float = 0.35
    unthought: float = 0.3
    read_back: float = 0.1
    noises: int = 1
    repeats: int = 1
    see: tuple[str, ...] = ("context", "look")

    def __post_init__(self) -> None:
        choose(self.split, ("train", "heldout"), "split")
        for name in ("chinese", "unthought", "read_back"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must lie between 0 and 1.")
        for name in ("noises", "repeats"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 16:
                raise InputError(f"{name} is {value!r}; it must be a whole number from 1 to 16.")
        for use in self.see or ("nothing",):
            choose(use, ("context", "look"), "see")
        for name, weight in self.tasks.items():
            task, slash, category = name.partition("/")
            choose(task, tuple(world.TASKS), "tasks")
            if slash:
                choose(category, tuple(world.TASKS[task]), f"tasks: category of {task}")
            if isinstance(weight, bool) or not isinstance(weight, int | float) or weight < 0:
                raise InputError(f"tasks: the weight of {name} is {weight!r}; it must be a number, 0 or more.")
        if self.tasks and not any(self.tasks.values()):
            raise InputError("tasks: every weight is 0; nothing would be drawn.")

    @property
    def uses(self) -> tuple[Use, ...]:
        return tuple(use for use in (Use.CONTEXT, Use.LOOK) if use.value in self.see)


def exercise(options: WorldOptions, number: int) -> world.Sample:
    """Exercise `number` of the mixture that the options describe, thoughts and all."""
    rng = Random(f"{options.seed}/{number}/{options.split}")
    weights: Mapping[str, Any] = options.tasks or world.WEIGHTS
    chosen = rng.choices(list(weights), list(weights.values()))[0]
    task, _, category = chosen.partition("/")
    category = category or rng.choice(list(world.TASKS[task]))
    language: Literal["zh", "en"] = "zh" if rng.random() < options.chinese else "en"
    split = cast(Literal["train", "heldout"], options.split)
    return world.make(task, category, options.seed, number, split, language)


def world_parts(row: Reader, options: WorldOptions, rng: Random) -> list[Part]:
    number = row.get("number")
    if isinstance(number, bool) or not isinstance(number, int):
        raise InputError(f"number is {number!r}; it must be a whole number.")
    sample, paint = exercise_of_row(options, number)
    if any(isinstance(part, world.Thought) for part in sample.parts) and rng.random() < options.unthought:
        sample = sample.without_thoughts()
    return parts_of(sample, options.uses, rng.random() < options.read_back, options.noises, paint)


Paint = Callable[[world.Picture], Image.Image]


def painted(part: world.Picture) -> Image.Image:
    return Image.fromarray(part.pixels())


def exercise_of_row(options: WorldOptions, row: int) -> tuple[world.Sample, Paint]:
    """With `repeats`, every so manieth row holds a new exercise, and those between it exercises of earlier rows: each
    pack is as much work as any other. A process that begins in the middle makes those anew."""
    if options.repeats == 1:
        return exercise(options, row), painted
    newest, use = divmod(row, options.repeats)
    return _kept(options, newest - use * ((KEPT - 1) // options.repeats))


@lru_cache(maxsize=KEPT)
def _kept(options: WorldOptions, number: int) -> tuple[world.Sample, Paint]:
    """Each of its pictures is painted once, with and without its thoughts: by what is the same object in both."""
    sample, pictures = exercise(options, number), dict[int, Image.Image]()

    def paint(part: world.Picture) -> Image.Image:
        if id(part) not in pictures:
            pictures[id(part)] = painted(part)
        return pictures[id(part)]

    return sample, paint


def parts_of(
    sample: world.Sample, uses: tuple[Use, ...], read_back: bool = False, noises: int = 1, paint: Paint = painted
) -> list[Part]:
    """An exercise as parts in reading order. Guidance leaves out what inference leaves out: the last text given
    with the thought about it, and all pictures together. noises: see `WorldOptions`. paint: a
    picture of the exercise."""
    draws = any(isinstance(part, world.TargetPicture) for part in sample.parts)
    thinks = any(isinstance(part, world.Thought) for part in sample.parts)
    given = any(isinstance(part, world.Picture) for part in sample.prompt)
    targets = (Use.TARGET,) * (noises if given else 1)
    several = sum(isinstance(part, world.TargetPicture) for part in sample.parts) > 1
    drops = Drops()
    seen, said = drops.new(), drops.new()
    texts = [number for number, part in enumerate(sample.prompt) if isinstance(part, world.Text)]
    parts: list[Part] = [system_prompt("image")] if draws and thinks else []
    for number, part in enumerate(sample.parts):
        following = sample.parts[number + 1] if number + 1 < len(sample.parts) else None
        if isinstance(part, world.TargetPicture):
            again = following is not None or read_back or several
            new = _picture(paint(part), (*targets, *uses) if again else targets, seen)
            said = drops.new()  # guidance begins anew after a picture
        elif isinstance(part, world.Picture):
            new = _picture(paint(part), uses if draws else (Use.LOOK,), seen if draws else None)
        else:
            last_given = bool(texts) and number == texts[-1]
            drop = said if draws and (last_given or isinstance(part, world.Thought)) else None
            new = [_text(part, drop)]
        parts += _with_marker(new, part, following)
    return parts


WORLD = Recipe(Schema(((Column("number"),),)), WorldOptions, world_parts)


def _picture(image: Image.Image, uses: tuple[Use, ...], seen: int | None) -> list[Part]:
    shown = picture(image, uses)
    return [replace(p, drop=seen) if isinstance(p, Picture) and p.use is not Use.TARGET else p for p in shown]


def _text(part: world.Text | world.Said | world.Thought | world.TargetAnswer, drop: int | None) -> Text:
    text = part.tagged if isinstance(part, world.Thought) else part.text
    return Text(text, loss=not isinstance(part, world.Text), drop=drop)


_PRODUCED = (world.Said, world.Thought, world.TargetAnswer, world.TargetPicture)


def _with_marker(made: list[Part], part: Any, following: Any) -> list[Part]:
    """The label of the part's last marker: only where the model is the one to go on."""
    then: Next | None = None
    if isinstance(following, world.TargetPicture):
        then = Next.IMAGE
    elif isinstance(following, _PRODUCED):
        then = Next.TEXT
    elif following is None or isinstance(part, world.Said):
        then = Next.END
    last = made[-1]
    if isinstance(last, Picture) and last.use is Use.TARGET:
        return made  # nothing reads on from a picture that is still noise
    return [*made[:-1], replace(last, then=then)]
