"""The shapes, as antialiased masks ("sprites") that are drawn once and kept.

A shape is a test on the unit square: x right, y down, both in -1..1. A sprite of radius r is that square
at r pixels per unit, so all shapes of one radius are about equally wide.
"""

from collections.abc import Callable
from functools import lru_cache
from math import ceil, cos, pi, radians, sin

import numpy as np

Inside = Callable[[np.ndarray, np.ndarray], np.ndarray]
SUPERSAMPLE = 6

SIZES: dict[str, tuple[int, ...]] = {"small": (10, 11), "medium": (15, 16), "large": (21, 22)}


def size_name(r: float) -> str:
    """The word for a radius in pixels."""
    if r < 13:
        return "small"
    return "medium" if r < 18.5 else "large"


def _polygon(corners: list[tuple[float, float]]) -> Inside:
    """Even-odd test against a closed polygon."""

    def inside(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        odd = np.zeros(x.shape, bool)
        for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
            if y0 != y1:
                odd ^= ((y0 > y) != (y1 > y)) & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
        return odd

    return inside


def _star_corners(inner: float = 0.45) -> list[tuple[float, float]]:
    spokes = [(1.05 if k % 2 == 0 else inner, pi * k / 5) for k in range(10)]
    return [(length * sin(turn), 0.07 - length * cos(turn)) for length, turn in spokes]


def _heart(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    u, v = 1.18 * x, 0.12 - 1.12 * y
    return (u * u + v * v - 1) ** 3 - u * u * v**3 <= 0


def _moon(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x * x + y * y <= 1) & ((x - 0.48) ** 2 + (y + 0.1) ** 2 > 0.62)


def _cross(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    small, big = np.minimum(abs(x), abs(y)), np.maximum(abs(x), abs(y))
    return (small <= 0.34) & (big <= 0.96)


SHAPES: dict[str, Inside] = {
    "circle": lambda x, y: x * x + y * y <= 1,
    "square": lambda x, y: np.maximum(abs(x), abs(y)) <= 0.88,
    "triangle": _polygon([(0, -0.98), (1, 0.82), (-1, 0.82)]),
    "star": _polygon(_star_corners()),
    "diamond": lambda x, y: abs(x) / 0.72 + abs(y) <= 1,
    "cross": _cross,
    "ring": lambda x, y: abs(np.hypot(x, y) - 0.77) <= 0.23,
    "heart": _heart,
    "moon": _moon,
    "arrow": _polygon([(0, -1), (0.92, 0), (0.36, 0), (0.36, 1), (-0.36, 1), (-0.36, 0), (-0.92, 0)]),
}

# Turning these by less than their period shows; a circle or ring looks the same at every angle.
TURN_PERIOD: dict[str, int] = {
    "square": 90, "triangle": 360, "star": 72, "diamond": 180, "cross": 90, "heart": 360, "moon": 360, "arrow": 360,
}  # fmt: skip


@lru_cache(maxsize=4096)
def sprite(shape: str, r: int, angle: int = 0) -> np.ndarray:
    """Coverage of each pixel by `shape`, float32 in 0..1, [2h + 1, 2h + 1] with the shape's origin in the middle.

    `r` is the radius in pixels, `angle` a clockwise turn in degrees.
    """
    h = r + 1 if angle == 0 else ceil(1.42 * r) + 1
    side = (2 * h + 1) * SUPERSAMPLE
    axis = ((np.arange(side) + 0.5) / SUPERSAMPLE - (h + 0.5)) / r
    x, y = np.meshgrid(axis, axis)
    c, s = cos(radians(angle)), sin(radians(angle))
    inside = SHAPES[shape](c * x + s * y, c * y - s * x)
    cover = inside.reshape(2 * h + 1, SUPERSAMPLE, 2 * h + 1, SUPERSAMPLE).mean((1, 3), dtype=np.float32)
    cover.flags.writeable = False
    return cover
