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
def _scales(  # type: ignore[no-untyped-def]
    sum_ptr, before_ptr, weight_ptr, bias_ptr, scale_ptr, shift_ptr, slices, places, channels, width, eps,
    BEFORE: tl.constexpr, SLICES: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """One group of `width` channels of one picture: what its channels are multiplied by and what is added, [B, C]
    float32 each. In float64, since a mean square is nearly the squared mean where a picture is bright."""
    group, picture = tl.program_id(0), tl.program_id(1).to(tl.int64)
    inside = tl.arange(0, WIDTH) < width
    channel = group * width + tl.arange(0, WIDTH)
    total = tl.zeros((WIDTH,), dtype=tl.float64)
    squares = tl.zeros((WIDTH,), dtype=tl.float64)
    base = sum_ptr + picture * slices * 2 * channels
    for first in range(0, slices, SLICES):
        part = first + tl.arange(0, SLICES)
        mask = (part < slices)[:, None] & inside[None, :]
        offset = part[:, None] * (2 * channels) + channel[None, :]
        total += tl.sum(tl.load(base + offset, mask=mask, other=0.0).to(tl.float64), axis=0)
        squares += tl.sum(tl.load(base + channels + offset, mask=mask, other=0.0).to(tl.float64), axis=0)
    before = tl.zeros((WIDTH,), dtype=tl.float64)
    if BEFORE:  # of x + b: sum x + P b, sum x^2 + 2 b sum x + P b^2
        before = tl.load(before_ptr + channel, mask=inside, other=0.0).to(tl.float64)
        squares += before * (2 * total + places * before)
        total += places * before
    count = (places * width).to(tl.float64)
    mean = tl.sum(total, axis=0) / count
    variance = tl.maximum(tl.sum(squares, axis=0) / count - mean * mean, 0.0)
    scale = tl.load(weight_ptr + channel, mask=inside, other=0.0).to(tl.float64) / tl.sqrt(variance + eps)
    shift = tl.load(bias_ptr + channel, mask=inside, other=0.0).to(tl.float64) + (before - mean) * scale
    tl.store(scale_ptr + picture * channels + channel, scale.to(tl.float32), mask=inside)
    tl.store(shift_ptr + picture * channels + channel, shift.to(tl.float32), mask=inside)


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
    parts = triton.cdiv(places, _SLICE)
    sums = torch.empty(pictures, parts, 2, channels, dtype=torch.float32, device=x.device)
    _sums[(parts, pictures)](x, sums, places, channels, STEPS=triton.cdiv(_SLICE, rows), ROWS=rows, BLOCK=block)
    scale, shift = torch.empty(2, pictures, channels, dtype=torch.float32, device=x.device).unbind()
    width = channels // groups
    _scales[(groups, pictures)](
        sums, bias if before is None else before, weight, bias, scale, shift, parts, places, channels, width, eps,
        BEFORE=before is not None, SLICES=min(64, triton.next_power_of_2(parts)), WIDTH=triton.next_power_of_2(width),
        num_warps=1 if parts <= 64 else 4,
    )  # fmt: skip
    out = torch.empty_like(x)
    _apply[(triton.cdiv(places, rows), pictures)](
        x, scale, shift, out, places, channels, SILU=silu, ROWS=rows, BLOCK=block
    )
    return out
