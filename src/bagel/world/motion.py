"""Shapes in motion: each frame follows from the one before by a constant law."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from .layout import GAP
from .scene import SIDE, Scene, Thing
from .shapes import TURN_PERIOD

LOW, HIGH = 3, SIDE - 4  # the walls that things bounce off: the first and last pixel they may touch
LEAST_R, MOST_R = 8, 26


@dataclass(frozen=True)
class Mover:
    """A thing and what changes it each frame: pixels right and down, pixels of radius, degrees clockwise."""

    thing: Thing
    dx: int = 0
    dy: int = 0
    dr: int = 0
    spin: int = 0

    def step(self) -> Mover:
        """One frame later."""
        thing = self.thing
        r = thing.r + self.dr
        x, dx = _bounce(thing.x + self.dx, self.dx, r)
        y, dy = _bounce(thing.y + self.dy, self.dy, r)
        angle = (thing.angle + self.spin) % TURN_PERIOD.get(thing.shape, 1)
        return replace(self, thing=thing.but(x=x, y=y, r=r, angle=angle), dx=dx, dy=dy)

    @property
    def bounces_next(self) -> bool:
        """Does the next frame turn it around?"""
        after = self.step()
        return (after.dx, after.dy) != (self.dx, self.dy)


def _bounce(at: int, speed: int, r: int) -> tuple[int, int]:
    """Position and speed after reflection at the walls."""
    if at - r < LOW:
        return 2 * (LOW + r) - at, -speed
    if at + r > HIGH:
        return 2 * (HIGH - r) - at, -speed
    return at, speed


def film(movers: Sequence[Mover], background: str, frames: int) -> list[Scene] | None:
    """The first `frames` frames; None if things come too close to each other, or outgrow the limits."""
    shown, now = [], list(movers)
    for _ in range(frames):
        things = tuple(mover.thing for mover in now)
        if not _apart(things) or not all(LEAST_R <= thing.r <= MOST_R and _inside(thing) for thing in things):
            return None
        shown.append(Scene(things, background))
        now = [mover.step() for mover in now]
    return shown


def _inside(thing: Thing) -> bool:
    return min(thing.x, thing.y) - thing.r >= LOW and max(thing.x, thing.y) + thing.r <= HIGH


def _apart(things: Sequence[Thing]) -> bool:
    """No two things nearer than GAP, whichever way they are turned."""
    return all(
        (a.x - b.x) ** 2 + (a.y - b.y) ** 2 >= (a.r + b.r + GAP) ** 2
        for i, a in enumerate(things)
        for b in things[i + 1 :]
    )
