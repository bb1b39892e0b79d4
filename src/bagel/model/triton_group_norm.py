"""GroupNorm and SiLU on channels-last pictures, in Triton. PyTorch's own GroupNorm wants channels first, and
copying every picture there and back costs more than all the autoencoder's convolutions.

Letters: B pictures, C channels, P places (height x width), S slices of the places.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_SLICE, _MOST_SLICES = 512, 1024
"""Places in a slice, more only where a picture would have more slices than this: enough programs to fill a GPU with
one picture, and few enough sums that `_scales` reads them in no time."""


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
def _scales(  # type: ignore[no-untyped-def]
    sum_ptr, before_ptr, weight_ptr, bias_ptr, scale_ptr, shift_ptr, places, slices, channels, eps,
    BEFORE: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """From the sums [B, S, 2, C], what each channel of one group is multiplied with and what is added to it then:
    [B, C] float32, all before that in float64, since the variance is a small difference of large numbers."""
    group, picture = tl.program_id(0), tl.program_id(1).to(tl.int64)
    width = channels // tl.num_programs(0)
    column = group * width + tl.arange(0, BLOCK)
    inside = tl.arange(0, BLOCK) < width
    total = tl.zeros((BLOCK,), dtype=tl.float64)
    squares = tl.zeros((BLOCK,), dtype=tl.float64)
    for first in range(0, slices, ROWS):
        part = first + tl.arange(0, ROWS)
        mask = (part < slices)[:, None] & inside[None, :]
        place = sum_ptr + (picture * slices + part)[:, None] * 2 * channels + column[None, :]
        total += tl.sum(tl.load(place, mask=mask, other=0.0).to(tl.float64), axis=0)
        squares += tl.sum(tl.load(place + channels, mask=mask, other=0.0).to(tl.float64), axis=0)
    before = tl.zeros((BLOCK,), dtype=tl.float64)
    if BEFORE:  # of x + b: sum x^2 + 2 b sum x + P b^2, sum x + P b
        before = tl.load(before_ptr + column, mask=inside, other=0.0).to(tl.float64)
        squares += before * (2 * total + places * before)
        total += places * before
    mean = tl.sum(total, axis=0) / places / width
    variance = tl.sum(squares, axis=0) / places / width - mean * mean
    weight = tl.load(weight_ptr + column, mask=inside, other=0.0).to(tl.float64)
    bias = tl.load(bias_ptr + column, mask=inside, other=0.0).to(tl.float64)
    scale = weight * tl.rsqrt(tl.maximum(variance, 0.0) + eps)
    shift = bias + (before - mean) * scale
    tl.store(scale_ptr + picture * channels + column, scale.to(tl.float32), mask=inside)
    tl.store(shift_ptr + picture * channels + column, shift.to(tl.float32), mask=inside)


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


@triton.jit
def _add(x_ptr, y_ptr, bias_ptr, out_ptr, count, channels, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = place < count
    x = tl.load(x_ptr + place, mask=mask, other=0.0).to(tl.float32)
    y = tl.load(y_ptr + place, mask=mask, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + place % channels, mask=mask, other=0.0).to(tl.float32)
    tl.store(out_ptr + place, (x + y + bias).to(out_ptr.dtype.element_ty), mask=mask)


def add(x: Tensor, y: Tensor, bias: Tensor) -> Tensor:
    """x + y + bias: x, y [B, C, H, W], channels last; bias [C]."""
    y = y.contiguous(memory_format=torch.channels_last)
    out = torch.empty_like(x)
    _add[(triton.cdiv(x.numel(), 2048),)](x, y, bias, out, x.numel(), x.shape[1], BLOCK=2048)
    return out


def group_norm(
    x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float, silu: bool, before: Tensor | None = None
) -> Tensor:
    """x [B, C, H, W], channels last, plus `before` [C] -> the same, normalised per picture and group, through SiLU if
    asked."""
    pictures, channels, height, width = x.shape
    places, block = height * width, triton.next_power_of_2(channels)
    rows = max(1, 8192 // block)
    length = max(_SLICE, triton.next_power_of_2(triton.cdiv(places, _MOST_SLICES)))
    slices = triton.cdiv(places, length)
    sums = torch.empty(pictures, slices, 2, channels, dtype=torch.float32, device=x.device)
    _sums[(slices, pictures)](x, sums, places, channels, STEPS=triton.cdiv(length, rows), ROWS=rows, BLOCK=block)
    scale = torch.empty(pictures, channels, dtype=torch.float32, device=x.device)
    shift = torch.empty_like(scale)
    of_group = triton.next_power_of_2(channels // groups)
    at_once = min(triton.next_power_of_2(slices), max(1, 2048 // of_group))
    _scales[(groups, pictures)](
        sums, weight if before is None else before, weight, bias, scale, shift, places, slices, channels, eps,
        BEFORE=before is not None, ROWS=at_once, BLOCK=of_group, num_warps=1 if at_once * of_group <= 512 else 4,
    )  # fmt: skip
    out = torch.empty_like(x)
    _apply[(triton.cdiv(places, rows), pictures)](
        x, scale, shift, out, places, channels, SILU=silu, ROWS=rows, BLOCK=block
    )
    return out
