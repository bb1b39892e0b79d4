"""Products with int8 weights in Triton. Of many rows: the activations are made int8 too, a scale for every 128
inputs of a row, so that an outlier spoils its own 128 alone, and the product runs on the int8 matrix units. Where
that cannot be, the weight is widened in one pass.

Letters: T rows, N outputs, K inputs, G groups of 128 inputs.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from bagel.model.packed import Int8Weight

GROUP = 128


# --- weights ---------------------------------------------------------------------------------------------


@triton.jit
def _widen(values_ptr, scale_ptr, out_ptr, inputs, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < inputs
    values = tl.load(values_ptr + row * inputs + column, mask=inside, other=0).to(tl.float32)
    wide = values * tl.load(scale_ptr + row)
    tl.store(out_ptr + row * inputs + column, wide.to(out_ptr.dtype.element_ty), mask=inside)


def widen(weight: Int8Weight, dtype: torch.dtype) -> Tensor:
    """The weight as it is meant, [N, K]."""
    outputs, inputs = weight.values.shape
    out = torch.empty(outputs, inputs, dtype=dtype, device=weight.values.device)
    block = min(triton.next_power_of_2(inputs), 4096)
    _widen[(outputs, triton.cdiv(inputs, block))](weight.values, weight.scale, out, inputs, BLOCK=block, num_warps=4)
    return out


# --- activations -----------------------------------------------------------------------------------------


@triton.jit
def _store_groups(x, out_ptr, scale_ptr, column, width, BLOCK: tl.constexpr, GROUP: tl.constexpr):  # type: ignore[no-untyped-def]
    """BLOCK numbers of a row as int8, with a scale for each GROUP of them."""
    groups = tl.reshape(x, (BLOCK // GROUP, GROUP))
    scale = tl.maximum(tl.max(tl.abs(groups), axis=1), 1e-12) / 127.0
    scaled = groups / scale[:, None]
    rounded = tl.where(scaled < 0, scaled - 0.5, scaled + 0.5).to(tl.int8)  # to the nearest: a cast cuts off
    tl.store(out_ptr + column, tl.reshape(rounded, (BLOCK,)), mask=column < width)
    group = column // GROUP
    first = tl.reshape(group, (BLOCK // GROUP, GROUP))
    place = tl.min(first, axis=1)
    tl.store(scale_ptr + place, scale, mask=place * GROUP < width)


@triton.jit
def _quantise_row(  # type: ignore[no-untyped-def]
    x_ptr, weight_ptr, out_ptr, scale_ptr, x_stride, width, eps, NORM: tl.constexpr, BLOCK: tl.constexpr,
    GROUP: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < width
    x = tl.load(x_ptr + row * x_stride + column, mask=inside, other=0.0).to(tl.float32)
    if NORM:
        weight = tl.load(weight_ptr + column, mask=inside, other=0.0).to(tl.float32)
        x = x * tl.rsqrt(tl.sum(x * x, axis=0) / width + eps) * weight
    _store_groups(x, out_ptr + row * width, scale_ptr + row * (width // GROUP), column, width, BLOCK, GROUP)


@triton.jit
def _swiglu_row(x_ptr, out_ptr, scale_ptr, x_stride, width, BLOCK: tl.constexpr, GROUP: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    gate = tl.load(x_ptr + row * x_stride + column, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(x_ptr + row * x_stride + width + column, mask=inside, other=0.0).to(tl.float32)
    value = gate * tl.sigmoid(gate) * up
    _store_groups(value, out_ptr + row * width, scale_ptr + row * (width // GROUP), column, width, BLOCK, GROUP)


def fits(inputs: int) -> bool:
    """Whether rows of so many numbers are whole groups."""
    return inputs % GROUP == 0


def quantise(x: Tensor, norm: tuple[Tensor, float] | None = None) -> tuple[Tensor, Tensor]:
    """x [T, K], RMS-normalised first where `norm` (weight, epsilon) is given -> int8 [T, K], scale float32 [T, G]."""
    rows, width = x.shape
    out, scale = _empty(rows, width, x.device)
    _quantise_row[(rows,)](
        x, norm[0] if norm else x, out, scale, x.stride(0), width, norm[1] if norm else 0.0,
        NORM=norm is not None, BLOCK=triton.next_power_of_2(width), GROUP=GROUP, num_warps=8,
    )  # fmt: skip
    return out, scale


def swiglu(gate_up: Tensor) -> tuple[Tensor, Tensor]:
    """[T, 2 K] -> silu(gate) * up as int8 [T, K], scale float32 [T, G]."""
    rows, width = gate_up.shape[0], gate_up.shape[1] // 2
    out, scale = _empty(rows, width, gate_up.device)
    block = min(triton.next_power_of_2(width), 2048)
    grid = (rows, triton.cdiv(width, block))
    _swiglu_row[grid](gate_up, out, scale, gate_up.stride(0), width, BLOCK=block, GROUP=GROUP, num_warps=4)
    return out, scale


def _empty(rows: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    scale = torch.empty(rows, width // GROUP, dtype=torch.float32, device=device)
    return torch.empty(rows, width, dtype=torch.int8, device=device), scale


# --- the product -----------------------------------------------------------------------------------------


@triton.jit
def _product(  # type: ignore[no-untyped-def]
    x_ptr,
    x_scale_ptr,
    values_ptr,
    scale_ptr,
    bias_ptr,
    add_ptr,
    out_ptr,
    rows,
    outputs,
    inputs,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    GROUP: tl.constexpr,
    TALL: tl.constexpr,
    BIAS: tl.constexpr,
    ADD: tl.constexpr,
):
    """out [T, N] = x W^T + bias + add. Programs go down TALL blocks of rows before they go right, so that what they
    read is still in the cache."""
    down, right = tl.cdiv(rows, BLOCK_M), tl.cdiv(outputs, BLOCK_N)
    pid = tl.program_id(0)
    first = pid // (TALL * right) * TALL
    tall = tl.minimum(down - first, TALL)
    inside = pid % (TALL * right)
    m = (first + inside % tall) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = inside // tall * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.arange(0, GROUP)
    row, output = tl.minimum(m, rows - 1).to(tl.int64), tl.minimum(n, outputs - 1).to(tl.int64)
    x_row, w_row = x_ptr + row[:, None] * inputs, values_ptr + output[None, :] * inputs
    groups = inputs // GROUP
    acc = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for group in range(groups):
        x = tl.load(x_row + group * GROUP + k[None, :])
        w = tl.load(w_row + group * GROUP + k[:, None])
        scale = tl.load(x_scale_ptr + row * groups + group)
        acc += tl.dot(x, w, out_dtype=tl.int32).to(tl.float32) * scale[:, None]
    acc *= tl.load(scale_ptr + output)[None, :]
    there = (m < rows)[:, None] & (n < outputs)[None, :]
    place = row[:, None] * outputs + output[None, :]
    if BIAS:
        acc += tl.load(bias_ptr + output).to(tl.float32)[None, :]
    if ADD:
        acc += tl.load(add_ptr + place, mask=there, other=0.0).to(tl.float32)
    tl.store(out_ptr + place, acc.to(out_ptr.dtype.element_ty), mask=there)


def product(
    x: tuple[Tensor, Tensor],
    weight: Int8Weight,
    dtype: torch.dtype,
    bias: Tensor | None = None,
    add: Tensor | None = None,
) -> Tensor:
    """Rows as `quantise` gives them, weight [N, K], add [T, N], contiguous -> [T, N]."""
    values, x_scale = x
    rows, inputs = values.shape
    outputs = len(weight.values)
    out = torch.empty(rows, outputs, dtype=dtype, device=values.device)
    block_m, block_n, warps, stages = shape(rows)
    grid = (triton.cdiv(rows, block_m) * triton.cdiv(outputs, block_n),)
    _product[grid](
        values, x_scale, weight.values, weight.scale, out if bias is None else bias, out if add is None else add, out,
        rows, outputs, inputs,
        BLOCK_M=block_m, BLOCK_N=block_n, GROUP=GROUP, TALL=8, BIAS=bias is not None, ADD=add is not None,
        num_warps=warps, num_stages=stages,
    )  # fmt: skip
    return out


def shape(rows: int) -> tuple[int, int, int, int]:
    """Rows and outputs of a block, warps, stages."""
    return (64, 128, 4, 4) if rows <= 64 else (128, 128, 8, 4)
