"""Stacks of coloured blocks on a plate, seen by a camera that turns around them in steps of 45 degrees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import cos, pi, sin

import numpy as np
from PIL import Image, ImageDraw

from .palette import COLOURS, PLATE, RGB, TABLE, shade
from .scene import SIDE

GRID = 3
SCALE = 20.0  # pixels a block's edge
TILT = 32 * pi / 180  # the camera looks down by this much
OFFSET = pi / 8  # so that two sides of a block always show
SUPERSAMPLE = 3
MIDDLE = SIDE * 0.61  # row of the plate's centre
VISIBLE = 45  # pixels of a block that must show for it to count as seen

Point = tuple[float, float]


@dataclass(frozen=True)
class Stack:
    """Blocks on the cell (i, j), each 0..GRID-1; `colours` from the bottom up."""

    i: int
    j: int
    colours: tuple[str, ...]


@dataclass(frozen=True)
class Shot:
    """Stacks seen after `turn` steps of the camera, 0..7."""

    stacks: tuple[Stack, ...]
    turn: int


def orbit(shot: Shot, steps: int) -> Shot:
    """The same stacks after the camera went on by `steps` of 45 degrees; positive is to the right."""
    return replace(shot, turn=(shot.turn + steps) % 8)


def view(shot: Shot) -> np.ndarray:
    """The picture: uint8 RGB [128, 128, 3]."""
    canvas = Image.new("RGB", (SIDE * SUPERSAMPLE, SIDE * SUPERSAMPLE), TABLE)
    pen = ImageDraw.Draw(canvas)
    for corners, rgb, _ in _faces(shot):
        pen.polygon([(x * SUPERSAMPLE, y * SUPERSAMPLE) for x, y in corners], fill=rgb)
    return np.asarray(canvas.reduce(SUPERSAMPLE))


def all_blocks_clear(shot: Shot) -> bool:
    """Does every block show at least VISIBLE pixels?"""
    canvas = Image.new("L", (SIDE, SIDE))
    pen = ImageDraw.Draw(canvas)
    for corners, _, number in _faces(shot):
        pen.polygon(corners, fill=number)
    blocks = sum(len(stack.colours) for stack in shot.stacks)
    shown = np.bincount(np.asarray(canvas).ravel(), minlength=blocks + 1)
    return bool((shown[1 : blocks + 1] >= VISIBLE).all())


def _project(x: float, y: float, z: float, turn: int) -> Point:
    """A point of the world (plate centre at 0, z up, in block edges) on the picture, in pixels."""
    angle = OFFSET + turn * pi / 4
    right, depth = x * cos(angle) - y * sin(angle), x * sin(angle) + y * cos(angle)
    return SIDE / 2 + SCALE * right, MIDDLE + SCALE * (depth * sin(TILT) - z * cos(TILT))


def _faces(shot: Shot) -> Iterator[tuple[list[Point], RGB, int]]:
    """Visible faces from back to front: corners, colour, and the number of the block (0 for the plate)."""
    half = GRID / 2 + 0.2
    rim = [(-half, -half), (half, -half), (half, half), (-half, half)]
    for z, light in ((-0.15, 0.8), (0.0, 1.0)):
        yield [_project(x, y, z, shot.turn) for x, y in rim], shade(PLATE, light), 0
    first = 1
    numbered = []
    for stack in shot.stacks:
        numbered.append((stack, first))
        first += len(stack.colours)
    for stack, number in sorted(numbered, key=lambda item: _depth(item[0], shot.turn)):
        for level, colour in enumerate(stack.colours):
            for corners, light in _block(stack.i - (GRID - 1) / 2, stack.j - (GRID - 1) / 2, level, shot.turn):
                yield corners, shade(COLOURS[colour], light), number + level


def _depth(stack: Stack, turn: int) -> float:
    """How near to the camera a stack is; in parallel projection this orders whole columns."""
    angle = OFFSET + turn * pi / 4
    return stack.i * sin(angle) + stack.j * cos(angle)


def _block(x: float, y: float, z: float, turn: int) -> Iterator[tuple[list[Point], float]]:
    """The top and the two near sides of the unit block that stands on (x, y, z), with how lit each is."""
    angle = OFFSET + turn * pi / 4
    ring = [(x - 0.5, y - 0.5), (x + 0.5, y - 0.5), (x + 0.5, y + 0.5), (x - 0.5, y + 0.5)]
    normals = [(0, -1), (1, 0), (0, 1), (-1, 0)]  # of the side from corner k to corner k + 1
    for k, (nx, ny) in enumerate(normals):
        if nx * sin(angle) + ny * cos(angle) > 0:
            (ax, ay), (bx, by) = ring[k], ring[(k + 1) % 4]
            side = [(ax, ay, z), (bx, by, z), (bx, by, z + 1), (ax, ay, z + 1)]
            light = 0.66 if nx * cos(angle) - ny * sin(angle) > 0 else 0.83
            yield [_project(*corner, turn) for corner in side], light
    yield [_project(a, b, z + 1, turn) for a, b in ring], 1.0
