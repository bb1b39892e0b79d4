"""Pictures in and out: opening, resizing, patches and pixels. Pillow does the resizing, as upstream.

Letters: C channels, H W pixels, h w grid of patches, P = h x w patches, p side of a patch.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor

from bagel.errors import InputError

MAX_FILE_PIXELS = 128_000_000
"""A picture with more pixels than this is not decoded: a few kilobytes may unpack to gigabytes."""

MAX_PIXELS = 14 * 14 * 9 * 1024
"""Most pixels that one picture may have after resizing."""


class ResizeRule(Protocol):
    """Bounds for the sides, in pixels."""

    @property
    def max_size(self) -> int: ...
    @property
    def min_size(self) -> int: ...
    @property
    def stride(self) -> int: ...


def open_image(source: str | os.PathLike[str] | bytes | Image.Image) -> Image.Image:
    """Decodes a file, its bytes, or takes a PIL picture; -> RGB, transparency over white. A file's EXIF
    rotation is applied (upstream ignores it and reads phone pictures sideways).

    Raises InputError for a file that is missing, empty, no picture, damaged or beyond MAX_FILE_PIXELS.
    """
    if isinstance(source, Image.Image):
        return _decode(lambda: source, "the picture")
    if not isinstance(source, (str, bytes, os.PathLike)):
        raise InputError(
            f"a picture is of type {type(source).__name__}; give a path, a PIL picture or the bytes of a file."
        )
    name = f"the picture ({len(source)} bytes)" if isinstance(source, bytes) else str(source)
    try:
        content = source if isinstance(source, bytes) else Path(source).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise InputError(f"{name!r}: {_reason(error)}; check the path of the picture.") from None
    if not content:
        raise InputError(f"{name} is empty (0 bytes); save the picture again.")
    return _decode(lambda: _upright(_loaded(Image.open(io.BytesIO(content)), name)), name)


def _decode(read: Callable[[], Image.Image], name: str) -> Image.Image:
    """Whatever a decoder trips over is the file's fault, and said in one sentence."""
    try:
        return to_rgb(_loaded(read(), name))
    except InputError:
        raise
    except MemoryError:
        raise InputError(f"{name} does not fit into memory; scale it down first.") from None
    except Image.DecompressionBombError:
        raise _too_large(name, "too many") from None
    except UnidentifiedImageError:
        raise InputError(f"{name} is not a picture that can be read; use PNG, JPEG or WebP.") from None
    except Exception as error:  # decoders of some forty formats raise all kinds
        raise InputError(f"{name} is damaged ({_reason(error)}); save the picture again.") from None


def _loaded(image: Image.Image, name: str) -> Image.Image:
    _check_file_size(image, name)
    image.load()
    return image


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each EXIF orientation."""


def _upright(image: Image.Image) -> Image.Image:
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # EXIF that cannot be read says nothing of the picture
        turn = None
    return image if turn is None else image.transpose(turn)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _check_file_size(image: Image.Image, name: str) -> None:
    if image.width * image.height > MAX_FILE_PIXELS:
        raise _too_large(name, f"{image.width} x {image.height}")
    if min(image.size) < 1:
        raise InputError(f"{name} has no pixels ({image.width} x {image.height}).")


def _too_large(name: str, pixels: str) -> InputError:
    limit = MAX_FILE_PIXELS // 1_000_000
    return InputError(f"{name} has {pixels} pixels; at most {limit} million are decoded. Scale it down first.")


def to_rgb(image: Image.Image) -> Image.Image:
    """RGB, transparent parts over white; of 16 bits of grey the upper 8 (Pillow, and with it upstream, cuts
    everything above 255 to white)."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("La", "RGBa"):  # the colours are multiplied by alpha
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGB", image.size, (255, 255, 255))
        white.paste(image, mask=image.getchannel("A"))
        return white
    return image.convert("RGB")


def resized_size(
    width: int, height: int, rule: ResizeRule, num_images: int = 1, max_pixels: int = MAX_PIXELS
) -> tuple[int, int]:
    """The (width, height) that a picture is resized to: sides multiples of the stride, the longest at most
    `max_size`, the shortest at least `min_size` where that allows, the area at most
    `max_pixels / num_images` (upstream `data/transforms.py`, `MaxLongEdgeMinShortEdgeResize`).

    The area rule scales by the plain ratio of areas, without a square root, as upstream does.
    """

    def scaled(side: int, scale: float) -> int:
        return max(rule.stride, round(round(side * scale) / rule.stride) * rule.stride)

    scale = max(min(rule.max_size / max(width, height), 1.0), rule.min_size / min(width, height))
    width, height = scaled(width, scale), scaled(height, scale)
    if width * height > max_pixels / num_images:
        scale = max_pixels / num_images / (width * height)
        width, height = scaled(width, scale), scaled(height, scale)
    if max(width, height) > rule.max_size:
        scale = rule.max_size / max(width, height)
        width, height = scaled(width, scale), scaled(height, scale)
    return width, height


def resize(image: Image.Image, rule: ResizeRule, num_images: int = 1, max_pixels: int = MAX_PIXELS) -> Image.Image:
    size = resized_size(*image.size, rule, num_images, max_pixels)
    return image if size == image.size else image.resize(size, Image.Resampling.BICUBIC)


def fitted(image: Image.Image, rule: ResizeRule) -> Image.Image:
    """The picture as reading would resize it, so that it reads the same and takes less room until then; the picture
    itself where it would be resized once more."""
    smaller = resize(image, rule)
    return smaller if resize(smaller, rule) is smaller else image


def to_pixels(image: Image.Image) -> Tensor:
    """RGB picture -> float32 [3, H, W] in [-1, 1]."""
    return from_levels(to_levels(image))


def to_levels(image: Image.Image) -> Tensor:
    """RGB picture -> uint8 [3, H, W], a quarter of the pixels' size: for moving and keeping pictures."""
    return torch.from_numpy(np.array(image, dtype=np.uint8)).permute(2, 0, 1)


def from_levels(levels: Tensor) -> Tensor:
    """uint8, any shape -> float32 in [-1, 1], the same numbers on every device: by a plain number a GPU would divide
    as multiplying with its inverse."""
    most = torch.full((), 255.0, device=levels.device)
    return (levels.float() / most - 0.5) / 0.5


def to_image(pixels: Tensor) -> Image.Image:
    """float [3, H, W], about [-1, 1] -> RGB picture; levels are truncated, not rounded, as upstream."""
    levels = (pixels.float() * 0.5 + 0.5).clamp(0, 1).permute(1, 2, 0) * 255
    return Image.fromarray(levels.to(torch.uint8).cpu().numpy())


def patchify(pixels: Tensor, side: int) -> Tensor:
    """[..., C, H, W] -> [..., P, p x p x C], patches in reading order, channel last inside each. The one rule for
    14-pixel ViT patches and for 2 x 2 latent patches."""
    *lead, channels, height, width = pixels.shape
    n = len(lead)
    grid = pixels.reshape(*lead, channels, height // side, side, width // side, side)
    ordered = grid.permute(*range(n), n + 1, n + 3, n + 2, n + 4, n)
    return ordered.reshape(*lead, height // side * (width // side), side * side * channels)


def unpatchify(patches: Tensor, grid: tuple[int, int], side: int) -> Tensor:
    """The inverse of `patchify`: [P, p x p x C] and (h, w) -> [C, h p, w p]."""
    height, width = grid
    blocks = patches.reshape(height, width, side, side, -1)
    return blocks.permute(4, 0, 2, 1, 3).reshape(-1, height * side, width * side)


@lru_cache(maxsize=256)
def patch_index(grid: tuple[int, int], table_side: int, interpolate: bool = False) -> Tensor:
    """Where each patch of an h x w grid looks into a table of table_side^2 places: int64 [P].

    Plain: row x table_side + column. `interpolate`: the grid is stretched over the whole table; the float32
    `bucketize` is upstream's and rounds a few places (n = 25, 49, 50, 55 at side 70) one lower than a floor.
    """
    if not interpolate:
        rows, columns = (torch.arange(n) for n in grid)
    else:
        edges = torch.arange(1 / table_side, 1.0, 1 / table_side)
        rows, columns = (torch.bucketize(torch.arange(0, 1 - 1e-6, 1 / n), edges, right=True) for n in grid)
    return (rows[:, None] * table_side + columns).flatten()
