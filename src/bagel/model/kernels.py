"""The arithmetic of the decoder and the autoencoder between their big products, and the products themselves.
Each operation has a plain PyTorch form, which is its definition, and on an NVIDIA GPU, while nothing needs a
gradient, a Triton kernel that takes its place. Nothing is compiled before its first use; without Triton the
plain form runs. A weight may be in fp8 or in fewer bits (see `bagel.model.fp8`, `packed`, `bf11`).

Letters: T tokens, N query heads, M key/value heads, H head width, D model width, I inner width, K inputs.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bagel.model import host_float
from bagel.model.bf11 import Bf11Weight
from bagel.model.fp8 import Fp8Weight, can_multiply
from bagel.model.packed import Int8Weight, Nf4Weight, multiplies_int8

Weight = Tensor | Fp8Weight | Int8Weight | Nf4Weight | Bf11Weight
Norm = tuple[Tensor, float]
"""Weight and epsilon of an RMSNorm."""

_FEW_ROWS = 16
_MAX_MLP_ROWS, _MLP_SLICE = 6144, 4096
"""A longer MLP runs in slices: its widest values take 11 times the memory of its input, and the library's
products of 4,096 rows are as fast as longer ones."""


# --- products ------------------------------------------------------------------------------------------


def linear(
    x: Tensor, weight: Weight, bias: Tensor | None = None, add: Tensor | None = None, into: bool = False
) -> Tensor:
    """x W^T + bias + add: x [T, K], weight [N, K], add [T, N] -> [T, N]. into: the result may take the place of `add`,
    which spares the library a copy of it."""
    if _streams(x, weight):
        return _few_rows(x, weight, bias, add)
    if narrow := _narrow(x, weight):
        return _narrow_product(narrow, narrow.quantise(x), weight, x.dtype, bias, add, into)
    weight = _wide(x, weight)
    if _by_onednn(x, weight):
        out = host_float.product(x, weight, bias)
        return out if add is None else add.add_(out) if into else add + out
    if add is None:
        return F.linear(x, weight, bias)
    if bias is not None:
        return add + F.linear(x, weight, bias)
    # Autocast does not act on what is done in place.
    into = into and not torch.is_autocast_enabled(x.device.type)
    return add.addmm_(x, weight.t()) if into else torch.addmm(add, x, weight.t())


def norm_linear(x: Tensor, norm: Norm, weight: Weight, bias: Tensor | None = None) -> Tensor:
    """`linear` of the RMS-normalised x."""
    if _streams(x, weight):
        return _few_rows(x, weight, bias, norm=norm)
    if narrow := _narrow(x, weight):
        return narrow.product(narrow.quantise(x, norm), weight, x.dtype, bias)
    return linear(rms_norm(x, *norm), weight, bias)


def mlp(x: Tensor, norm: Norm, gate_up: Weight, down: Weight, *, add: bool = True, into: bool = False) -> Tensor:
    """x + swiglu(rms_norm(x) gate_up^T) down^T: x [T, D], gate_up [2 I, D], down [D, I] -> [T, D]. add: whether
    with the x in front. into: the result may take the place of x."""
    if _streams(x, gate_up):
        return linear(_few_rows(x, gate_up, norm=norm, gated=True), down, add=x if add else None)
    narrow = _narrow(x, down) if _narrow(x, gate_up) else None
    if not narrow:
        gate_up, down = _wide(x, gate_up), _wide(x, down)  # once for all slices
    if len(x) > _MAX_MLP_ROWS and not torch.is_grad_enabled():
        parts = x.split(_MLP_SLICE)
        if not (add and into):
            return torch.cat([mlp(part, norm, gate_up, down, add=add) for part in parts])
        for part in parts:
            done = mlp(part, norm, gate_up, down, into=True)
            if done.data_ptr() != part.data_ptr():
                part.copy_(done)
        return x
    inner = norm_linear(x, norm, gate_up)
    if narrow:
        return _narrow_product(narrow, narrow.swiglu(inner), down, x.dtype, None, x if add else None, into)
    return linear(swiglu(inner), down, add=x if add else None, into=into)


def _narrow_product(
    narrow: Any, rows: Any, weight: Weight, dtype: torch.dtype, bias: Tensor | None, add: Tensor | None, into: bool
) -> Tensor:
    """The library's fp8 product takes no summand, so the sum is made behind it, in either's place."""
    if into and add is not None and isinstance(weight, Fp8Weight):
        return add.add_(narrow.product(rows, weight, dtype, bias))
    out: Tensor = narrow.product(rows, weight, dtype, bias, add)
    return out


def _streams(x: Tensor, weight: Weight) -> bool:
    """Whether a few rows meet their weight in a kernel that reads it as it is. Triton reads fp8 only where the GPU
    multiplies it."""
    return len(x) <= _FEW_ROWS and _fused(x) and (not isinstance(weight, Fp8Weight) or can_multiply(x.device))


def _wide(x: Tensor, weight: Weight) -> Tensor:
    """A packed weight in the numbers of x."""
    if isinstance(weight, (Nf4Weight, Int8Weight, Bf11Weight)) and _fused(x):
        return _triton_of(weight).widen(weight, x.dtype)
    return weight if isinstance(weight, Tensor) else weight.wide(x.dtype)


def _few_rows(x: Tensor, weight: Weight, *arguments: Any, **named: Any) -> Tensor:
    """One row streams the weight through registers, more go to the matrix units."""
    from bagel.model import triton_gemv, triton_skinny

    if isinstance(weight, (Nf4Weight, Bf11Weight)):
        return _few_rows_coded(x, weight, *arguments, **named)
    product = triton_gemv.gemv if len(x) <= triton_gemv.MAX_ROWS else triton_skinny.skinny
    return product(x, weight, *arguments, **named)


def _few_rows_coded(
    x: Tensor,
    weight: Nf4Weight | Bf11Weight,
    bias: Tensor | None = None,
    add: Tensor | None = None,
    norm: Norm | None = None,
    gated: bool = False,
) -> Tensor:
    out = _triton_of(weight).product(x if norm is None else rms_norm(x, *norm), weight, bias, add)
    return swiglu(out) if gated else out


# --- between the products --------------------------------------------------------------------------------


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


def group_norm(x: Tensor, norm: nn.GroupNorm, silu: bool, bias: Tensor | None = None) -> Tensor:
    """norm(x + bias), through SiLU if asked: x [B, C, height, width], bias [C]."""
    if _fused_picture(x):
        from bagel.model.triton_group_norm import group_norm as fused

        return fused(x, norm.num_groups, norm.weight, norm.bias, norm.eps, silu, bias)
    y = norm(x if bias is None else x + bias[:, None, None])
    return F.silu(y) if silu else y


def convolve(x: Tensor, conv: nn.Conv2d, before: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """conv(x + before), and the bias [C] that is still to be added: on a GPU the library adds it in a pass of its own
    over the whole picture, which whatever reads the result next can do for nothing. before: [C], for convolutions of
    1 x 1 alone; others would add it to the zeros around the picture too."""
    if not _fused(x) or conv.bias is None:
        return conv(x if before is None else x + before[:, None, None]), None
    y = F.conv2d(x, conv.weight, None, conv.stride, conv.padding)
    bias = conv.bias if before is None else torch.addmv(conv.bias, conv.weight.flatten(1), before)
    return (y, bias) if _fused_picture(y) else (y + bias[:, None, None], None)


def add_pictures(x: Tensor, y: Tensor, *biases: Tensor | None) -> Tensor:
    """x + y + biases: x, y [B, C, height, width], biases [C]."""
    given = [bias for bias in biases if bias is not None]
    if not given:
        return x + y
    from bagel.model.triton_group_norm import add

    return add(x, y, sum(given[1:], given[0]))


def _fused_picture(x: Tensor) -> bool:
    return _fused(x) and x.is_contiguous(memory_format=torch.channels_last)


# --- which form -------------------------------------------------------------------------------------------


_plain = ContextVar("plain", default=False)


@contextmanager
def forms(fast: bool) -> Iterator[None]:
    """Within it, operations have their plain forms unless `fast`: the reference for the kernels, on the GPU too."""
    token = _plain.set(not fast)
    try:
        yield
    finally:
        _plain.reset(token)


def _may_replace() -> bool:
    """Whether an operation may have another form than its plain one. The context variable comes last: the compiler of
    training would break its graph there."""
    return not torch.is_grad_enabled() and not torch.compiler.is_compiling() and not _plain.get()


def _fused(x: Tensor) -> bool:
    return x.is_cuda and len(x) > 0 and _may_replace() and has_triton()


def _by_onednn(x: Tensor, weight: Tensor) -> bool:
    return _may_replace() and host_float.fits(x, weight)


def _narrow(x: Tensor, weight: Weight) -> Any:
    """What multiplies many rows in the weight's own few bits, if the GPU can, or on the CPU without scaling them: a
    module with `quantise`, `swiglu` and `product`."""
    if isinstance(weight, Int8Weight) and x.device.type == "cpu" and not torch.is_grad_enabled():
        return _host_int8()
    if not isinstance(weight, (Fp8Weight, Int8Weight)) or not _fused(x):
        return None
    if isinstance(weight, Fp8Weight):
        return _triton_fp8() if can_multiply(x.device) else None
    int8 = _triton_of(weight)
    return int8 if multiplies_int8(x.device) and int8.fits(weight.values.shape[1]) else None


def has_triton() -> bool:
    return _triton() is not None


@functools.cache
def _triton() -> Any:
    try:
        from bagel.model import triton_kernels
    except ImportError:  # no Triton in this build of PyTorch
        return None
    return triton_kernels


def _triton_of(weight: Int8Weight | Nf4Weight | Bf11Weight) -> Any:
    """The kernels for a kind of weight."""
    from bagel.model import triton_bf11, triton_int8, triton_nf4

    if isinstance(weight, Int8Weight):
        return triton_int8
    return triton_nf4 if isinstance(weight, Nf4Weight) else triton_bf11


def _triton_fp8() -> Any:
    from bagel.model import triton_fp8

    return triton_fp8


def _host_int8() -> Any:
    from bagel.model import host_int8

    return host_int8
