"""Products of one row with a large weight, in Triton without matrix units: each program streams a few rows of the
weight straight into registers. What bounds them is reading the weight once, so the norm before and the gate or
residual after ride along.

Letters: N outputs, K inputs.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from bagel.model import triton_token
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
    outputs,
    inputs,
    eps,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    NORM: tl.constexpr,
    GATED: tl.constexpr,
    SCALED: tl.constexpr,
    BIAS: tl.constexpr,
    ADD: tl.constexpr,
    AHEAD: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    """out [N] = act(W norm(x)) + bias + add; GATED: W is [2 N, K], gate rows before up rows. AHEAD: the next
    block of the weight is asked for before this one is used. OVERLAP: see `triton_token`; the first block of the
    weight is read while the kernel before, which makes x, ends."""
    if OVERLAP:
        tl.extra.cuda.gdc_launch_dependents()
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    column = tl.arange(0, BLOCK_K)
    weight_row = weight_ptr + tl.minimum(n, outputs - 1).to(tl.int64)[:, None] * inputs
    further = weight_row + outputs.to(tl.int64) * inputs
    acc = tl.zeros((BLOCK_N, BLOCK_K), dtype=tl.float32)
    up = tl.zeros((BLOCK_N, BLOCK_K), dtype=tl.float32)
    squares = tl.zeros((BLOCK_K,), dtype=tl.float32)
    if AHEAD:
        w = _block(weight_row, column, inputs)
        w_up = _block(further, column, inputs) if GATED else w
    if OVERLAP:
        tl.extra.cuda.gdc_wait()
    for start in range(0, inputs, BLOCK_K):
        k = start + column
        inside = k < inputs
        if AHEAD:
            next_w = _block(weight_row, k + BLOCK_K, inputs)
            next_up = _block(further, k + BLOCK_K, inputs) if GATED else next_w
        else:
            w = _block(weight_row, k, inputs)
            w_up = _block(further, k, inputs) if GATED else w
        x = tl.load(x_ptr + k, mask=inside, other=0.0).to(tl.float32)
        if NORM:
            squares += x * x
            x = x * tl.load(norm_ptr + k, mask=inside, other=0.0).to(tl.float32)
        acc += w.to(tl.float32) * x[None, :]
        if GATED:
            up += w_up.to(tl.float32) * x[None, :]
        if AHEAD:
            w, w_up = next_w, next_up
    total = tl.sum(acc, axis=1)
    if SCALED:
        total *= tl.load(scale_ptr + n, mask=n < outputs, other=0.0)
    if NORM:
        length = tl.rsqrt(tl.sum(squares, axis=0) / inputs + eps)
        total *= length
    if GATED:
        raised = tl.sum(up, axis=1)
        if SCALED:
            raised *= tl.load(scale_ptr + outputs + n, mask=n < outputs, other=0.0)
        if NORM:
            raised *= length
        total = total * tl.sigmoid(total) * raised
    if BIAS:
        total += tl.load(bias_ptr + n, mask=n < outputs, other=0.0).to(tl.float32)
    if ADD:
        total += tl.load(add_ptr + n, mask=n < outputs, other=0.0).to(tl.float32)
    tl.store(out_ptr + n, total.to(out_ptr.dtype.element_ty), mask=n < outputs)


@triton.jit
def _block(weight_row, k, inputs):  # type: ignore[no-untyped-def]
    """[BLOCK_N, BLOCK_K] of the weight, which nobody reads again soon. Eight numbers a thread, as of x in 16 bits, even
    where a number is a byte: x would have to be passed between the threads otherwise."""
    return tl.load(
        tl.max_contiguous(weight_row + k[None, :], [1, 8]),
        mask=(k < inputs)[None, :],
        other=0.0,
        eviction_policy="evict_first",
    )


class Shape(NamedTuple):
    """How a product is cut: outputs and inputs that a program takes at a time, its warps, and whether it reads
    ahead."""

    block_n: int
    block_k: int
    warps: int
    ahead: bool = False


def gemv(
    x: Tensor,
    weight: Tensor | Fp8Weight | Int8Weight,
    bias: Tensor | None = None,
    add: Tensor | None = None,
    norm: tuple[Tensor, float] | None = None,
    gated: bool = False,
    shape: Shape | None = None,
) -> Tensor:
    """x [1, K], weight [N, K] ([2 N, K] if gated) -> [1, N]. norm: weight [K] and epsilon of an RMSNorm of x
    before the product; add: [1, N]; shape: another cut than `shape_of` gives."""
    scaled = not isinstance(weight, Tensor)
    values, scale = (weight, x) if isinstance(weight, Tensor) else weight
    inputs = x.shape[1]
    outputs = len(values) // 2 if gated else len(values)
    out = torch.empty(1, outputs, dtype=x.dtype, device=x.device)
    cut = shape or shape_of(outputs, inputs, gated)
    extra = {"launch_pdl": True} if triton_token.OVERLAP else {}
    _gemv[(triton.cdiv(outputs, cut.block_n),)](
        x, norm[0] if norm else x, values, scale, x if bias is None else bias, x if add is None else add, out,
        outputs, inputs, norm[1] if norm else 0.0,
        BLOCK_N=cut.block_n, BLOCK_K=cut.block_k, NORM=norm is not None,
        GATED=gated, SCALED=scaled, BIAS=bias is not None, ADD=add is not None, AHEAD=cut.ahead,
        OVERLAP=triton_token.OVERLAP, num_warps=cut.warps, **extra,
    )  # fmt: skip
    return out


def shape_of(outputs: int, inputs: int, gated: bool) -> Shape:
    """What reads weights fastest on an H100 (measured for the 7B shapes)."""
    return Shape(2, 512, 2)
