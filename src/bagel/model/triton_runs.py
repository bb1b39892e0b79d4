"""Attention over runs in Triton, forward and backward, as FlashAttention-2 (arXiv 2307.08691) but without atomic sums:
every number is summed by one program in one order, so that a resumed run goes on with the same bits. In its backward
many programs add to the queries' gradients at once; here they have a pass of their own, seven products where it needs
five, which costs less than its orderly mode on runs of unequal length.

Letters: Q queries and K keys of all runs end to end, R runs, N query heads, M key/value heads, H head width.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from bagel.model.run_tiles import Shape, forward_shape, shapes, widths

_LOG2_E: tl.constexpr = tl.constexpr(1.4426950408889634)
_LN_2: tl.constexpr = tl.constexpr(0.6931471805599453)


@triton.jit
def _head(ptr, first, head, row_stride, H: tl.constexpr):  # type: ignore[no-untyped-def]
    """Where a head's part of a run begins; places in the run then fit 32 bits."""
    return ptr + (first.to(tl.int64) * row_stride + head * H)


@triton.jit
def _rows(base, rows, length, row_stride, first: tl.constexpr, H: tl.constexpr, WIDTH: tl.constexpr):  # type: ignore[no-untyped-def]
    """A tile of one head, WIDTH columns from `first`; zeros outside the run and the head."""
    column = first + tl.arange(0, WIDTH)
    mask = (rows < length)[:, None]
    if first + WIDTH > H:
        mask = mask & (column < H)[None, :]
    return tl.load(base + rows[:, None] * row_stride + column[None, :], mask=mask, other=0.0)


@triton.jit
def _write(base, value, rows, length, row_stride, first: tl.constexpr, H: tl.constexpr, WIDTH: tl.constexpr):  # type: ignore[no-untyped-def]
    column = first + tl.arange(0, WIDTH)
    mask = (rows < length)[:, None]
    if first + WIDTH > H:
        mask = mask & (column < H)[None, :]
    tl.store(base + rows[:, None] * row_stride + column[None, :], value.to(base.dtype.element_ty), mask=mask)


@triton.jit
def _forward(  # type: ignore[no-untyped-def]
    q_ptr, k_ptr, v_ptr, out_ptr, sums_ptr, query_ends, key_ends, total, scale, q_stride, k_stride, v_stride,
    N: tl.constexpr, M: tl.constexpr, H: tl.constexpr, WIDTH: tl.constexpr, REST: tl.constexpr,
    CAUSAL: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    run, head = tl.program_id(0) // N, tl.program_id(0) % N
    q_first, k_first = tl.load(query_ends + run), tl.load(key_ends + run)
    q_length = tl.load(query_ends + run + 1) - q_first
    k_length = tl.load(key_ends + run + 1) - k_first
    start = tl.program_id(1) * QUERIES
    if start < q_length:
        row = start + tl.arange(0, QUERIES)
        q_base = _head(q_ptr, q_first, head, q_stride, H)
        k_base = _head(k_ptr, k_first, head // (N // M), k_stride, H)
        v_base = _head(v_ptr, k_first, head // (N // M), v_stride, H)
        q = _rows(q_base, row, q_length, q_stride, 0, H, WIDTH)
        highest = tl.full((QUERIES,), float("-inf"), dtype=tl.float32)
        sums = tl.zeros((QUERIES,), dtype=tl.float32)
        out = tl.zeros((QUERIES, WIDTH), dtype=tl.float32)
        if REST > 0:
            q_rest = _rows(q_base, row, q_length, q_stride, WIDTH, H, REST)
            out_rest = tl.zeros((QUERIES, REST), dtype=tl.float32)
        end = k_length
        if CAUSAL:  # every query sees the first key
            end = tl.minimum(k_length, start + QUERIES + k_length - q_length)
        for key in range(0, end, KEYS):
            k_row = key + tl.arange(0, KEYS)
            scores = tl.dot(q, tl.trans(_rows(k_base, k_row, k_length, k_stride, 0, H, WIDTH)))
            if REST > 0:
                k_rest = _rows(k_base, k_row, k_length, k_stride, WIDTH, H, REST)
                scores = tl.dot(q_rest, tl.trans(k_rest), scores)
            seen = (k_row < k_length)[None, :]
            if CAUSAL:
                seen = seen & (k_row[None, :] <= row[:, None] + (k_length - q_length))
            scores = tl.where(seen, scores * (scale * _LOG2_E), float("-inf"))
            higher = tl.maximum(highest, tl.max(scores, axis=1))
            share, fade = tl.exp2(scores - higher[:, None]), tl.exp2(highest - higher)
            highest, sums = higher, sums * fade + tl.sum(share, axis=1)
            v = _rows(v_base, k_row, k_length, v_stride, 0, H, WIDTH)
            out = tl.dot(share.to(v.dtype), v, out * fade[:, None])
            if REST > 0:
                v_rest = _rows(v_base, k_row, k_length, v_stride, WIDTH, H, REST)
                out_rest = tl.dot(share.to(v.dtype), v_rest, out_rest * fade[:, None])
        place = head.to(tl.int64) * total + q_first + row
        tl.store(sums_ptr + place, (highest + tl.log2(sums)) * _LN_2, mask=row < q_length)
        base = _head(out_ptr, q_first, head, N * H, H)
        _write(base, out / sums[:, None], row, q_length, N * H, 0, H, WIDTH)
        if REST > 0:
            _write(base, out_rest / sums[:, None], row, q_length, N * H, WIDTH, H, REST)


@triton.jit
def _of_queries(  # type: ignore[no-untyped-def]
    q_ptr, k_ptr, v_ptr, out_ptr, grad_ptr, sums_ptr, delta_ptr, dq_ptr, query_ends, key_ends, total, scale,
    q_stride, k_stride, v_stride, N: tl.constexpr, M: tl.constexpr, H: tl.constexpr, WIDTH: tl.constexpr,
    REST: tl.constexpr, CAUSAL: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    run, head = tl.program_id(0) // N, tl.program_id(0) % N
    q_first, k_first = tl.load(query_ends + run), tl.load(key_ends + run)
    q_length = tl.load(query_ends + run + 1) - q_first
    k_length = tl.load(key_ends + run + 1) - k_first
    start = tl.program_id(1) * QUERIES
    if start < q_length:
        row = start + tl.arange(0, QUERIES)
        inside = row < q_length
        q_base, grad_base = _head(q_ptr, q_first, head, q_stride, H), _head(grad_ptr, q_first, head, N * H, H)
        out_base = _head(out_ptr, q_first, head, N * H, H)
        q = _rows(q_base, row, q_length, q_stride, 0, H, WIDTH)
        grad = _rows(grad_base, row, q_length, N * H, 0, H, WIDTH)
        out = _rows(out_base, row, q_length, N * H, 0, H, WIDTH)
        delta = tl.sum(grad.to(tl.float32) * out.to(tl.float32), axis=1)
        dq = tl.zeros((QUERIES, WIDTH), dtype=tl.float32)
        if REST > 0:
            q_rest = _rows(q_base, row, q_length, q_stride, WIDTH, H, REST)
            grad_rest = _rows(grad_base, row, q_length, N * H, WIDTH, H, REST)
            out_rest = _rows(out_base, row, q_length, N * H, WIDTH, H, REST)
            delta += tl.sum(grad_rest.to(tl.float32) * out_rest.to(tl.float32), axis=1)
            dq_rest = tl.zeros((QUERIES, REST), dtype=tl.float32)
        place = head.to(tl.int64) * total + q_first + row
        tl.store(delta_ptr + place, delta, mask=inside)
        sums = tl.load(sums_ptr + place, mask=inside, other=float("inf")) * _LOG2_E
        k_base = _head(k_ptr, k_first, head // (N // M), k_stride, H)
        v_base = _head(v_ptr, k_first, head // (N // M), v_stride, H)
        end = k_length
        if CAUSAL:
            end = tl.minimum(k_length, start + QUERIES + k_length - q_length)
        for key in range(0, end, KEYS):
            k_row = key + tl.arange(0, KEYS)
            k = _rows(k_base, k_row, k_length, k_stride, 0, H, WIDTH)
            v = _rows(v_base, k_row, k_length, v_stride, 0, H, WIDTH)
            scores = tl.dot(q, tl.trans(k))
            through = tl.dot(grad, tl.trans(v))
            if REST > 0:
                k_rest = _rows(k_base, k_row, k_length, k_stride, WIDTH, H, REST)
                v_rest = _rows(v_base, k_row, k_length, v_stride, WIDTH, H, REST)
                scores = tl.dot(q_rest, tl.trans(k_rest), scores)
                through = tl.dot(grad_rest, tl.trans(v_rest), through)
            share = tl.exp2(scores * (scale * _LOG2_E) - sums[:, None])
            seen = (k_row < k_length)[None, :]
            if CAUSAL:
                seen = seen & (k_row[None, :] <= row[:, None] + (k_length - q_length))
            share = tl.where(seen, share, 0.0)
            to_scores = (share * (through - delta[:, None])).to(k.dtype)
            dq = tl.dot(to_scores, k, dq)
            if REST > 0:
                dq_rest = tl.dot(to_scores, k_rest, dq_rest)
        base = _head(dq_ptr, q_first, head, N * H, H)
        _write(base, dq * scale, row, q_length, N * H, 0, H, WIDTH)
        if REST > 0:
            _write(base, dq_rest * scale, row, q_length, N * H, WIDTH, H, REST)


@triton.jit
def _of_keys(  # type: ignore[no-untyped-def]
    q_ptr, k_ptr, v_ptr, grad_ptr, sums_ptr, delta_ptr, dk_ptr, dv_ptr, query_ends, key_ends, total, scale,
    q_stride, k_stride, v_stride, N: tl.constexpr, M: tl.constexpr, H: tl.constexpr, WIDTH: tl.constexpr,
    REST: tl.constexpr, CAUSAL: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    run, head = tl.program_id(0) // M, tl.program_id(0) % M
    q_first, k_first = tl.load(query_ends + run), tl.load(key_ends + run)
    q_length = tl.load(query_ends + run + 1) - q_first
    k_length = tl.load(key_ends + run + 1) - k_first
    start = tl.program_id(1) * KEYS
    if start < k_length:
        k_row = start + tl.arange(0, KEYS)
        k_base, v_base = _head(k_ptr, k_first, head, k_stride, H), _head(v_ptr, k_first, head, v_stride, H)
        k = _rows(k_base, k_row, k_length, k_stride, 0, H, WIDTH)
        v = _rows(v_base, k_row, k_length, v_stride, 0, H, WIDTH)
        dk = tl.zeros((KEYS, WIDTH), dtype=tl.float32)
        dv = tl.zeros((KEYS, WIDTH), dtype=tl.float32)
        if REST > 0:
            k_rest = _rows(k_base, k_row, k_length, k_stride, WIDTH, H, REST)
            v_rest = _rows(v_base, k_row, k_length, v_stride, WIDTH, H, REST)
            dk_rest = tl.zeros((KEYS, REST), dtype=tl.float32)
            dv_rest = tl.zeros((KEYS, REST), dtype=tl.float32)
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
                q = _rows(q_base, row, q_length, q_stride, 0, H, WIDTH)
                grad = _rows(grad_base, row, q_length, N * H, 0, H, WIDTH)
                sums = tl.load(sums_ptr + place + row, mask=row < q_length, other=float("inf")) * _LOG2_E
                delta = tl.load(delta_ptr + place + row, mask=row < q_length, other=0.0)
                scores = tl.dot(k, tl.trans(q))
                if REST > 0:
                    q_rest = _rows(q_base, row, q_length, q_stride, WIDTH, H, REST)
                    grad_rest = _rows(grad_base, row, q_length, N * H, WIDTH, H, REST)
                    scores = tl.dot(k_rest, tl.trans(q_rest), scores)
                share = tl.exp2(scores * (scale * _LOG2_E) - sums[None, :])
                if CAUSAL:
                    share = tl.where(k_row[:, None] <= row[None, :] + (k_length - q_length), share, 0.0)
                dv = tl.dot(share.to(grad.dtype), grad, dv)
                through = tl.dot(v, tl.trans(grad))
                if REST > 0:
                    dv_rest = tl.dot(share.to(grad.dtype), grad_rest, dv_rest)
                    through = tl.dot(v_rest, tl.trans(grad_rest), through)
                to_scores = (share * (through - delta[None, :])).to(q.dtype)
                dk = tl.dot(to_scores, q, dk)
                if REST > 0:
                    dk_rest = tl.dot(to_scores, q_rest, dk_rest)
        dk_base, dv_base = _head(dk_ptr, k_first, head, M * H, H), _head(dv_ptr, k_first, head, M * H, H)
        _write(dk_base, dk * scale, k_row, k_length, M * H, 0, H, WIDTH)
        _write(dv_base, dv, k_row, k_length, M * H, 0, H, WIDTH)
        if REST > 0:
            _write(dk_base, dk_rest * scale, k_row, k_length, M * H, WIDTH, H, REST)
            _write(dv_base, dv_rest, k_row, k_length, M * H, WIDTH, H, REST)


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    query_ends: Tensor,
    key_ends: Tensor,
    longest_query: int,
    causal: bool,
    into: tuple[Tensor, Tensor],
    chosen: Shape | None = None,
) -> None:
    """At least one run. q [Q, N, H], k, v [K, M, H]. into: what the queries receive, contiguous, and their sums (see
    `backward`), whose rows may lie apart. chosen: the shape of a tile, for measuring."""
    heads, kv_heads, head_width = q.shape[1], k.shape[1], q.shape[2]
    width, rest = widths(head_width)
    q, k, v = (_even(x) for x in (q, k, v))
    out, sums = into
    shape = chosen or forward_shape(width, longest_query, causal)
    _forward[((len(query_ends) - 1) * heads, triton.cdiv(longest_query, shape.queries))](
        q, k, v, out, sums, query_ends, key_ends, sums.stride(0), head_width**-0.5, q.stride(0), k.stride(0),
        v.stride(0), N=heads, M=kv_heads, H=head_width, WIDTH=width, REST=rest, CAUSAL=causal, **_launch(shape),
    )  # fmt: skip


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
    into: tuple[Tensor, Tensor, Tensor],
    chosen: tuple[Shape, Shape] | None = None,
) -> None:
    """At least one run. grad, q, out [Q, N, H], k, v [K, M, H], sums float32 [N, Q] (logarithms of the sums of the
    exponentials). into: contiguous, where the gradients of q, k and v are written. chosen: shapes of tiles, for
    measuring."""
    heads, kv_heads, head_width = q.shape[1], k.shape[1], q.shape[2]
    width, rest = widths(head_width)
    q, k, v = (_even(x) for x in (q, k, v))
    grad, out = grad.contiguous(), out.contiguous()
    dq, dk, dv = into
    delta = torch.empty_strided(sums.shape, sums.stride(), dtype=sums.dtype, device=sums.device)
    runs = len(query_ends) - 1
    common = (query_ends, key_ends, sums.stride(0), head_width**-0.5, q.stride(0), k.stride(0), v.stride(0))
    constant = {"N": heads, "M": kv_heads, "H": head_width, "WIDTH": width, "REST": rest, "CAUSAL": causal}
    of_queries, of_keys = chosen or shapes(width, longest_query, longest_key, causal)
    _of_queries[(runs * heads, triton.cdiv(longest_query, of_queries.queries))](
        q, k, v, out, grad, sums, delta, dq, *common, **constant, **_launch(of_queries)
    )
    _of_keys[(runs * kv_heads, triton.cdiv(longest_key, of_keys.keys))](
        q, k, v, grad, sums, delta, dk, dv, *common, **constant, **_launch(of_keys)
    )


def _launch(shape: Shape) -> dict[str, int]:
    return {"QUERIES": shape.queries, "KEYS": shape.keys, "num_warps": shape.warps, "num_stages": shape.stages}


def _even(x: Tensor) -> Tensor:
    """Heads side by side in a row, whatever lies between rows."""
    return x if x.stride(2) == 1 and x.stride(1) == x.shape[2] else x.contiguous()
