"""The elementwise work around the decoder's products, fused. Each operation has a plain PyTorch form, which
is its definition, and a Triton kernel that takes its place on an NVIDIA or AMD GPU while nothing needs a
gradient. Nothing is compiled before its first use; without Triton the plain form runs.

Letters: T tokens, N query heads, M key/value heads, H head width, D model width, I inner width.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, add: Tensor | None = None) -> Tensor:
    """x W^T + bias + add: x [T, K], weight [N, K], add [T, N] -> [T, N]."""
    if _fused(x):
        if len(x) <= _SKINNY_ROWS:
            return _skinny()(x, weight, bias, add)
        if len(x) > _MAX_PRODUCT_ROWS:
            return _in_slices(x, weight, bias, add)
    if add is None:
        return F.linear(x, weight, bias)
    return torch.addmm(add, x, weight.t()) if bias is None else add + F.linear(x, weight, bias)


def norm_linear(x: Tensor, norm: tuple[Tensor, float], weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`linear` of the RMS-normalised x; norm: its weight and epsilon."""
    if _fused(x) and len(x) <= _SKINNY_ROWS:
        return _skinny()(x, weight, bias, norm=norm)
    return linear(rms_norm(x, *norm), weight, bias)


def norm_swiglu(x: Tensor, norm: tuple[Tensor, float], weight: Tensor) -> Tensor:
    """swiglu(rms_norm(x) W^T): x [T, D], weight [2 I, D] -> [T, I]."""
    if _fused(x) and len(x) <= _SKINNY_ROWS:
        return _skinny()(x, weight, norm=norm, gated=True)
    return swiglu(linear(rms_norm(x, *norm), weight))


_SKINNY_ROWS = 16
_MAX_PRODUCT_ROWS = 6144
_SLICE = 4096


def _in_slices(x: Tensor, weight: Tensor, bias: Tensor | None, add: Tensor | None) -> Tensor:
    """A product of many rows in slices of the height at which the library's products are fastest on a Hopper
    GPU (measured: 8,192 rows of the 7B shapes take 9 % less as twice 4,096)."""
    out = torch.empty(len(x), len(weight), dtype=x.dtype, device=x.device)
    for start in range(0, len(x), _SLICE):
        rows = slice(start, start + _SLICE)
        if add is not None:
            torch.addmm(add[rows], x[rows], weight.t(), out=out[rows])
        elif bias is not None:
            torch.addmm(bias, x[rows], weight.t(), out=out[rows])
        else:
            torch.mm(x[rows], weight.t(), out=out[rows])
    return out


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / rms(x) * weight over the last axis, in float32 inside, in x's dtype outside."""
    if _fused(x) and x.ndim == 2:
        return _triton().rms_norm(x, weight, eps)
    return F.rms_norm(x.float(), weight.shape, weight.float(), eps).to(x.dtype)


def swiglu(gate_up: Tensor) -> Tensor:
    """[T, 2 I], gate then up -> silu(gate) * up, [T, I]."""
    if _fused(gate_up):
        return _triton().swiglu(gate_up)
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate) * up


def norm_and_rotate(
    heads: Tensor, weights: tuple[Tensor, Tensor], counts: tuple[int, int], cos: Tensor, sin: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """The product of query, key and value [T, N + 2 M, H] -> queries [T, N, H] and keys [T, M, H], each head
    RMS-normalised by its weight [H] and rotated. counts: (N, M); cos, sin: float32 [T, 1, H]."""
    if _fused(heads):
        return _triton().norm_and_rotate(heads, weights, counts, cos, sin, eps)
    queries, keys = heads[:, : counts[0]], heads[:, counts[0] : sum(counts)]
    rotated = (rotate(rms_norm(x, w, eps), cos, sin) for x, w in zip((queries, keys), weights, strict=True))
    return next(rotated), next(rotated)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns the pairs (i, i + H/2) of x [T, N, H] by their angle; in float32, returned in x's dtype."""
    first, second = x.float().chunk(2, dim=-1)
    return (x.float() * cos + torch.cat((-second, first), dim=-1) * sin).to(x.dtype)


@functools.cache
def _skinny() -> Any:
    from bagel.model.triton_skinny import skinny

    return skinny


def _fused(x: Tensor) -> bool:
    return (
        x.is_cuda
        and len(x) > 0
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and _triton() is not None
    )


def has_triton() -> bool:
    return _triton() is not None


@functools.cache
def _triton() -> Any:
    try:
        from bagel.model import triton_kernels
    except ImportError:  # no Triton in this build of PyTorch
        return None
    return triton_kernels
