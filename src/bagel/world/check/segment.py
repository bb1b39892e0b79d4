"""From pixels to regions: the background, and what stands out from it, one region a thing."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..palette import BACKGROUNDS, nearest

STANDS_OUT = 38.0  # levels from the background that make a pixel part of a thing
SMALLEST = 24  # pixels; fewer are noise
FAR_FROM_ANY = 60.0  # levels from the nearest known colour beyond which a colour has no name


@dataclass(frozen=True)
class Region:
    """One connected piece of foreground: its bounding box, and its own pixels in it as a mask."""

    box: tuple[slice, slice]
    mask: np.ndarray

    @property
    def area(self) -> int:
        return int(self.mask.sum())


@dataclass(frozen=True)
class Segmented:
    """A picture taken apart. `backdrop` is the measured colour [3]; `background` its name, or None."""

    pixels: np.ndarray
    background: str | None
    backdrop: np.ndarray
    regions: list[Region]


def segment(pixels: np.ndarray) -> Segmented:
    """Split a uint8 RGB picture into background and regions."""
    smooth = ndimage.gaussian_filter(pixels.astype(np.float32), (0.5, 0.5, 0))
    backdrop = _border_colour(smooth)
    name, off = nearest(backdrop, BACKGROUNDS)
    foreground = np.linalg.norm(smooth - backdrop, axis=2) > STANDS_OUT
    labels, _ = ndimage.label(foreground, np.ones((3, 3)))
    boxes = ndimage.find_objects(labels)
    regions = [Region(box, labels[box] == i + 1) for i, box in enumerate(boxes)]
    return Segmented(
        smooth,
        name if off < 40 else None,
        backdrop,
        [region for region in regions if region.area >= SMALLEST],
    )


def _border_colour(smooth: np.ndarray) -> np.ndarray:
    """The median colour of a 3-pixel frame: things keep clear of it."""
    sides = (smooth[:3], smooth[-3:], smooth[:, :3], smooth[:, -3:])
    return np.median(np.concatenate([side.reshape(-1, 3) for side in sides]), axis=0)
