"""What a flat picture shows: things on a background. Small frozen values; `render.draw` makes the picture."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .palette import COLOURS
from .shapes import SHAPES, size_name

SIDE = 128
Look = tuple[str, str]
LOOKS: tuple[Look, ...] = tuple((shape, colour) for shape in SHAPES for colour in COLOURS)
RELATIONS = ("left", "right", "above", "below")
OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}


@dataclass(frozen=True)
class Thing:
    """One shape: centre (x, y) and radius `r` in pixels, `angle` in degrees clockwise."""

    shape: str
    colour: str
    x: int
    y: int
    r: int
    angle: int = 0

    @property
    def look(self) -> Look:
        return self.shape, self.colour

    @property
    def size(self) -> str:
        return size_name(self.r)

    def but(self, **changes: object) -> Thing:
        """The same thing with some fields changed."""
        return replace(self, **changes)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Scene:
    """Things, none overlapping another, on a plain background."""

    things: tuple[Thing, ...]
    background: str = "white"

    def put(self, index: int, thing: Thing) -> Scene:
        """The scene with thing number `index` replaced."""
        return replace(self, things=(*self.things[:index], thing, *self.things[index + 1 :]))

    def without(self, *indexes: int) -> Scene:
        """The scene with these things taken away."""
        return replace(self, things=tuple(t for i, t in enumerate(self.things) if i not in indexes))

    def plus(self, *things: Thing) -> Scene:
        """The scene with more things."""
        return replace(self, things=self.things + things)

    def on(self, background: str) -> Scene:
        """The same things before another background."""
        return replace(self, background=background)


def stands(a: tuple[float, float], relation: str, b: tuple[float, float], gap: float = 8) -> bool:
    """Is point `a` clearly left of, right of, above or below `b`: by at least `gap` pixels, and mostly so?"""
    dx, dy = a[0] - b[0], a[1] - b[1]
    along, across = (dx, dy) if relation in ("left", "right") else (dy, dx)
    if relation in ("left", "above"):
        along = -along
    return along >= gap and along >= 0.8 * abs(across)
