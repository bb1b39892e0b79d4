"""A room seen by someone standing in it: four walls of four colours, and solid things on the floor.

Units are metres; x points east, y south, and the room is [0, WIDTH]^2. Headings count 45-degree steps clockwise
from north. Every room uses all four wall colours once, so a fourth wall is known when three were seen.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from math import cos, hypot, pi, sin

import numpy as np

from .palette import CEILING, COLOURS, FLOOR, WALLS, shade
from .render import paint
from .scene import SIDE

WIDTH = 5.0
HEIGHT = 2.2
EYE = 1.0
FOCAL = SIDE / 2  # pixels: a field of view of 90 degrees
BODY = 0.6  # how close one may come to a wall
REACH = 0.75  # ... and to the middle of a thing
PROPS: dict[str, tuple[float, float]] = {  # width and height
    "ball": (0.8, 0.8),
    "box": (0.75, 0.75),
    "cone": (0.8, 1.1),
    "pillar": (0.4, 1.9),
}
ACTIONS = ("left", "right", "forward", "back")


@dataclass(frozen=True)
class Prop:
    """A thing on the floor at (x, y)."""

    kind: str
    colour: str
    x: float
    y: float


@dataclass(frozen=True)
class Room:
    """Wall colours in the order north, east, south, west, and what stands in the room."""

    walls: tuple[str, str, str, str]
    props: tuple[Prop, ...]


@dataclass(frozen=True)
class Stand:
    """Someone in a room: at (x, y), looking along `heading`."""

    room: Room
    x: float
    y: float
    heading: int


def act(stand: Stand, action: str) -> Stand | None:
    """The state after an action: a turn of 45 degrees, or a step of one metre; None where something is in the way."""
    if action in ("left", "right"):
        return replace(stand, heading=(stand.heading + (1 if action == "right" else -1)) % 8)
    turn, step = stand.heading * pi / 4, 1 if action == "forward" else -1
    x, y = round(stand.x + step * sin(turn), 3), round(stand.y - step * cos(turn), 3)
    inside = min(x, y) >= BODY and max(x, y) <= WIDTH - BODY
    free = all(hypot(x - prop.x, y - prop.y) >= REACH for prop in stand.room.props)
    return replace(stand, x=x, y=y) if inside and free else None


def ahead(stand: Stand, x: float, y: float) -> tuple[float, float]:
    """Depth before the eye and offset to the right of a point, in metres."""
    turn = stand.heading * pi / 4
    east, south = x - stand.x, y - stand.y
    return east * sin(turn) - south * cos(turn), east * cos(turn) + south * sin(turn)


def point_ahead(stand: Stand, depth: float, right: float) -> tuple[float, float]:
    """The point of the room that lies so far ahead and to the right; the inverse of `ahead`, rounded to a cm."""
    turn = stand.heading * pi / 4
    return (
        round(stand.x + depth * sin(turn) + right * cos(turn), 2),
        round(stand.y - depth * cos(turn) + right * sin(turn), 2),
    )


def view(stand: Stand) -> np.ndarray:
    """What is seen: uint8 RGB [128, 128, 3]."""
    picture = _walls(stand)
    for depth, right, prop in sorted(_in_front(stand), key=lambda item: -item[0]):
        _paint_prop(picture, prop, depth, right)
    return picture


def _in_front(stand: Stand) -> list[tuple[float, float, Prop]]:
    """(depth, offset to the right, thing) of all things before the eye."""
    found = [(*ahead(stand, prop.x, prop.y), prop) for prop in stand.room.props]
    return [item for item in found if item[0] > 0.3]


def _rays(x: float, y: float, heading: int) -> tuple[np.ndarray, np.ndarray]:
    """For two rays a column: the number of the wall that is met [2 * SIDE], and its depth in metres."""
    turn = heading * pi / 4
    slope = (np.arange(2 * SIDE) + 0.5 - SIDE) / (2 * FOCAL)
    east, south = sin(turn) + slope * cos(turn), -cos(turn) + slope * sin(turn)
    room_for = (y, WIDTH - x, WIDTH - y, x)  # to the north, east, south, west wall
    with np.errstate(divide="ignore"):
        depth = np.stack([d / np.maximum(v, 1e-9) for d, v in zip(room_for, (-south, east, south, -east), strict=True)])
    wall = depth.argmin(0)
    return wall, depth[wall, np.arange(2 * SIDE)]


# Distance of each row's middle from the horizon, in pixels; the same upwards and downwards.
ROWS = np.arange(SIDE // 2, dtype=np.float32)[:, None] + np.float32(0.5)


def _walls(stand: Stand) -> np.ndarray:
    """The bare room: uint8 RGB [128, 128, 3]. Walls darken a little with distance."""
    wall, depth = _rays(stand.x, stand.y, stand.heading)
    rgb = np.array([WALLS[name] for name in stand.room.walls], np.float32)[wall] * (1.04 - 0.04 * depth[:, None])
    rgb = rgb.reshape(SIDE, 2, 3).mean(1, dtype=np.float32)
    picture = np.empty((SIDE, SIDE, 3), np.uint8)
    upper, lower = picture[SIDE // 2 - 1 :: -1], picture[SIDE // 2 :]  # rows from the horizon outwards
    for half, edge, beyond in ((upper, HEIGHT - EYE, CEILING), (lower, EYE, FLOOR)):
        reach = (FOCAL * edge / depth).reshape(SIDE, 2).mean(1, dtype=np.float32)
        past = np.clip(ROWS - reach + 0.5, 0, 1)[..., None]
        half[:] = rgb + past * (np.array(beyond, np.float32) - rgb) + np.float32(0.5)
    return picture


def _paint_prop(picture: np.ndarray, prop: Prop, depth: float, right: float) -> None:
    """Draw a thing, in place: its outline in its colour, the right of it darker."""
    width, height = (FOCAL * size / depth for size in PROPS[prop.kind])
    x, base = SIDE / 2 + FOCAL * right / depth, SIDE / 2 + FOCAL * EYE / depth
    half = int(max(width, height) / 2) + 2
    cx, cy = int(x), int(base - height / 2)
    axis = np.arange(-half, half + 1, dtype=np.float32)
    dx, dy = axis + np.float32(cx + 0.5 - x), axis[:, None] + np.float32(cy + 0.5 - base + height / 2)
    cover = np.clip(_depth_inside(prop.kind, dx, dy, width, height) + np.float32(0.5), 0, 1)
    lit = COLOURS[prop.colour]
    paint(picture, cover, cx, cy, lit)
    paint(picture, cover * np.clip(dx - width * 0.12 + 0.5, 0, 1), cx, cy, shade(lit, 0.78))


def _depth_inside(kind: str, dx: np.ndarray, dy: np.ndarray, width: float, height: float) -> np.ndarray:
    """How many pixels the point (dx, dy) from a thing's middle lies inside its outline; negative outside."""
    if kind == "ball":
        return width / 2 - np.hypot(dx, dy)
    if kind == "cone":
        slant = width / 2 / height
        return np.minimum((slant * (dy + height / 2) - abs(dx)) / hypot(1, slant), height / 2 - dy)
    return np.minimum(width / 2 - abs(dx), height / 2 - abs(dy))


def walls_seen(stand: Stand, least: int = 5) -> frozenset[int]:
    """Numbers of the walls that take up at least `least` columns of the view."""
    columns = _wall_columns(stand.x, stand.y, stand.heading)
    return frozenset(wall for wall, n in enumerate(columns) if n >= least)


@lru_cache(maxsize=1 << 16)
def _wall_columns(x: float, y: float, heading: int) -> tuple[float, ...]:
    """How many columns of the view each wall takes up."""
    wall, _ = _rays(x, y, heading)
    return tuple((np.bincount(wall, minlength=4) / 2).tolist())


def all_props_clear(stand: Stand) -> bool:
    """Is everything in the room in view: whole, not tiny, and at most a third hidden by something nearer?"""
    spans: list[tuple[float, float]] = []
    found = sorted(_in_front(stand), key=lambda item: item[0])
    for depth, right, prop in found:
        middle, half = FOCAL * right / depth, FOCAL * PROPS[prop.kind][0] / depth / 2
        low, high = middle - half, middle + half
        hidden = max((min(high, b) - max(low, a) for a, b in spans), default=0)
        if low < 2 - SIDE / 2 or high > SIDE / 2 - 2 or hidden > (high - low) / 3:
            return False
        spans.append((low, high))
    return len(found) == len(stand.room.props)
