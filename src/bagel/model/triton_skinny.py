"""Products of a few rows with a large weight, in Triton. They are bound by reading the weight once, so the
norm before and the gate or residual after ride along.

Letters: R rows (at most 16), N outputs, K inputs.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from bagel.model.fp8 import Fp8Weight
from bagel.model.packed import Int8Weight

MAX_ROWS = 16


@triton.jit
def _skinny(  # type: ignore[no-untyped-def]
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
    weight_row = tl.minimum(n, outputs - 1).to(tl.int64)[:, None] * inputs
    acc = tl.zeros((BLOCK_N, ROWS), dtype=tl.float32)
    up = tl.zeros((BLOCK_N, ROWS), dtype=tl.float32)
    squares = tl.zeros((ROWS,), dtype=tl.float32)
    for start in range(0, inputs, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        inside = k < inputs
        w = tl.load(weight_ptr + weight_row + k[None, :], mask=inside[None, :], other=0.0)
        x_mask = inside[:, None] & (row < rows)[None, :]
        x = tl.load(x_ptr + row[None, :] * x_stride + k[:, None], mask=x_mask, other=0.0)
        if NORM:
            wide = x.to(tl.float32)
            squares += tl.sum(wide * wide, axis=0)
            scale = tl.load(norm_ptr + k, mask=inside, other=0.0).to(tl.float32)
            x = (wide * scale[:, None]).to(x.dtype)
        acc = tl.dot(w.to(x.dtype), x, acc, input_precision="ieee")
        if GATED:
            w = tl.load(weight_ptr + weight_row + outputs * inputs + k[None, :], mask=inside[None, :], other=0.0)
            up = tl.dot(w.to(x.dtype), x, up, input_precision="ieee")
    if SCALED:
        acc *= tl.load(scale_ptr + n, mask=n < outputs, other=0.0)[:, None]
        if GATED:
            up *= tl.load(scale_ptr + outputs + n, mask=n < outputs, other=0.0)[:, None]
    if NORM:
        length = tl.rsqrt(squares / inputs + eps)[None, :]
        acc *= length
        up *= length
    if GATED:
        acc = acc * tl.sigmoid(acc) * up
    if BIAS:
        acc += tl.load(bias_ptr + n, mask=n < outputs, other=0.0).to(tl.float32)[:, None]
    place = row[None, :] * outputs + n[:, None]
    mask = (n < outputs)[:, None] & (row < rows)[None, :]
    if ADD:
        acc += tl.load(add_ptr + place, mask=mask, other=0.0).to(tl.float32)
    tl.store(out_ptr + place, acc.to(out_ptr.dtype.element_ty), mask=mask)


class Shape(NamedTuple):
    """How a product is cut: outputs and inputs that a program takes at a time, blocks under way, and warps."""

    block_n: int
    block_k: int
    stages: int
    warps: int


def skinny(
    x: Tensor,
    weight: Tensor | Fp8Weight | Int8Weight,
    bias: Tensor | None = None,
    add: Tensor | None = None,
    norm: tuple[Tensor, float] | None = None,
    gated: bool = False,
    shape: Shape | None = None,
) -> Tensor:
    """x [R, K], weight [N, K] ([2 N, K] if gated) -> [R, N]. norm: weight [K] and epsilon of an RMSNorm of x
    before the product; add: [R, N], contiguous; shape: another cut than `shape_of` gives."""
    scaled = not isinstance(weight, Tensor)
    values, scale = (weight, x) if isinstance(weight, Tensor) else weight
    rows, inputs = x.shape
    outputs = len(values) // 2 if gated else len(values)
    out = torch.empty(rows, outputs, dtype=x.dtype, device=x.device)
    cut = shape or shape_of(outputs, gated, values.dtype.itemsize)
    _skinny[(triton.cdiv(outputs, cut.block_n),)](
        x,
        norm[0] if norm else x,
        values,
        scale,
        x if bias is None else bias,
        x if add is None else add,
        out,
        rows,
        outputs,
        inputs,
        norm[1] if norm else 0.0,
        x.stride(0),
        ROWS=MAX_ROWS,
        BLOCK_N=cut.block_n,
        BLOCK_K=cut.block_k,
        NORM=norm is not None,
        GATED=gated,
        SCALED=scaled,
        BIAS=bias is not None,
        ADD=add is not None,
        num_stages=cut.stages,
        num_warps=cut.warps,
    )
    return out


def shape_of(outputs: int, gated: bool, item: int) -> Shape:
    """What reads weights fastest on an H100 (measured for the 7B shapes). item: bytes of a weight; with one instead of
    two a program must ask for twice as many to keep the memory busy."""
    if item == 1:
        return Shape(32, 256, 4, 4)
    return Shape(64, 128, 4, 8) if gated or outputs >= 4096 else Shape(32, 128, 6, 4)
