"""Pictures of scenes."""

from functools import lru_cache

import numpy as np

from .palette import BACKGROUNDS, COLOURS, RGB
from .scene import SIDE, Scene
from .shapes import sprite


def draw(scene: Scene) -> np.ndarray:
    """The picture of a scene: uint8 RGB [128, 128, 3]."""
    picture = plain(BACKGROUNDS[scene.background]).copy()
    for thing in scene.things:
        paint(picture, sprite(thing.shape, thing.r, thing.angle), thing.x, thing.y, COLOURS[thing.colour])
    return picture


@lru_cache(maxsize=64)
def plain(rgb: RGB) -> np.ndarray:
    """A picture of one colour, kept and so read-only: copying it is much faster than filling one."""
    picture = np.full((SIDE, SIDE, 3), rgb, np.uint8)
    picture.flags.writeable = False
    return picture


def paint(picture: np.ndarray, cover: np.ndarray, x: int, y: int, rgb: RGB) -> None:
    """Blend `rgb` into `picture`, in place, where `cover` (0..1, odd sides) lies centred on (x, y)."""
    hy, hx = cover.shape[0] // 2, cover.shape[1] // 2
    top, left = max(0, y - hy), max(0, x - hx)
    bottom, right = min(picture.shape[0], y + hy + 1), min(picture.shape[1], x + hx + 1)
    if top >= bottom or left >= right:
        return
    part = picture[top:bottom, left:right]
    share = cover[top - y + hy : bottom - y + hy, left - x + hx : right - x + hx, None]
    part[:] = part + share * (np.array(rgb, np.float32) - part) + np.float32(0.5)
