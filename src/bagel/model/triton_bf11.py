"""Weights in 11 bits (`bagel.model.bf11`) on a GPU, in Triton: widened for a product of many rows, and read as they
are by a product of a few, which is bound by reading them once.

Letters: R rows (a few), N outputs, K inputs.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from bagel.model.bf11 import Bf11Weight


@triton.jit
def _sizes(low_ptr, high_ptr, filled, column, there):  # type: ignore[no-untyped-def]
    """Signed sizes, without the scale, of places of rows; low_ptr, high_ptr: where the rows begin."""
    low = tl.load(low_ptr + column, mask=there, other=0).to(tl.int32)
    two = tl.load(high_ptr + column // 4, mask=there, other=0).to(tl.int32) >> (column % 4 * 2) & 3
    third = tl.load(high_ptr + filled // 4 + column // 8, mask=there, other=0).to(tl.int32) >> (column % 8) & 1
    code, mantissa = two | third << 2, low & 127
    size = tl.where(code > 0, (mantissa + 128) << tl.maximum(code - 1, 0), mantissa).to(tl.float32)
    return tl.where((low & 128) > 0, -size, size)


@triton.jit
def _widen(low_ptr, high_ptr, scale_ptr, out_ptr, inputs, filled, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = column < inputs
    size = _sizes(low_ptr + row * filled, high_ptr + row * (filled // 8 * 3), filled, column, there)
    wide = size * tl.load(scale_ptr + row)
    tl.store(out_ptr + row * inputs + column, wide.to(out_ptr.dtype.element_ty), mask=there)


@triton.jit
def _product(  # type: ignore[no-untyped-def]
    x_ptr,
    low_ptr,
    high_ptr,
    scale_ptr,
    bias_ptr,
    add_ptr,
    out_ptr,
    rows,
    outputs,
    inputs,
    filled,
    x_stride,
    ROWS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BIAS: tl.constexpr,
    ADD: tl.constexpr,
):
    """out [R, N] = x W^T + bias + add."""
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    row = tl.arange(0, ROWS)
    safe = tl.minimum(n, outputs - 1).to(tl.int64)[:, None]
    acc = tl.zeros((ROWS, BLOCK_N, BLOCK_K), dtype=tl.float32)
    for start in range(0, inputs, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        there = (k < inputs)[None, :]
        w = _sizes(low_ptr + safe * filled, high_ptr + safe * (filled // 8 * 3), filled, k[None, :], there)
        x = tl.load(x_ptr + row[:, None] * x_stride + k[None, :], mask=(row < rows)[:, None] & there, other=0.0)
        acc += w[None, :, :] * x.to(tl.float32)[:, None, :]
    total = tl.sum(acc, axis=2) * tl.load(scale_ptr + n, mask=n < outputs, other=0.0)[None, :]
    mask = (n < outputs)[None, :] & (row < rows)[:, None]
    place = row[:, None] * outputs + n[None, :]
    if BIAS:
        total += tl.load(bias_ptr + n, mask=n < outputs, other=0.0).to(tl.float32)[None, :]
    if ADD:
        total += tl.load(add_ptr + place, mask=mask, other=0.0).to(tl.float32)
    tl.store(out_ptr + place, total.to(out_ptr.dtype.element_ty), mask=mask)


def widen(weight: Bf11Weight, dtype: torch.dtype) -> Tensor:
    """The weight as it is meant, [N, K]."""
    outputs, filled = weight.low.shape
    out = torch.empty(outputs, weight.inputs, dtype=dtype, device=weight.low.device)
    block = min(triton.next_power_of_2(weight.inputs), 4096)
    _widen[(outputs, triton.cdiv(weight.inputs, block))](
        weight.low, weight.high, weight.scale, out, weight.inputs, filled, BLOCK=block, num_warps=4
    )
    return out


def product(x: Tensor, weight: Bf11Weight, bias: Tensor | None = None, add: Tensor | None = None) -> Tensor:
    """x [R, K], weight [N, K], add [R, N], contiguous -> [R, N]."""
    rows, inputs = x.shape
    outputs, filled = weight.low.shape
    out = torch.empty(rows, outputs, dtype=x.dtype, device=x.device)
    padded = triton.next_power_of_2(rows)
    block_k = 512 if padded == 1 else 256 if padded <= 4 else 128
    _product[(triton.cdiv(outputs, 2),)](
        x, weight.low, weight.high, weight.scale, x if bias is None else bias, x if add is None else add, out,
        rows, outputs, inputs, filled, x.stride(0),
        ROWS=padded, BLOCK_N=2, BLOCK_K=block_k, BIAS=bias is not None, ADD=add is not None, num_warps=2,
    )  # fmt: skip
    return out
