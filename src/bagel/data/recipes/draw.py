"""Text-to-image and editing: upstream's parquet rows (`data/t2i_dataset.py`,
`data/interleave_datasets/edit_dataset.py`) and plainer ones; with or without a thought before the picture."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from PIL import Image

from bagel.data.recipes.base import (
    CAPTIONS,
    IMAGE,
    THOUGHT,
    NoOptions,
    Recipe,
    at_least,
    prompt,
    system_prompt,
    thought_part,
)
from bagel.data.sample import DRAWN_AND_SEEN, SEEN, Drops, Part, Picture, Text, Use, picture
from bagel.data.schema import Column, Reader, Schema
from bagel.errors import InputError


def text_to_image(row: Reader, options: NoOptions, rng: Random) -> list[Part]:
    """Caption, thought if any, picture."""
    drop = Drops().new()
    parts: list[Part] = [prompt(row, "captions", rng, drop)]
    if row.has("thought"):
        thought = row.text(row.get("thought"), "thought")
        parts = [system_prompt("image"), *parts, thought_part(thought, drop)]
    return [*parts, Picture(_single(row.pictures("image"), "image"), Use.TARGET)]


T2I = Recipe(Schema(((IMAGE, CAPTIONS),), (THOUGHT,)), NoOptions, text_to_image)


@dataclass(frozen=True, kw_only=True)
class EditOptions:
    """max_steps:   edits of a chain that one sample covers at most.
    join:        chance that several edits are asked for in one instruction.
    whole_chain: always the chain from its first picture to its last.
    """

    max_steps: int = 2
    join: float = 0.5
    whole_chain: bool = False

    def __post_init__(self) -> None:
        at_least(self, max_steps=1)


def edit(row: Reader, options: EditOptions, rng: Random) -> list[Part]:
    """A chain of pictures with the instructions between them, or pictures, an instruction and a result."""
    if not row.has("image_list"):
        return _composition(row, rng)
    images, instructions, thoughts = _chain(row)
    start, end = _stretch(len(images), options, rng)
    joined = end - start > 1 and not options.whole_chain and not thoughts and rng.random() < options.join
    if joined and end == len(images) - 1:
        end -= 1  # upstream joins no instructions that lead to the last picture
    drops = Drops()
    parts: list[Part] = [system_prompt("image")] if thoughts else []
    parts += picture(row.picture(images[start], "image_list"), SEEN, drops)
    texts = [rng.choice(row.choices(instructions[i], "instruction_list")) for i in range(start, end)]
    if joined:
        last = row.picture(images[end], "image_list")
        return [*parts, Text("".join(f"{text}. " for text in texts).rstrip(), drop=drops.new()), *drawn(last)]
    for step, text in enumerate(texts, start):
        drop = drops.new()
        parts.append(Text(text, drop=drop))
        if thoughts:
            parts.append(thought_part(thoughts[step], drop))
        image = row.picture(images[step + 1], "image_list")
        parts += drawn(image) if step + 1 == end else picture(image, DRAWN_AND_SEEN, drops)
    return parts


def drawn(image: Image.Image) -> list[Part]:
    """A generated picture that nothing follows."""
    return picture(image, (Use.TARGET,))


EDIT = Recipe(
    Schema(
        (
            (Column("image_list"), Column("instruction_list")),
            (
                Column("sources", ("source", "source_image", "image", "images")),
                Column("instruction", ("instructions", "prompt")),
                Column("target", ("target_image", "edited_image")),
            ),
        ),
        (THOUGHT,),
    ),
    EditOptions,
    edit,
)


def _chain(row: Reader) -> tuple[list[object], list[object], list[str]]:
    """Pictures, undecoded; instructions and, if there are any, thoughts, one for each step."""
    images, instructions = row.get("image_list"), row.get("instruction_list")
    if not isinstance(images, list) or len(images) < 2:
        raise InputError("image_list must be a list of at least 2 pictures.")
    if not isinstance(instructions, list) or len(instructions) != len(images) - 1:
        raise InputError(
            f"instruction_list must hold {len(images) - 1} entries, one for each step between {len(images)} pictures."
        )
    for step, entry in enumerate(instructions):
        if not row.choices(entry, "instruction_list"):
            raise InputError(f"instruction_list has no instruction for step {step + 1}.")
    thoughts = row.choices(row.get("thought"), "thought") if row.has("thought") else []
    if thoughts and len(thoughts) != len(instructions):
        raise InputError(f"thought must hold {len(instructions)} texts, one for each step.")
    return images, instructions, thoughts


def _stretch(count: int, options: EditOptions, rng: Random) -> tuple[int, int]:
    """First and last picture of the part of a chain that is used."""
    if options.whole_chain:
        return 0, count - 1
    start = rng.randrange(count - 1)
    return start, rng.randrange(start + 1, min(start + options.max_steps + 1, count))


def _composition(row: Reader, rng: Random) -> list[Part]:
    drops = Drops()
    parts: list[Part] = []
    for image in row.pictures("sources"):
        parts += picture(image, SEEN, drops)
    drop = drops.new()
    parts.append(prompt(row, "instruction", rng, drop))
    if row.has("thought"):
        thought = row.text(row.get("thought"), "thought")
        parts = [system_prompt("image"), *parts, thought_part(thought, drop)]
    return [*parts, *drawn(_single(row.pictures("target"), "target"))]


def _single(images: list[Image.Image], column: str) -> Image.Image:
    if len(images) != 1:
        raise InputError(f"{column} holds {len(images)} pictures; it must be one.")
    return images[0]
