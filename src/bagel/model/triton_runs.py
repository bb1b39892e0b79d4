"""The backward of attention over runs, in Triton, without atomic sums: every number is summed by one program in one
order, so that a resumed run goes on with the same bits. FlashAttention-2 (arXiv 2307.08691) sums the queries'
gradients from many programs at once; here they have a pass of their own, seven products where it needs five, which
costs less than its orderly mode on runs of unequal length.

Letters: Q queries and K keys of all runs end to end, R runs, N query heads, M key/value heads, H head width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

_LOG2_E: tl.constexpr = tl.constexpr(1.4426950408889634)


class Shape(NamedTuple):
    """Sides of a tile, and how a program runs."""

    queries: int
    keys: int
    warps: int
    stages: int


def shapes(width: int, longest_query: int, longest_key: int) -> tuple[Shape, Shape]:
    """For the queries' pass and for the keys': by head width (padded to a power of two), smaller for short runs."""
    of_queries = Shape(128, 64, 8, 3) if width > 64 else Shape(128, 64, 4, 3)
    of_keys = Shape(64, 128, 8, 3) if width > 64 else Shape(64, 128, 4, 3)
    if longest_query <= 64:
        of_queries = of_queries._replace(queries=64, warps=4)
    if longest_key <= 64:
        of_keys = of_keys._replace(keys=64, warps=4)
    return of_queries, of_keys


@triton.jit
def _head(ptr, first, head, row_stride, H: tl.constexpr):  # type: ignore[no-untyped-def]
    """Where a head's part of a run begins; places in the run then fit 32 bits."""
    return ptr + (first.to(tl.int64) * row_stride + head * H)


@triton.jit
def _rows(base, rows, length, row_stride, column, H: tl.constexpr, WIDTH: tl.constexpr):  # type: ignore[no-untyped-def]
    """A tile [rows, columns] of one head; zeros outside the run."""
    mask = (rows < length)[:, None]
    if H < WIDTH:
        mask = mask & (column < H)[None, :]
    return tl.load(base + rows[:, None] * row_stride + column[None, :], mask=mask, other=0.0)


@triton.jit
def _write(base, value, rows, length, row_stride, column, H: tl.constexpr, WIDTH: tl.constexpr):  # type: ignore[no-untyped-def]
    mask = (rows < length)[:, None]
    if H < WIDTH:
        mask = mask & (column < H)[None, :]
    tl.store(base + rows[:, None] * row_stride + column[None, :], value.to(base.dtype.element_ty), mask=mask)


@triton.jit
def _of_queries(  # type: ignore[no-untyped-def]
    q_ptr, k_ptr, v_ptr, out_ptr, grad_ptr, sums_ptr, delta_ptr, dq_ptr, query_ends, key_ends, total, scale,
    q_stride, k_stride, v_stride, N: tl.constexpr, M: tl.constexpr, H: tl.constexpr, WIDTH: tl.constexpr,
    CAUSAL: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    run, head = tl.program_id(0) // N, tl.program_id(0) % N
    q_first, k_first = tl.load(query_ends + run), tl.load(key_ends + run)
    q_length = tl.load(query_ends + run + 1) - q_first
    k_length = tl.load(key_ends + run + 1) - k_first
    start = tl.program_id(1) * QUERIES
    if start < q_length:
        row, column = start + tl.arange(0, QUERIES), tl.arange(0, WIDTH)
        inside = row < q_length
        q = _rows(_head(q_ptr, q_first, head, q_stride, H), row, q_length, q_stride, column, H, WIDTH)
        grad = _rows(_head(grad_ptr, q_first, head, N * H, H), row, q_length, N * H, column, H, WIDTH)
        out = _rows(_head(out_ptr, q_first, head, N * H, H), row, q_length, N * H, column, H, WIDTH)
        delta = tl.sum(grad.to(tl.float32) * out.to(tl.float32), axis=1)
        place = head.to(tl.int64) * total + q_first + row
        tl.store(delta_ptr + place, delta, mask=inside)
        sums = tl.load(sums_ptr + place, mask=inside, other=float("inf")) * _LOG2_E
        total_dq = tl.zeros((QUERIES, WIDTH), dtype=tl.float32)
        k_base = _head(k_ptr, k_first, head // (N // M), k_stride, H)
        v_base = _head(v_ptr, k_first, head // (N // M), v_stride, H)
        end = k_length
        if CAUSAL:
            end = tl.minimum(k_length, start + QUERIES + k_length - q_length)
        for key in range(0, end, KEYS):
            k_row = key + tl.arange(0, KEYS)
            k = _rows(k_base, k_row, k_length, k_stride, column, H, WIDTH)
            v = _rows(v_base, k_row, k_length, v_stride, column, H, WIDTH)
            share = tl.exp2(tl.dot(q, tl.trans(k)) * (scale * _LOG2_E) - sums[:, None])
            seen = (k_row < k_length)[None, :]
            if CAUSAL:
                seen = seen & (k_row[None, :] <= row[:, None] + (k_length - q_length))
            share = tl.where(seen, share, 0.0)
            through = tl.dot(grad, tl.trans(v)) - delta[:, None]
            total_dq += tl.dot((share * through).to(k.dtype), k)
        base = _head(dq_ptr, q_first, head, N * H, H)
        _write(base, total_dq * scale, row, q_length, N * H, column, H, WIDTH)


@triton.jit
def _of_keys(  # type: ignore[no-untyped-def]
    q_ptr, k_ptr, v_ptr, grad_ptr, sums_ptr, delta_ptr, dk_ptr, dv_ptr, query_ends, key_ends, total, scale,
    q_stride, k_stride, v_stride, N: tl.constexpr, M: tl.constexpr, H: tl.constexpr, WIDTH: tl.constexpr,
    CAUSAL: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    run, head = tl.program_id(0) // M, tl.program_id(0) % M
    q_first, k_first = tl.load(query_ends + run), tl.load(key_ends + run)
    q_length = tl.load(query_ends + run + 1) - q_first
    k_length = tl.load(key_ends + run + 1) - k_first
    start = tl.program_id(1) * KEYS
    if start < k_length:
        k_row, column = start + tl.arange(0, KEYS), tl.arange(0, WIDTH)
        k = _rows(_head(k_ptr, k_first, head, k_stride, H), k_row, k_length, k_stride, column, H, WIDTH)
        v = _rows(_head(v_ptr, k_first, head, v_stride, H), k_row, k_length, v_stride, column, H, WIDTH)
        total_dk = tl.zeros((KEYS, WIDTH), dtype=tl.float32)
        total_dv = tl.zeros((KEYS, WIDTH), dtype=tl.float32)
        first = 0
        if CAUSAL:
            first = tl.maximum(start - (k_length - q_length), 0) // QUERIES * QUERIES
        for member in range(N // M):
            q_head = head * (N // M) + member
            q_base = _head(q_ptr, q_first, q_head, q_stride, H)
            grad_base = _head(grad_ptr, q_first, q_head, N * H, H)
            place = q_head.to(tl.int64) * total + q_first
            for query in range(first, q_length, QUERIES):
                row = query + tl.arange(0, QUERIES)
                q = _rows(q_base, row, q_length, q_stride, column, H, WIDTH)
                grad = _rows(grad_base, row, q_length, N * H, column, H, WIDTH)
                sums = tl.load(sums_ptr + place + row, mask=row < q_length, other=float("inf")) * _LOG2_E
                delta = tl.load(delta_ptr + place + row, mask=row < q_length, other=0.0)
                share = tl.exp2(tl.dot(k, tl.trans(q)) * (scale * _LOG2_E) - sums[None, :])
                if CAUSAL:
                    share = tl.where(k_row[:, None] <= row[None, :] + (k_length - q_length), share, 0.0)
                total_dv += tl.dot(share.to(grad.dtype), grad)
                through = tl.dot(v, tl.trans(grad)) - delta[None, :]
                total_dk += tl.dot((share * through).to(q.dtype), q)
        _write(_head(dk_ptr, k_first, head, M * H, H), total_dk * scale, k_row, k_length, M * H, column, H, WIDTH)
        _write(_head(dv_ptr, k_first, head, M * H, H), total_dv, k_row, k_length, M * H, column, H, WIDTH)


def backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    sums: Tensor,
    query_ends: Tensor,
    key_ends: Tensor,
    longest_query: int,
    longest_key: int,
    causal: bool,
    chosen: tuple[Shape, Shape] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """grad, q, out [Q, N, H], k, v [K, M, H], sums float32 [N, Q] (of the exponents, logarithms) -> gradients of q, k
    and v, contiguous. chosen: shapes of tiles, for measuring."""
    heads, kv_heads, head_width = q.shape[1], k.shape[1], q.shape[2]
    width = max(16, triton.next_power_of_2(head_width))
    q, k, v = (_even(x) for x in (q, k, v))
    grad, out, sums = grad.contiguous(), out.contiguous(), sums.contiguous()
    dq = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    dk, dv = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (k, v))
    delta = torch.empty_like(sums)
    runs = len(query_ends) - 1
    if not runs:
        return dq, dk, dv
    common = (query_ends, key_ends, sums.shape[1], head_width**-0.5, q.stride(0), k.stride(0), v.stride(0))
    constant = {"N": heads, "M": kv_heads, "H": head_width, "WIDTH": width, "CAUSAL": causal}
    of_queries, of_keys = chosen or shapes(width, longest_query, longest_key)
    _of_queries[(runs * heads, triton.cdiv(longest_query, of_queries.queries))](
        q, k, v, out, grad, sums, delta, dq, *common, **constant, **_launch(of_queries)
    )
    _of_keys[(runs * kv_heads, triton.cdiv(longest_key, of_keys.keys))](
        q, k, v, grad, sums, delta, dk, dv, *common, **constant, **_launch(of_keys)
    )
    return dq, dk, dv


def _launch(shape: Shape) -> dict[str, int]:
    return {"QUERIES": shape.queries, "KEYS": shape.keys, "num_warps": shape.warps, "num_stages": shape.stages}


def _even(x: Tensor) -> Tensor:
    """Heads side by side in a row, whatever lies between rows."""
    return x if x.stride(2) == 1 and x.stride(1) == x.shape[2] else x.contiguous()
