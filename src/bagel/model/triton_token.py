"""What lies between the products of a layer while single tokens are written, as two kernels: the norms of query and
key, their rotation, the new key and value put into their place, and attention over all that the context holds, cut
into parts; and the join of the parts. One by one the first are short kernels that mostly wait for each other. The join
in the same kernel, by the last program to be done, took longer than a kernel of its own with a program for each head.

Letters: R rows, N query heads, M key/value heads, H head width, P parts that a context's keys are cut into.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from bagel.model.triton_decode import merge

OVERLAP = False
"""Whether the kernels of a token's step start while the one before them ends (programmatic dependent launch, on
compute capability 9.0 and above): what does not depend on it is read meanwhile."""
PROGRAMS = 264
"""Programs that share the keys of all rows: two for each multiprocessor of an H100."""


class Shape(NamedTuple):
    """block: keys at a time; warps and stages of a program."""

    block: int
    warps: int
    stages: int


SHAPE = Shape(64, 4, 3)


@triton.jit
def _turned(  # type: ignore[no-untyped-def]
    x_ptr, weight_ptr, cos, sin, column, partner, sign, mask, eps, head_dim
):
    """Heads [G, H] that begin at x_ptr [G, 1], normalised and rotated, in float32."""
    x = tl.load(x_ptr + column, mask=mask, other=0.0).to(tl.float32)
    y = tl.load(x_ptr + partner, mask=mask, other=0.0).to(tl.float32)
    known = column < head_dim
    kind = x_ptr.dtype.element_ty
    length = tl.rsqrt(tl.sum(x * x, axis=1) / head_dim + eps)[:, None]
    # The plain form rounds the normalised value to the dtype before it turns it; so do we.
    x = (x * length * tl.load(weight_ptr + column, mask=known, other=0.0).to(tl.float32)).to(kind).to(tl.float32)
    y = (y * length * tl.load(weight_ptr + partner, mask=known, other=0.0).to(tl.float32)).to(kind).to(tl.float32)
    return (x * cos + sign * y * sin).to(kind)


@triton.jit
def _attend_token(  # type: ignore[no-untyped-def]
    heads_ptr,
    q_weight_ptr,
    k_weight_ptr,
    cos_ptr,
    sin_ptr,
    address_ptr,
    length_ptr,
    capacity_ptr,
    seen_ptr,
    peak_ptr,
    total_ptr,
    layer,
    scale,
    eps,
    heads,
    kv_heads,
    head_dim,
    parts,
    GROUP: tl.constexpr,
    HEAD: tl.constexpr,
    BLOCK: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    """One part of the keys of one context, for the query heads that share a key head."""
    row, kv, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    if OVERLAP:
        tl.extra.cuda.gdc_launch_dependents()
    group = heads // kv_heads
    kind = heads_ptr.dtype.element_ty
    base = tl.load(address_ptr + row).to(tl.pointer_type(kind))
    # A storage begins at a multiple of 256 bytes; the compiler cannot know it, and would read number by number.
    base = tl.multiple_of(base, 16)
    capacity, length = tl.load(capacity_ptr + row), tl.load(length_ptr + row).to(tl.int32)
    share = tl.cdiv(length, parts)
    member, column = tl.arange(0, GROUP), tl.arange(0, HEAD)
    half = head_dim // 2
    partner = tl.where(column < half, column + half, column - half)[None, :]
    angle = tl.where(column < half, column, column - half)
    known = column < head_dim
    sign = tl.where(column < half, -1.0, 1.0)[None, :]
    if OVERLAP:
        tl.extra.cuda.gdc_wait()
    cos = tl.load(cos_ptr + row * half + angle, mask=known, other=0.0)[None, :]
    sin = tl.load(sin_ptr + row * half + angle, mask=known, other=0.0)[None, :]
    heads_row = heads_ptr + row * (heads + 2 * kv_heads) * head_dim
    q_mask = (member < group)[:, None] & known[None, :]
    q = _turned(
        heads_row + (kv * group + member)[:, None] * head_dim,
        q_weight_ptr, cos, sin, column[None, :], partner, sign, q_mask, eps, head_dim,
    )  # fmt: skip
    peak = tl.full((GROUP,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((GROUP,), dtype=tl.float32)
    acc = tl.zeros((GROUP, HEAD), dtype=tl.float32)
    if part == 0:  # the new token itself
        first = heads_row + (heads + kv + tl.arange(0, 1))[:, None] * head_dim
        k_new = _turned(first, k_weight_ptr, cos, sin, column[None, :], partner, sign, known[None, :], eps, head_dim)
        v_new = tl.load(first + kv_heads * head_dim + column[None, :], mask=known[None, :], other=0.0)
        place = ((2 * layer * capacity + length) * kv_heads + kv) * head_dim + column[None, :]
        tl.store(base + place, k_new, mask=known[None, :])
        tl.store(base + place + capacity * kv_heads * head_dim, v_new, mask=known[None, :])
        peak = tl.sum(q.to(tl.float32) * k_new.to(tl.float32), axis=1) * scale
        total += 1.0
        acc += v_new.to(tl.float32)
    begin = part * share
    end = tl.minimum(begin + share, length)
    for start in range(begin, end, BLOCK):
        key = start + tl.arange(0, BLOCK)
        offset = ((2 * layer * capacity + key) * kv_heads + kv) * head_dim
        inside = (key < end)[:, None] & known[None, :]
        k = tl.load(base + offset[:, None] + column[None, :], mask=inside, other=0.0)
        v_offset = offset + capacity * kv_heads * head_dim
        v = tl.load(base + v_offset[:, None] + column[None, :], mask=inside, other=0.0)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        scores = tl.where((key < end)[None, :], scores, float("-inf"))
        higher = tl.maximum(peak, tl.max(scores, axis=1))
        fade = tl.exp(peak - higher)
        weight = tl.exp(scores - higher[:, None])
        acc = tl.dot(weight.to(kind), v, acc * fade[:, None], input_precision="ieee")
        total = total * fade + tl.sum(weight, axis=1)
        peak = higher
    slot = (row * heads + kv * group + member) * parts + part
    tl.store(peak_ptr + slot, peak, mask=member < group)
    tl.store(total_ptr + slot, total, mask=member < group)
    tl.store(seen_ptr + slot[:, None] * head_dim + column[None, :], acc, mask=q_mask)


class Places(NamedTuple):
    """Where the keys and values of R contexts lie, storages [L, 2, capacity, M, H]: int64 [R] each. lengths: tokens
    that they hold before the new one, which goes behind them."""

    addresses: Tensor
    lengths: Tensor
    capacities: Tensor


class Norms(NamedTuple):
    """The weights [H] of the norms of query and key, and their epsilon."""

    q: Tensor
    k: Tensor
    eps: float


def attend(product: Tensor, norms: Norms, cos: Tensor, sin: Tensor, places: Places, layer: int, heads: int) -> Tensor:
    """product [R, N + 2 M, H] of query, key and value; cos and sin: float32 [R, H / 2]; heads: N -> what the queries
    receive from all that their contexts hold, themselves included, [R, N, H]. The new keys and values are kept."""
    rows, all_heads, head_dim = product.shape
    kv_heads = (all_heads - heads) // 2
    parts = max(1, min(64, PROGRAMS // (rows * kv_heads)))
    seen = torch.empty(rows, heads, parts, head_dim, dtype=torch.float32, device=product.device)
    peak, total = torch.empty(2, rows, heads, parts, dtype=torch.float32, device=product.device)
    extra = {"launch_pdl": True} if OVERLAP else {}
    _attend_token[(rows, kv_heads, parts)](
        product, norms.q, norms.k, cos, sin, *places, seen, peak, total,
        layer, head_dim**-0.5, norms.eps, heads, kv_heads, head_dim, parts,
        GROUP=max(16, triton.next_power_of_2(heads // kv_heads)), HEAD=max(16, triton.next_power_of_2(head_dim)),
        BLOCK=SHAPE.block, OVERLAP=OVERLAP, num_warps=SHAPE.warps, num_stages=SHAPE.stages, **extra,
    )  # fmt: skip
    return merge(seen, peak, total, product.dtype)
