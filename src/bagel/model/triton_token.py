"""What lies between the products of a layer while single tokens are written, as one kernel: the norms of query and
key, their rotation, the new key and value put into their place, attention over all that the context holds, and the
join of the parts that its keys are cut into. One by one these are short kernels that mostly wait for each other.

Letters: R rows, N query heads, M key/value heads, H head width, P parts that a context's keys are cut into.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

OVERLAP = False
"""Whether the kernels of a token's step start while the one before them ends (programmatic dependent launch, on
compute capability 9.0 and above): what does not depend on it is read meanwhile."""
PROGRAMS = 132
"""Programs that share the keys of all rows: one for each multiprocessor of an H100."""


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
    arrived_ptr,
    out_ptr,
    layer,
    scale,
    eps,
    heads,
    kv_heads,
    head_dim,
    GROUP: tl.constexpr,
    MEMBERS: tl.constexpr,
    HEAD: tl.constexpr,
    BLOCK: tl.constexpr,
    PARTS: tl.constexpr,
    CHUNK: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    """One part of the keys of one context, for the query heads that share a key head; the last part to be done joins
    all. Which one that is changes nothing: the parts are joined in their order."""
    row, kv, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    if OVERLAP:
        tl.extra.cuda.gdc_launch_dependents()
    group = heads // kv_heads
    kind = heads_ptr.dtype.element_ty
    base = tl.load(address_ptr + row).to(tl.pointer_type(kind))
    # A storage begins at a multiple of 256 bytes; the compiler cannot know it, and would read number by number.
    base = tl.multiple_of(base, 16)
    capacity, length = tl.load(capacity_ptr + row), tl.load(length_ptr + row).to(tl.int32)
    share = tl.cdiv(length, PARTS)
    active = tl.maximum(tl.cdiv(length, tl.maximum(share, 1)), 1)
    if part < active:
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
            k_new = _turned(
                first, k_weight_ptr, cos, sin, column[None, :], partner, sign, known[None, :], eps, head_dim
            )
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
        all_parts = (row * kv_heads + kv) * PARTS
        slot = (all_parts + part) * group + member
        tl.store(peak_ptr + slot, peak, mask=member < group)
        tl.store(total_ptr + slot, total, mask=member < group)
        tl.store(seen_ptr + slot[:, None] * head_dim + column[None, :], acc, mask=q_mask)
        tl.debug_barrier()  # the whole part is written before it is counted
        before = tl.atomic_add(arrived_ptr + row * kv_heads + kv, 1, sem="acq_rel")
        if before == active - 1:
            tl.store(arrived_ptr + row * kv_heads + kv, 0)
            _join(
                seen_ptr, peak_ptr, total_ptr, out_ptr + (row * heads + kv * group) * head_dim,
                all_parts, active, group, head_dim, MEMBERS, HEAD, PARTS, CHUNK,
            )  # fmt: skip


@triton.jit
def _join(  # type: ignore[no-untyped-def]
    seen_ptr,
    peak_ptr,
    total_ptr,
    out_ptr,
    all_parts,
    active,
    group,
    head_dim,
    MEMBERS: tl.constexpr,
    HEAD: tl.constexpr,
    PARTS: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """The heads of a group from its parts."""
    member, column, part = tl.arange(0, MEMBERS), tl.arange(0, HEAD), tl.arange(0, PARTS)
    ours = member < group
    slot = (all_parts + part)[:, None] * group + member[None, :]
    mask = (part < active)[:, None] & ours[None, :]
    peak = tl.load(peak_ptr + slot, mask=mask, other=float("-inf"), cache_modifier=".cg")
    top = tl.where(ours, tl.max(peak, axis=0), 0.0)
    total = tl.load(total_ptr + slot, mask=mask, other=0.0, cache_modifier=".cg")
    total = tl.sum(total * tl.exp(peak - top[None, :]), axis=0)
    acc = tl.zeros((MEMBERS, HEAD), dtype=tl.float32)
    for start in range(0, active, CHUNK):
        some = start + tl.arange(0, CHUNK)
        at = (all_parts + some)[:, None] * group + member[None, :]
        there = (some < active)[:, None] & ours[None, :]
        weight = tl.exp(tl.load(peak_ptr + at, mask=there, other=float("-inf"), cache_modifier=".cg") - top[None, :])
        wide = there[:, :, None] & (column < head_dim)[None, None, :]
        place = at[:, :, None] * head_dim + column[None, None, :]
        seen = tl.load(seen_ptr + place, mask=wide, other=0.0, cache_modifier=".cg")
        acc += tl.sum(seen * weight[:, :, None], axis=0)
    out = acc / tl.where(ours, total, 1.0)[:, None]
    wanted = ours[:, None] & (column < head_dim)[None, :]
    tl.store(out_ptr + member[:, None] * head_dim + column[None, :], out.to(out_ptr.dtype.element_ty), mask=wanted)


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


class TokenScratch:
    """What `attend` keeps between its programs. One pass at a time may use it."""

    def __init__(self, rows: int, heads: int, kv_heads: int, head_dim: int, device: torch.device) -> None:
        self.heads, self.kv_heads = heads, kv_heads
        self.parts = parts_of(rows * kv_heads)
        self.seen = torch.empty(rows, heads, self.parts, head_dim, dtype=torch.float32, device=device)
        self.peak, self.total = torch.empty(2, rows, heads, self.parts, dtype=torch.float32, device=device)
        self.arrived = torch.zeros(rows, kv_heads, dtype=torch.int32, device=device)


def parts_of(groups: int) -> int:
    """How many parts the keys of each of the groups (a row's key heads) are cut into: a power of two."""
    return max(1, min(64, 1 << max(PROGRAMS // groups, 1).bit_length() - 1))


def attend(
    product: Tensor, norms: Norms, cos: Tensor, sin: Tensor, places: Places, layer: int, scratch: TokenScratch
) -> Tensor:
    """product [R, N + 2 M, H] of query, key and value; cos and sin: float32 [R, H / 2] -> what the queries receive
    from all that their contexts hold, themselves included, [R, N, H]. The new keys and values are kept."""
    rows, _, head_dim = product.shape
    heads, kv_heads = scratch.heads, scratch.kv_heads
    group = heads // kv_heads
    out = torch.empty(rows, heads, head_dim, dtype=product.dtype, device=product.device)
    extra = {"launch_pdl": True} if OVERLAP else {}
    _attend_token[(rows, kv_heads, scratch.parts)](
        product, norms.q, norms.k, cos, sin, *places, scratch.seen, scratch.peak, scratch.total, scratch.arrived, out,
        layer, head_dim**-0.5, norms.eps, heads, kv_heads, head_dim,
        GROUP=max(16, triton.next_power_of_2(group)), MEMBERS=triton.next_power_of_2(group),
        HEAD=max(16, triton.next_power_of_2(head_dim)), BLOCK=32, PARTS=scratch.parts, CHUNK=min(8, scratch.parts),
        OVERLAP=OVERLAP, num_warps=4, num_stages=4, **extra,
    )  # fmt: skip
    return out
