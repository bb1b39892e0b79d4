"""GroupNorm and SiLU on channels-last pictures, in Triton. PyTorch's own GroupNorm wants channels first, and
copying every picture there and back costs more than all the autoencoder's convolutions.

Letters: B pictures, C channels, P places (height x width), S slices of the places.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_SLICE = 512


@triton.jit
def _sums(x_ptr, sum_ptr, places, channels, STEPS: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Sum and sum of squares of each channel over one slice: [B, S, 2, C] float32."""
    part, picture = tl.program_id(0), tl.program_id(1).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < channels
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    squares = tl.zeros((BLOCK,), dtype=tl.float32)
    for step in range(STEPS):
        place = part * STEPS * ROWS + step * ROWS + tl.arange(0, ROWS)
        mask = (place < places)[:, None] & inside[None, :]
        offset = (picture * places + place)[:, None] * channels + column[None, :]
        x = tl.load(x_ptr + offset, mask=mask, other=0.0).to(tl.float32)
        total += tl.sum(x, axis=0)
        squares += tl.sum(x * x, axis=0)
    out = sum_ptr + (picture * tl.num_programs(0) + part) * 2 * channels + column
    tl.store(out, total, mask=inside)
    tl.store(out + channels, squares, mask=inside)


@triton.jit
def _apply(  # type: ignore[no-untyped-def]
    x_ptr, scale_ptr, shift_ptr, out_ptr, places, channels, SILU: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr
):
    place, picture = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.program_id(1).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < channels
    scale = tl.load(scale_ptr + picture * channels + column, mask=inside, other=0.0)
    shift = tl.load(shift_ptr + picture * channels + column, mask=inside, other=0.0)
    mask = (place < places)[:, None] & inside[None, :]
    offset = (picture * places + place)[:, None] * channels + column[None, :]
    y = tl.load(x_ptr + offset, mask=mask, other=0.0).to(tl.float32) * scale[None, :] + shift[None, :]
    if SILU:
        y = y * tl.sigmoid(y)
    tl.store(out_ptr + offset, y.to(out_ptr.dtype.element_ty), mask=mask)


def group_norm(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float, silu: bool) -> Tensor:
    """x [B, C, H, W], channels last -> the same, normalised per picture and group, through SiLU if asked."""
    pictures, channels, height, width = x.shape
    places, block = height * width, triton.next_power_of_2(channels)
    rows = max(1, 8192 // block)
    parts = triton.cdiv(places, _SLICE)
    sums = torch.empty(pictures, parts, 2, channels, dtype=torch.float32, device=x.device)
    _sums[(parts, pictures)](x, sums, places, channels, STEPS=triton.cdiv(_SLICE, rows), ROWS=rows, BLOCK=block)
    by_group = sums.double().sum(1).unflatten(-1, (groups, -1)).sum(-1) / (places * channels // groups)
    mean, square = by_group.unbind(1)
    size = ((square - mean * mean).clamp_min(0) + eps).rsqrt().repeat_interleave(channels // groups, dim=1)
    scale = (size * weight).float()
    shift = (bias - mean.repeat_interleave(channels // groups, dim=1) * size * weight).float()
    out = torch.empty_like(x)
    _apply[(triton.cdiv(places, rows), pictures)](
        x, scale, shift, out, places, channels, SILU=silu, ROWS=rows, BLOCK=block
    )
    return out
