"""Activations to fp8 (e4m3), a scale a row, in Triton: alone, behind an RMSNorm, behind a gate; and their product
with an fp8 weight. Each row is scaled so that its largest value becomes 448, the largest that e4m3 holds.

Letters: T rows, D width, I inner width, N outputs, K inputs.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from bagel.model.fp8 import Fp8Weight

LARGEST = 448.0


@triton.jit
def _quantise_row(  # type: ignore[no-untyped-def]
    x_ptr, weight_ptr, out_ptr, scale_ptr, x_stride, width, eps, NORM: tl.constexpr, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < width
    x = tl.load(x_ptr + row * x_stride + column, mask=inside, other=0.0).to(tl.float32)
    if NORM:
        weight = tl.load(weight_ptr + column, mask=inside, other=0.0).to(tl.float32)
        x = x * tl.rsqrt(tl.sum(x * x, axis=0) / width + eps) * weight
    scale = tl.maximum(tl.max(tl.abs(x), axis=0), 1e-12) / 448.0
    tl.store(scale_ptr + row, scale)
    tl.store(out_ptr + row * width + column, (x / scale).to(out_ptr.dtype.element_ty), mask=inside)


def quantise(x: Tensor, norm: tuple[Tensor, float] | None = None) -> tuple[Tensor, Tensor]:
    """x [T, D], RMS-normalised first where `norm` (weight, epsilon) is given -> e4m3 [T, D], scale [T, 1]."""
    rows, width = x.shape
    out = torch.empty(rows, width, dtype=torch.float8_e4m3fn, device=x.device)
    scale = torch.empty(rows, 1, dtype=torch.float32, device=x.device)
    block = triton.next_power_of_2(width)
    _quantise_row[(rows,)](
        x, norm[0] if norm else x, out, scale, x.stride(0), width, norm[1] if norm else 0.0,
        NORM=norm is not None, BLOCK=block, num_warps=4 if block <= 2048 else 8,
    )  # fmt: skip
    return out, scale


@triton.jit
def _swiglu_row(x_ptr, out_ptr, scale_ptr, x_stride, width, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64)
    gate_ptr = x_ptr + row * x_stride
    largest = tl.zeros((BLOCK,), dtype=tl.float32)
    for start in range(0, width, BLOCK):
        column = start + tl.arange(0, BLOCK)
        gate = tl.load(gate_ptr + column, mask=column < width, other=0.0).to(tl.float32)
        up = tl.load(gate_ptr + width + column, mask=column < width, other=0.0).to(tl.float32)
        largest = tl.maximum(largest, tl.abs(gate * tl.sigmoid(gate) * up))
    scale = tl.maximum(tl.max(largest, axis=0), 1e-12) / 448.0
    tl.store(scale_ptr + row, scale)
    for start in range(0, width, BLOCK):  # the row is in the cache now
        column = start + tl.arange(0, BLOCK)
        gate = tl.load(gate_ptr + column, mask=column < width, other=0.0).to(tl.float32)
        up = tl.load(gate_ptr + width + column, mask=column < width, other=0.0).to(tl.float32)
        value = gate * tl.sigmoid(gate) * up / scale
        tl.store(out_ptr + row * width + column, value.to(out_ptr.dtype.element_ty), mask=column < width)


def swiglu(gate_up: Tensor) -> tuple[Tensor, Tensor]:
    """[T, 2 I] -> silu(gate) * up as e4m3 [T, I], scale [T, 1]."""
    rows, width = gate_up.shape[0], gate_up.shape[1] // 2
    out = torch.empty(rows, width, dtype=torch.float8_e4m3fn, device=gate_up.device)
    scale = torch.empty(rows, 1, dtype=torch.float32, device=gate_up.device)
    _swiglu_row[(rows,)](gate_up, out, scale, gate_up.stride(0), width, BLOCK=4096, num_warps=8)
    return out, scale


def product(
    x: tuple[Tensor, Tensor],
    weight: Fp8Weight,
    dtype: torch.dtype,
    bias: Tensor | None = None,
    add: Tensor | None = None,
) -> Tensor:
    """Rows as `quantise` gives them, weight [N, K], add [T, N] -> [T, N]."""
    out = torch._scaled_mm(
        x[0],
        weight.values.t(),
        scale_a=x[1],
        scale_b=weight.scale[None],
        bias=bias,
        out_dtype=dtype,
        use_fast_accum=True,
    )
    return out if add is None else out.add_(add)
