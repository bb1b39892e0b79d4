"""From a region to a thing: its colour from its core, its shape and radius from the template it matches best."""

from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
from scipy import ndimage

from ..palette import COLOURS, nearest
from ..shapes import SHAPES, size_name, sprite
from .segment import FAR_FROM_ANY, Region, Segmented, segment

WINDOW = 55  # side of the square in which masks are compared; holds the largest thing
RADII = range(7, 27)
BLURS = (0.7, 1.3)  # what an autoencoder does to an edge, in pixels: little, or much
WORST_FIT = 0.14  # squared difference from the template, as a share of both energies
CORE_AGREES = 0.8  # share of the core that must be of the thing's colour


@dataclass(frozen=True)
class Seen:
    """A recognised thing. `fault` is empty, or says why it is no clear thing."""

    shape: str
    colour: str
    x: float
    y: float
    r: float
    fault: str = ""

    @property
    def size(self) -> str:
        return size_name(self.r)

    def __str__(self) -> str:
        return f"{self.colour} {self.shape} at ({self.x:.0f}, {self.y:.0f})"


@dataclass(frozen=True)
class Reading:
    """Everything recognised in a picture; `background` is None when it has no known colour."""

    background: str | None
    things: tuple[Seen, ...]

    @property
    def fault(self) -> str:
        """The first fault of any thing, or empty."""
        return next((thing.fault for thing in self.things if thing.fault), "")


def read(pixels: np.ndarray) -> Reading:
    """Recognise the things in a uint8 RGB picture [128, 128, 3]."""
    parts = segment(pixels)
    return Reading(parts.background, tuple(_recognise(parts, region) for region in parts.regions))


def _recognise(parts: Segmented, region: Region) -> Seen:
    rows, columns = _widened(region.box, parts.pixels.shape)
    pixels = parts.pixels[rows, columns] - parts.backdrop
    mask = np.zeros(pixels.shape[:2], bool)
    mask[region.box[0].start - rows.start :, region.box[1].start - columns.start :][
        : region.mask.shape[0], : region.mask.shape[1]
    ] = region.mask
    colour, rgb, fault = _colour(pixels, mask, parts.backdrop)
    near = ndimage.binary_dilation(mask, iterations=2)
    cover = np.clip(pixels @ rgb / max(float(rgb @ rgb), 1.0), 0, 1) * near
    shape, r, (cy, cx), misfit = _shape(cover, max(region.mask.shape) / 2)
    if not fault and misfit > WORST_FIT:
        fault = f"a {colour} blob of no clear shape at ({cx + columns.start:.0f}, {cy + rows.start:.0f})"
    return Seen(shape, colour, float(cx + columns.start), float(cy + rows.start), r, fault)


def _widened(box: tuple[slice, slice], shape: tuple[int, ...]) -> tuple[slice, slice]:
    """The box with three more pixels on each side, inside the picture."""
    rows, columns = (slice(max(0, s.start - 3), min(n, s.stop + 3)) for s, n in zip(box, shape[:2], strict=True))
    return rows, columns


def _colour(pixels: np.ndarray, mask: np.ndarray, backdrop: np.ndarray) -> tuple[str, np.ndarray, str]:
    """Name of the colour in the core of a mask, its palette value relative to the backdrop, and a fault. The measured
    value would be too pale for small things, whose core is blurred."""
    inside = pixels[mask]
    contrast = np.linalg.norm(inside, axis=1)
    core = inside[contrast >= 0.8 * np.percentile(contrast, 80)]
    rgb = np.median(core, axis=0)
    name, off = nearest(rgb + backdrop, COLOURS)
    agree = float((np.linalg.norm(core - rgb, axis=1) < 50).mean())
    fault = ""
    if off > FAR_FROM_ANY:
        fault = f"a thing of no known colour (nearest is {name})"
    elif agree < CORE_AGREES:
        fault = f"a {name} thing of more than one colour"
    return name, np.array(COLOURS[name]) - backdrop, fault


@lru_cache(maxsize=1)
def _templates() -> tuple[np.ndarray, np.ndarray, list[tuple[str, int, float, float]]]:
    """All shapes at all radii, blurred, centre of mass in the middle: masks [n, WINDOW^2], their energies [n], and
    for each its shape, radius, and where the shape's origin lies from the centre of mass (y, x)."""
    masks, facts = [], []
    for r, shape, blur in product(RADII, SHAPES, BLURS):
        cover = ndimage.gaussian_filter(np.pad(sprite(shape, r), 4), blur)
        window, (cy, cx) = _centred(cover)
        masks.append(window.ravel())
        facts.append((shape, r, cover.shape[0] // 2 - cy, cover.shape[1] // 2 - cx))
    stack = np.stack(masks)
    return stack, (stack * stack).sum(1), facts


def _centred(cover: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
    """A mask moved so that its centre of mass is the middle of a WINDOW square, and where that centre was."""
    cy, cx = ndimage.center_of_mass(cover)
    grid = np.arange(WINDOW) - WINDOW // 2
    at = np.meshgrid(grid + cy, grid + cx, indexing="ij")
    return ndimage.map_coordinates(cover.astype(np.float32), at, order=1), (cy, cx)


def _shape(cover: np.ndarray, reach: float) -> tuple[str, float, tuple[float, float], float]:
    """Shape, radius, origin (y, x) and misfit (0 perfect, 1 nothing in common) of a soft mask that reaches about so
    many pixels from its middle; only radii that fit this are tried."""
    each = len(SHAPES) * len(BLURS)
    first = min(max(int(reach / 1.1) - 3 - RADII.start, 0), len(RADII) - 1)
    last = max(int(reach / 0.85) + 3 - RADII.start, first + 1)
    some = slice(first * each, last * each)
    window, (cy, cx) = _centred(cover)
    masks, energies, facts = _templates()
    flat = window.ravel()
    energy = float(flat @ flat)
    common = np.einsum("ij,j->i", masks[some], flat)  # not `@`: its threads get in each other's way in worker processes
    both = energy + energies[some]
    misfit = (both - 2 * common) / both
    best = int(misfit.argmin())
    shape, r, dy, dx = facts[first * each + best]
    return shape, r, (cy + dy, cx + dx), float(misfit[best])
