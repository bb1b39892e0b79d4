"""Elementwise Triton forms of `bagel.model.kernels`, one program a row. Accumulation is in float32."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _rms_norm(x_ptr, weight_ptr, out_ptr, x_stride, width, eps, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < width
    x = tl.load(x_ptr + row * x_stride + column, mask=inside, other=0.0).to(tl.float32)
    weight = tl.load(weight_ptr + column, mask=inside, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(x * x, axis=0) / width + eps)
    tl.store(out_ptr + row * width + column, (x * scale * weight).to(out_ptr.dtype.element_ty), mask=inside)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    rows, width = x.shape
    out = torch.empty(rows, width, dtype=x.dtype, device=x.device)
    block = triton.next_power_of_2(width)
    _rms_norm[(rows,)](x, weight, out, x.stride(0), width, eps, BLOCK=block, num_warps=4 if block <= 2048 else 8)
    return out


@triton.jit
def _swiglu(x_ptr, out_ptr, x_stride, width, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    gate = tl.load(x_ptr + row * x_stride + column, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(x_ptr + row * x_stride + width + column, mask=inside, other=0.0).to(tl.float32)
    value = gate * tl.sigmoid(gate) * up
    tl.store(out_ptr + row * width + column, value.to(out_ptr.dtype.element_ty), mask=inside)


def swiglu(gate_up: Tensor) -> Tensor:
    rows, width = gate_up.shape[0], gate_up.shape[1] // 2
    out = torch.empty(rows, width, dtype=gate_up.dtype, device=gate_up.device)
    block = min(triton.next_power_of_2(width), 2048)
    grid = (rows, triton.cdiv(width, block))
    _swiglu[grid](gate_up, out, gate_up.stride(0), width, BLOCK=block, num_warps=4)
    return out


@triton.jit
def _norm_and_rotate(  # type: ignore[no-untyped-def]
    x_ptr,
    q_weight_ptr,
    k_weight_ptr,
    cos_ptr,
    sin_ptr,
    q_ptr,
    k_ptr,
    x_row,
    angle_row,
    queries,
    keys,
    half,
    eps,
    HEADS: tl.constexpr,
    HALF: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    head, pair = tl.arange(0, HEADS)[:, None], tl.arange(0, HALF)[None, :]
    known, is_query = pair < half, head < queries
    inside = known & (head < queries + keys)
    place = head * 2 * half + pair
    x1 = tl.load(x_ptr + row * x_row + place, mask=inside, other=0.0).to(tl.float32)
    x2 = tl.load(x_ptr + row * x_row + place + half, mask=inside, other=0.0).to(tl.float32)
    scale = tl.rsqrt((tl.sum(x1 * x1, axis=1) + tl.sum(x2 * x2, axis=1)) / (2 * half) + eps)[:, None]
    q1 = tl.load(q_weight_ptr + pair, mask=known, other=0.0).to(tl.float32)
    q2 = tl.load(q_weight_ptr + pair + half, mask=known, other=0.0).to(tl.float32)
    k1 = tl.load(k_weight_ptr + pair, mask=known, other=0.0).to(tl.float32)
    k2 = tl.load(k_weight_ptr + pair + half, mask=known, other=0.0).to(tl.float32)
    kind = q_ptr.dtype.element_ty
    # The plain form rounds the normalised value to the dtype before it turns it; so do we.
    x1 = (x1 * scale * tl.where(is_query, q1, k1)).to(kind).to(tl.float32)
    x2 = (x2 * scale * tl.where(is_query, q2, k2)).to(kind).to(tl.float32)
    cos = tl.load(cos_ptr + row * angle_row + pair, mask=known, other=0.0)
    sin = tl.load(sin_ptr + row * angle_row + pair, mask=known, other=0.0)
    y1, y2 = (x1 * cos - x2 * sin).to(kind), (x2 * cos + x1 * sin).to(kind)
    q = q_ptr + row * queries * 2 * half + place
    tl.store(q, y1, mask=known & is_query)
    tl.store(q + half, y2, mask=known & is_query)
    k = k_ptr + row * keys * 2 * half + place - queries * 2 * half
    tl.store(k, y1, mask=inside & (head >= queries))
    tl.store(k + half, y2, mask=inside & (head >= queries))


def norm_and_rotate(
    heads: Tensor, weights: tuple[Tensor, Tensor], counts: tuple[int, int], cos: Tensor, sin: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    rows, _, width = heads.shape
    q, k = (torch.empty(rows, count, width, dtype=heads.dtype, device=heads.device) for count in counts)
    _norm_and_rotate[(rows,)](
        heads, *weights, cos, sin, q, k, heads.stride(0), cos.stride(0), *counts, width // 2, eps,
        HEADS=triton.next_power_of_2(sum(counts)), HALF=triton.next_power_of_2(width // 2), num_warps=4,
    )  # fmt: skip
    return q, k
