"""What users hand in, made ready: text told from pictures, pictures opened, sizes checked."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from bagel.errors import InputError
from bagel.images import open_image
from bagel.infer.jobs import Input
from bagel.model.config import ModelConfig
from bagel.options import ImageOptions, TextOptions, make

ImageLike = str | os.PathLike[str] | bytes | Image.Image
_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})


class Text(str):
    """A string that is text whatever it looks like, even the name of a picture."""

    __slots__ = ()


def as_list(value: Any) -> list[Any]:
    """A list, a tuple or what a generator gives; anything else is one item."""
    return list(value) if isinstance(value, (list, tuple, Iterator)) else [value]


def as_prompts(value: Any) -> list[str]:
    """A prompt, or a list of prompts. Raises InputError for what is no text."""
    return [checked_text(item) for item in as_list(value)]


def as_inputs(items: Sequence[Any]) -> list[Input]:
    """Texts and opened pictures."""
    if not items:
        raise InputError("there is nothing to answer; give a question, or pictures and a question.")
    return [as_input(item) for item in items]


def as_input(item: Any) -> Input:
    if isinstance(item, Text):
        return checked_text(item)
    if isinstance(item, str):
        return open_image(item) if _looks_like_picture(item) else checked_text(item)
    if isinstance(item, (Image.Image, bytes, os.PathLike)):
        return open_image(item)
    raise InputError(
        f"an input is of type {type(item).__name__}; give text, a PIL picture, a path or the bytes of a picture's file."
    )


def _looks_like_picture(text: str) -> bool:
    """A file name of a picture; with blanks in it only if the file is there, since then it may be a sentence. Another
    file that is there is meant as a picture too, if its name has a suffix: opening it will tell."""
    suffix = Path(text[:1025]).suffix.lower()
    if "\n" in text or len(text) > 1024 or not suffix:
        return False
    try:
        return (suffix in _SUFFIXES and " " not in text) or Path(text).is_file()
    except (OSError, ValueError):  # too long for a file name, or with a null byte
        return False


def is_picture_file(text: str) -> bool:
    """Whether this is the name of a picture that is there."""
    return _looks_like_picture(text) and Path(text).is_file()


def checked_text(text: Any) -> Text:
    """From here on it is text, whatever it looks like. Raises InputError for what is empty or no text."""
    if not isinstance(text, str):
        raise InputError(f"the prompt is of type {type(text).__name__}; it must be a string.")
    if not text.strip():
        raise InputError("the prompt is empty; say what to draw, change or answer.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"the prompt is no valid Unicode ({error.reason} at {error.start}); type it again.") from None
    return Text(text)


def check_size(options: ImageOptions, config: ModelConfig) -> ImageOptions:
    """Raises InputError for a height or width that the model cannot draw."""
    for name in ("height", "width"):
        side = getattr(options, name)
        if side is None:
            continue
        if side % config.latent_stride:
            near = max(round(side / config.latent_stride), 1) * config.latent_stride
            raise InputError(f"{name} is {side}; it must be a multiple of {config.latent_stride}, {near} for one.")
        if side > config.max_image_side and not config.interpolate_pos:
            raise InputError(
                f"{name} is {side}; the model's position table ends at {config.max_image_side} "
                f"(max_latent_size {config.max_latent_size}). Draw a smaller picture."
            )
    return options


def split_fields(
    fields: Mapping[str, Any], image: ImageOptions | None = None, text: TextOptions | None = None
) -> tuple[ImageOptions, TextOptions]:
    """Fields given by name, each to whichever options have it. Raises InputError for one that neither has."""
    for_text = {name: value for name, value in fields.items() if name in TextOptions.__dataclass_fields__}
    known = ImageOptions.__dataclass_fields__
    for_image = {name: value for name, value in fields.items() if name in known or name not in for_text}
    return make(ImageOptions, image, for_image), make(TextOptions, text, for_text)
