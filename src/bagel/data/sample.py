"""A training sample: what one row becomes. Parts in reading order, plain Python and Pillow; token ids,
positions and masks are the business of `encode` and `packing`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from PIL import Image


class Use(Enum):
    """What a picture is put into the sequence for. A generated picture that something follows appears three
    times: as TARGET, then as CONTEXT and LOOK for what comes after it."""

    LOOK = "look"
    """Seen through the ViT."""
    CONTEXT = "context"
    """Clean latents: the pixels that an edit starts from."""
    TARGET = "target"
    """Noised latents, to be generated: the only use with a loss."""


class Next(Enum):
    """What the model should learn to do after a part: the label of the part's last marker."""

    IMAGE = "image"
    """Start a picture."""
    TEXT = "text"
    """Start another text."""
    END = "end"
    """Stop."""


@dataclass(frozen=True, slots=True)
class Text:
    """A text between its two markers.

    loss: the model learns to write it.
    drop: for guidance, may be left out; parts with the same number are left out together.
    then: see `Next`; None is no label.
    """

    text: str
    loss: bool = False
    drop: int | None = None
    then: Next | None = None


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture in one of its uses. Two parts may hold the same `image` object: it is resized once.

    share: pictures of this sample that share one pixel budget (upstream does so for understanding).
    """

    image: Image.Image
    use: Use
    drop: int | None = None
    then: Next | None = None
    share: int = 1


@dataclass(frozen=True, slots=True)
class Clip:
    """Frames of one video as latents that see each other; with `loss` they are generated together, at one
    noise level.

    deltas: how many positions each frame moves on, in frames of the source; None is the default of a
    picture (0 if generated, else 1).
    """

    frames: tuple[Image.Image, ...]
    deltas: tuple[int | None, ...]
    loss: bool = False
    drop: int | None = None
    then: Next | None = None

    def __post_init__(self) -> None:
        if len(self.frames) != len(self.deltas) or not self.frames:
            raise ValueError(f"a clip of {len(self.frames)} frames has {len(self.deltas)} deltas")


Part = Text | Picture | Clip


@dataclass(frozen=True, slots=True)
class Sample:
    """`name` says where it comes from (data set, row), for reports and errors."""

    name: str
    parts: tuple[Part, ...]

    @property
    def has_loss(self) -> bool:
        return any(
            part.then is not None or (part.use is Use.TARGET if isinstance(part, Picture) else part.loss)
            for part in self.parts
        )


class Drops:
    """Hands out numbers for `drop`."""

    def __init__(self) -> None:
        self._last = -1

    def new(self) -> int:
        self._last += 1
        return self._last


def picture(image: Image.Image, uses: tuple[Use, ...], drops: Drops | None = None) -> list[Part]:
    """A picture in several uses, in the order given; with `drops` each use but the target may be left out
    on its own."""
    return [Picture(image, use, drop=drops.new() if drops and use is not Use.TARGET else None) for use in uses]


SEEN = (Use.CONTEXT, Use.LOOK)
"""An input picture of a sample that generates: clean latents, then the ViT."""
DRAWN_AND_SEEN = (Use.TARGET, Use.CONTEXT, Use.LOOK)
"""A generated picture that something follows."""
