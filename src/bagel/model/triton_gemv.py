"""Products of very few rows with a large weight, in Triton without matrix units: each program streams a few
rows of the weight straight into registers. What bounds them is reading the weight once, so the norm before
and the gate or residual after ride along.

Letters: R rows (a few; one is what it is made for), N outputs, K inputs.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from bagel.model.fp8 import Fp8Weight
from bagel.model.packed import Int8Weight

MAX_ROWS = 1


@triton.jit
def _gemv(  # type: ignore[no-untyped-def]
    x_ptr,
    norm_ptr,
    weight_ptr,
    scale_ptr,
    bias_ptr,
    add_ptr,
    out_ptr,
    rows,
    outputs,
    inputs,
    eps,
    x_stride,
    ROWS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    NORM: tl.constexpr,
    GATED: tl.constexpr,
    SCALED: tl.constexpr,
    BIAS: tl.constexpr,
    ADD: tl.constexpr,
):
    """out [R, N] = act(norm(x) W^T) + bias + add; GATED: W is [2 N, K], gate rows before up rows."""
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    row = tl.arange(0, ROWS)
    weight_row = weight_ptr + tl.minimum(n, outputs - 1).to(tl.int64)[:, None] * inputs
    acc = tl.zeros((ROWS, BLOCK_N, BLOCK_K), dtype=tl.float32)
    up = tl.zeros((ROWS, BLOCK_N, BLOCK_K), dtype=tl.float32)
    squares = tl.zeros((ROWS, BLOCK_K), dtype=tl.float32)
    for start in range(0, inputs, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        inside = k < inputs
        w = tl.load(weight_row + k[None, :], mask=inside[None, :], other=0.0, eviction_policy="evict_first")
        if GATED:
            further = weight_row + outputs.to(tl.int64) * inputs
            w_up = tl.load(further + k[None, :], mask=inside[None, :], other=0.0, eviction_policy="evict_first")
        x_mask = inside[None, :] & (row < rows)[:, None]
        x = tl.load(x_ptr + row[:, None] * x_stride + k[None, :], mask=x_mask, other=0.0).to(tl.float32)
        if NORM:
            squares += x * x
            x = x * tl.load(norm_ptr + k, mask=inside, other=0.0).to(tl.float32)[None, :]
        acc += w.to(tl.float32)[None, :, :] * x[:, None, :]
        if GATED:
            up += w_up.to(tl.float32)[None, :, :] * x[:, None, :]
    total = tl.sum(acc, axis=2)
    if SCALED:
        total *= tl.load(scale_ptr + n, mask=n < outputs, other=0.0)[None, :]
    if NORM:
        length = tl.rsqrt(tl.sum(squares, axis=1) / inputs + eps)[:, None]
        total *= length
    if GATED:
        raised = tl.sum(up, axis=2)
        if SCALED:
            raised *= tl.load(scale_ptr + outputs + n, mask=n < outputs, other=0.0)[None, :]
        if NORM:
            raised *= length
        total = total * tl.sigmoid(total) * raised
    if BIAS:
        total += tl.load(bias_ptr + n, mask=n < outputs, other=0.0).to(tl.float32)[None, :]
    place = row[:, None] * outputs + n[None, :]
    mask = (n < outputs)[None, :] & (row < rows)[:, None]
    if ADD:
        total += tl.load(add_ptr + place, mask=mask, other=0.0).to(tl.float32)
    tl.store(out_ptr + place, total.to(out_ptr.dtype.element_ty), mask=mask)


def gemv(
    x: Tensor,
    weight: Tensor | Fp8Weight | Int8Weight,
    bias: Tensor | None = None,
    add: Tensor | None = None,
    norm: tuple[Tensor, float] | None = None,
    gated: bool = False,
) -> Tensor:
    """x [R, K], weight [N, K] ([2 N, K] if gated) -> [R, N]. norm: weight [K] and epsilon of an RMSNorm of x
    before the product; add: [R, N], contiguous."""
    scaled = not isinstance(weight, Tensor)
    values, scale = (weight, x) if isinstance(weight, Tensor) else weight
    rows, inputs = x.shape
    outputs = len(values) // 2 if gated else len(values)
    out = torch.empty(rows, outputs, dtype=x.dtype, device=x.device)
    padded = triton.next_power_of_2(rows)
    block_n, block_k, warps = shape(padded, outputs, inputs, gated)
    _gemv[(triton.cdiv(outputs, block_n),)](
        x, norm[0] if norm else x, values, scale, x if bias is None else bias, x if add is None else add, out,
        rows, outputs, inputs, norm[1] if norm else 0.0, x.stride(0),
        ROWS=padded, BLOCK_N=block_n, BLOCK_K=block_k, NORM=norm is not None, GATED=gated, SCALED=scaled,
        BIAS=bias is not None, ADD=add is not None, num_warps=warps,
    )  # fmt: skip
    return out


def shape(rows: int, outputs: int, inputs: int, gated: bool) -> tuple[int, int, int]:
    """BLOCK_N, BLOCK_K, warps: what reads weights fastest on an H100 (measured for the 7B shapes)."""
    return 2, 512, 2
