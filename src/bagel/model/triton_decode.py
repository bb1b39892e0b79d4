"""Attention of single rows, in Triton: each looks at one context's keys and values, which lie in as many
storages as there are contexts and are reached by address, so that one captured graph serves any of them.

Letters: R rows, N query heads, M key/value heads, H head width, P parts that a context's keys are cut into.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _write(  # type: ignore[no-untyped-def]
    k_ptr,
    v_ptr,
    address_ptr,
    slot_ptr,
    capacity_ptr,
    layer,
    k_stride,
    v_stride,
    width,
    BLOCK: tl.constexpr,
):
    """Puts the new key and value of each row into its slot."""
    row = tl.program_id(0)
    column = tl.arange(0, BLOCK)
    inside = column < width
    base = tl.load(address_ptr + row).to(tl.pointer_type(k_ptr.dtype.element_ty))
    capacity, slot = tl.load(capacity_ptr + row), tl.load(slot_ptr + row)
    place = (2 * layer * capacity + slot) * width + column
    tl.store(base + place, tl.load(k_ptr + row * k_stride + column, mask=inside), mask=inside)
    tl.store(base + place + capacity * width, tl.load(v_ptr + row * v_stride + column, mask=inside), mask=inside)


@triton.jit
def _attend_part(  # type: ignore[no-untyped-def]
    q_ptr,
    address_ptr,
    count_ptr,
    capacity_ptr,
    seen_ptr,
    peak_ptr,
    total_ptr,
    layer,
    scale,
    heads,
    kv_heads,
    head_dim,
    parts,
    GROUP: tl.constexpr,
    HEAD: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One part of the keys of one context, for the query heads that share a key head."""
    row, kv, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    group = heads // kv_heads
    member, column = tl.arange(0, GROUP), tl.arange(0, HEAD)
    head = kv * group + member
    q_mask = (member < group)[:, None] & (column < head_dim)[None, :]
    q = tl.load(q_ptr + (row * heads + head)[:, None] * head_dim + column[None, :], mask=q_mask, other=0.0)
    base = tl.load(address_ptr + row).to(tl.pointer_type(q_ptr.dtype.element_ty))
    capacity = tl.load(capacity_ptr + row)
    keys = tl.load(count_ptr + row)
    # A storage begins at a multiple of 256 bytes; the compiler cannot know it, and would read number by number.
    base = tl.multiple_of(base, 16)
    share = tl.cdiv(tl.cdiv(keys, parts), BLOCK) * BLOCK
    begin = part * share
    end = tl.minimum(begin + share, keys)
    peak = tl.full((GROUP,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((GROUP,), dtype=tl.float32)
    acc = tl.zeros((GROUP, HEAD), dtype=tl.float32)
    for start in range(begin, end, BLOCK):
        place = start + tl.arange(0, BLOCK)
        offset = ((2 * layer * capacity + place) * kv_heads + kv) * head_dim
        inside = (place < end)[:, None] & (column < head_dim)[None, :]
        k = tl.load(base + offset[:, None] + column[None, :], mask=inside, other=0.0)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        scores = tl.where((place < end)[None, :], scores, float("-inf"))
        higher = tl.maximum(peak, tl.max(scores, axis=1))
        fade = tl.exp(peak - higher)
        weight = tl.exp(scores - higher[:, None])
        v_offset = offset + capacity * kv_heads * head_dim
        v = tl.load(base + v_offset[:, None] + column[None, :], mask=inside, other=0.0)
        acc = tl.dot(weight.to(v.dtype), v, acc * fade[:, None], input_precision="ieee")
        total = total * fade + tl.sum(weight, axis=1)
        peak = higher
    slot = (row * heads + head) * parts + part
    tl.store(peak_ptr + slot, peak, mask=member < group)
    tl.store(total_ptr + slot, total, mask=member < group)
    tl.store(seen_ptr + slot[:, None] * head_dim + column[None, :], acc, mask=q_mask)


@triton.jit
def _merge(  # type: ignore[no-untyped-def]
    seen_ptr, peak_ptr, total_ptr, out_ptr, parts, head_dim, PARTS: tl.constexpr, HEAD: tl.constexpr
):
    """Joins the parts of one query head."""
    head = tl.program_id(0)
    part, column = tl.arange(0, PARTS), tl.arange(0, HEAD)
    peak = tl.load(peak_ptr + head * parts + part, mask=part < parts, other=float("-inf"))
    total = tl.load(total_ptr + head * parts + part, mask=part < parts, other=0.0)
    weight = tl.exp(peak - tl.max(peak, axis=0))
    mask = (part < parts)[:, None] & (column < head_dim)[None, :]
    seen = tl.load(seen_ptr + (head * parts + part)[:, None] * head_dim + column[None, :], mask=mask, other=0.0)
    value = tl.sum(seen * weight[:, None], axis=0) / tl.sum(total * weight, axis=0)
    tl.store(out_ptr + head * head_dim + column, value.to(out_ptr.dtype.element_ty), mask=column < head_dim)


def write(k: Tensor, v: Tensor, addresses: Tensor, slots: Tensor, capacities: Tensor, layer: int) -> None:
    """k, v [R, M, H] into the slots of storages [L, 2, capacity, M, H] that lie at `addresses`; int64 [R] each."""
    width = k.shape[1] * k.shape[2]
    _write[(len(k),)](
        k, v, addresses, slots, capacities, layer, k.stride(0), v.stride(0), width,
        BLOCK=triton.next_power_of_2(width), num_warps=4,
    )  # fmt: skip


def attend(q: Tensor, kv_heads: int, addresses: Tensor, counts: Tensor, capacities: Tensor, layer: int) -> Tensor:
    """q [R, N, H], contiguous, over the first `count` places of its storage -> [R, N, H]."""
    rows, heads, head_dim = q.shape
    parts = max(1, min(64, 264 // (rows * kv_heads)))
    width = triton.next_power_of_2(head_dim)
    seen = torch.empty(rows, heads, parts, head_dim, dtype=torch.float32, device=q.device)
    peak, total = torch.empty(2, rows, heads, parts, dtype=torch.float32, device=q.device)
    _attend_part[(rows, kv_heads, parts)](
        q, addresses, counts, capacities, seen, peak, total, layer, head_dim**-0.5, heads, kv_heads, head_dim, parts,
        GROUP=max(16, triton.next_power_of_2(heads // kv_heads)), HEAD=max(16, width), BLOCK=64,
        num_warps=4, num_stages=3,
    )  # fmt: skip
    return merge(seen, peak, total, q.dtype)


def merge(seen: Tensor, peak: Tensor, total: Tensor, dtype: torch.dtype) -> Tensor:
    """seen float32 [R, N, P, H] of each part, and its scores' peak and total weight [R, N, P] -> [R, N, H]."""
    rows, heads, parts, head_dim = seen.shape
    out = torch.empty(rows, heads, head_dim, dtype=dtype, device=seen.device)
    _merge[(rows * heads,)](
        seen, peak, total, out, parts, head_dim,
        PARTS=triton.next_power_of_2(parts), HEAD=triton.next_power_of_2(head_dim), num_warps=4,
    )  # fmt: skip
    return out
