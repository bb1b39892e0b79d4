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
def _gated(gate_ptr, column, width):  # type: ignore[no-untyped-def]
    """silu(gate) * up in float32; `up` lies `width` behind `gate`."""
    inside = column < width
    gate = tl.load(gate_ptr + column, mask=inside, other=0.0, eviction_policy="evict_first").to(tl.float32)
    up = tl.load(gate_ptr + width + column, mask=inside, other=0.0, eviction_policy="evict_first").to(tl.float32)
    return gate * tl.sigmoid(gate) * up


@triton.jit
def _swiglu_row(  # type: ignore[no-untyped-def]
    x_ptr, out_ptr, scale_ptr, x_stride, width, MOST: tl.constexpr, REST: tl.constexpr
):
    """A row is held in registers, in two pieces, since a piece has a power of two of numbers."""
    row = tl.program_id(0).to(tl.int64)
    first, second = tl.arange(0, MOST), MOST + tl.arange(0, REST)
    one, other = _gated(x_ptr + row * x_stride, first, width), _gated(x_ptr + row * x_stride, second, width)
    largest = tl.maximum(tl.max(tl.abs(one), axis=0), tl.max(tl.abs(other), axis=0))
    scale = tl.maximum(largest, 1e-12) / 448.0
    tl.store(scale_ptr + row, scale)
    kind = out_ptr.dtype.element_ty
    tl.store(out_ptr + row * width + first, (one / scale).to(kind), mask=first < width)
    tl.store(out_ptr + row * width + second, (other / scale).to(kind), mask=second < width)


@triton.jit
def _swiglu_long_row(x_ptr, out_ptr, scale_ptr, x_stride, width, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """A row that is too long for registers is read twice."""
    row = tl.program_id(0).to(tl.int64)
    gate_ptr = x_ptr + row * x_stride
    largest = tl.zeros((BLOCK,), dtype=tl.float32)
    for start in range(0, width, BLOCK):
        largest = tl.maximum(largest, tl.abs(_gated(gate_ptr, start + tl.arange(0, BLOCK), width)))
    scale = tl.maximum(tl.max(largest, axis=0), 1e-12) / 448.0
    tl.store(scale_ptr + row, scale)
    for start in range(0, width, BLOCK):
        column = start + tl.arange(0, BLOCK)
        value = _gated(gate_ptr, column, width) / scale
        tl.store(out_ptr + row * width + column, value.to(out_ptr.dtype.element_ty), mask=column < width)


def swiglu(gate_up: Tensor, in_registers: int = 32768) -> tuple[Tensor, Tensor]:
    """[T, 2 I] -> silu(gate) * up as e4m3 [T, I], scale [T, 1]. in_registers: a longer row is read twice."""
    rows, width = gate_up.shape[0], gate_up.shape[1] // 2
    out = torch.empty(rows, width, dtype=torch.float8_e4m3fn, device=gate_up.device)
    scale = torch.empty(rows, 1, dtype=torch.float32, device=gate_up.device)
    if width > in_registers:
        _swiglu_long_row[(rows,)](gate_up, out, scale, gate_up.stride(0), width, BLOCK=4096, num_warps=8)
        return out, scale
    most = 1 << width.bit_length() - 1
    rest = max(16, triton.next_power_of_2(width - most))
    warps = 4 if width <= 4096 else 16
    _swiglu_row[(rows,)](gate_up, out, scale, gate_up.stride(0), width, MOST=most, REST=rest, num_warps=warps)
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
