"""Pillow's bicubic resizing on a device, level for level, so that a GPU need not wait for the host.

Pillow resizes 8-bit pictures in whole numbers (`src/libImaging/Resample.c`): weights in units of 2^-22, columns first,
rounded to levels before the rows. The same is done here, so the same picture comes out.

Letters: C channels, H W pixels, K weights of an output pixel.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

_BITS = 22
_REACH = 2.0  # of the bicubic kernel, in pixels of the larger grid


def resample(levels: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 [C, H, W] -> uint8 [C, height, width], for size (height, width)."""
    for axis, length in ((2, size[1]), (1, size[0])):
        if levels.shape[axis] != length:
            levels = _along(levels, axis, length)
    return levels


def _along(levels: Tensor, axis: int, length: int) -> Tensor:
    places, weights = _kernel(levels.shape[axis], length, levels.device)
    shape = [1, 1, 1]
    shape[axis] = length
    total = torch.full((), 1 << (_BITS - 1), dtype=torch.int32, device=levels.device)
    for place, weight in zip(places, weights, strict=True):
        total = total + levels.index_select(axis, place).int() * weight.view(shape)
    return (total >> _BITS).clamp(0, 255).to(torch.uint8)


@functools.lru_cache(maxsize=64)
def _kernel(old: int, new: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """For every output pixel the input pixels it looks at, int64 [K, new], and their weights, int32 [K, new]; what
    lies outside the picture has weight 0."""
    scale = old / new
    wide = max(scale, 1.0)
    reach = _REACH * wide
    center = (np.arange(new) + 0.5) * scale
    first = np.maximum((center - reach + 0.5).astype(np.int64), 0)
    count = np.minimum((center + reach + 0.5).astype(np.int64), old) - first
    step = np.arange(count.max())[:, None]
    weight = np.where(step < count, _bicubic((step + first - center + 0.5) * (1.0 / wide)), 0.0)
    total = np.zeros(new)
    for row in weight:  # one after the other, as Pillow adds them
        total += row
    weight = weight / total * (1 << _BITS)
    whole = (weight + np.where(weight < 0, -0.5, 0.5)).astype(np.int32)
    return torch.from_numpy(np.minimum(first + step, old - 1)).to(device), torch.from_numpy(whole).to(device)


def _bicubic(x: np.ndarray) -> np.ndarray:
    x, a = np.abs(x), -0.5
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))
