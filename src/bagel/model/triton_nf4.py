"""Weights in nf4 (`bagel.model.packed`) on a GPU, in Triton: widened for a product of many rows, and read as they
are by a product of a few, which is bound by reading them once.

Letters: R rows (a few), N outputs, K inputs, B bytes of a row, two inputs each.
"""

from __future__ import annotations

import functools

import torch
import triton
import triton.language as tl
from torch import Tensor

from bagel.model.packed import GROUP, LEVELS, Nf4Weight


@triton.jit
def _widen(codes_ptr, scale_ptr, levels_ptr, out_ptr, groups, BLOCK: tl.constexpr, HALF: tl.constexpr):  # type: ignore[no-untyped-def]
    """HALF bytes a group, one scale each -> its 2 HALF weights."""
    group = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = (group < groups)[:, None]
    byte = group[:, None] * HALF + tl.arange(0, HALF)[None, :]
    code = tl.load(codes_ptr + byte, mask=inside, other=0).to(tl.int32)
    scale = tl.load(scale_ptr + group, mask=group < groups, other=0.0).to(tl.float32)[:, None]
    low = tl.load(levels_ptr + (code & 15)) * scale
    high = tl.load(levels_ptr + (code >> 4)) * scale
    weights = tl.interleave(low, high)
    place = group[:, None] * (2 * HALF) + tl.arange(0, 2 * HALF)[None, :]
    tl.store(out_ptr + place, weights.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _product(  # type: ignore[no-untyped-def]
    x_ptr,
    codes_ptr,
    scale_ptr,
    levels_ptr,
    bias_ptr,
    add_ptr,
    out_ptr,
    rows,
    outputs,
    inputs,
    num_bytes,
    groups,
    x_stride,
    ROWS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_B: tl.constexpr,
    HALF: tl.constexpr,
    BIAS: tl.constexpr,
    ADD: tl.constexpr,
):
    """out [R, N] = x W^T + bias + add."""
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    row = tl.arange(0, ROWS)
    safe = tl.minimum(n, outputs - 1).to(tl.int64)[:, None]
    acc = tl.zeros((ROWS, BLOCK_N, BLOCK_B), dtype=tl.float32)
    for start in range(0, num_bytes, BLOCK_B):
        b = start + tl.arange(0, BLOCK_B)
        there = (b < num_bytes)[None, :]
        code = tl.load(codes_ptr + safe * num_bytes + b[None, :], mask=there, other=0).to(tl.int32)
        scale = tl.load(scale_ptr + safe * groups + (b // HALF)[None, :], mask=there, other=0.0).to(tl.float32)
        low = tl.load(levels_ptr + (code & 15)) * scale
        high = tl.load(levels_ptr + (code >> 4)) * scale
        place = x_ptr + row[:, None] * x_stride + 2 * b[None, :]
        known = (row < rows)[:, None]
        even = tl.load(place, mask=known & (2 * b < inputs)[None, :], other=0.0).to(tl.float32)
        odd = tl.load(place + 1, mask=known & (2 * b + 1 < inputs)[None, :], other=0.0).to(tl.float32)
        acc += low[None, :, :] * even[:, None, :] + high[None, :, :] * odd[:, None, :]
    total = tl.sum(acc, axis=2)
    mask = (n < outputs)[None, :] & (row < rows)[:, None]
    place = row[:, None] * outputs + n[None, :]
    if BIAS:
        total += tl.load(bias_ptr + n, mask=n < outputs, other=0.0).to(tl.float32)[None, :]
    if ADD:
        total += tl.load(add_ptr + place, mask=mask, other=0.0).to(tl.float32)
    tl.store(out_ptr + place, total.to(out_ptr.dtype.element_ty), mask=mask)


def widen(weight: Nf4Weight, dtype: torch.dtype) -> Tensor:
    """The weight as it is meant, [N, K]."""
    codes = weight.codes
    out = torch.empty(len(codes), 2 * codes.shape[1], dtype=dtype, device=codes.device)
    groups, block = weight.scale.numel(), 32
    grid = (triton.cdiv(groups, block),)
    _widen[grid](codes, weight.scale, _levels(codes.device), out, groups, BLOCK=block, HALF=GROUP // 2)
    return out if out.shape[1] == weight.inputs else out[:, : weight.inputs].contiguous()


def product(x: Tensor, weight: Nf4Weight, bias: Tensor | None = None, add: Tensor | None = None) -> Tensor:
    """x [R, K], weight [N, K], add [R, N], contiguous -> [R, N]."""
    rows, inputs = x.shape
    outputs, num_bytes = weight.codes.shape
    out = torch.empty(rows, outputs, dtype=x.dtype, device=x.device)
    padded = triton.next_power_of_2(rows)
    block_n, block_b = (4 if padded <= 4 else 2), 128
    _product[(triton.cdiv(outputs, block_n),)](
        x, weight.codes, weight.scale, _levels(x.device), x if bias is None else bias, x if add is None else add, out,
        rows, outputs, inputs, num_bytes, weight.scale.shape[1], x.stride(0),
        ROWS=padded, BLOCK_N=block_n, BLOCK_B=block_b, HALF=GROUP // 2, BIAS=bias is not None, ADD=add is not None,
    )  # fmt: skip
    return out


@functools.lru_cache(maxsize=16)
def _levels(device: torch.device) -> Tensor:
    return torch.tensor(LEVELS, dtype=torch.float32, device=device)
