"""Attention over runs of varied length (see `bagel.runs`), with gradients.

On a GPU kernels of our own, or FlashAttention-2 as PyTorch ships it; elsewhere, and as its definition, run by run in
plain PyTorch. Each is an operator, so that `torch.compile` and selective recomputation see one call.

Letters: Q queries and K keys of all runs end to end, R runs, N query heads, M key/value heads, H head width; T rows
of a pack, L keys listed from them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.torch_version import TorchVersion

from bagel.model.kernels import has_triton
from bagel.runs import PackRuns, Runs

Gradients = tuple[Tensor, Tensor, Tensor]
"""Of queries, keys and values."""


class RunGroups(NamedTuple):
    """Groups of runs end to end, as the operator takes them. ends: query_ends and key_ends of each group; sizes: int64
    in host memory, for each group its queries and keys, the longest run of both, and 1 if it is causal. Not plain
    numbers: of those a compiler makes new graphs for 0 and 1, and looks at each before every call."""

    ends: list[Tensor]
    sizes: Tensor

    @classmethod
    def one(cls, runs: Runs, queries: int, keys: int, causal: bool) -> RunGroups:
        sizes = [queries, keys, runs.longest_query, runs.longest_key, int(causal)]
        return cls([runs.query_ends, runs.key_ends], torch.tensor(sizes))

    @classmethod
    def of_pack(cls, runs: PackRuns) -> RunGroups:
        """Full runs, then causal ones."""
        queries, keys = runs.num_full, runs.num_full_keys
        full = cls.one(runs.full, queries, keys, False)
        causal = cls.one(runs.causal, len(runs.order) - queries, len(runs.keys) - keys, True)
        return cls(full.ends + causal.ends, torch.cat((full.sizes, causal.sizes)))


def run_attention(q: Tensor, k: Tensor, v: Tensor, runs: Runs, causal: bool) -> Tensor:
    """q [Q, N, H], k and v [K, M, H] -> [Q, N, H]: each run of queries over its own run of keys, the last query
    seeing the last key. On a GPU bf16 or float16 with H a multiple of 8."""
    return group_attention(q, k, v, RunGroups.one(runs, len(q), len(k), causal))


def group_attention(q: Tensor, k: Tensor, v: Tensor, groups: RunGroups) -> Tensor:
    """`run_attention` for groups of runs, causal or not."""
    out: Tensor = _attention(q, k, v, groups.ends, groups.sizes)[0]
    return out


def can_run(device: torch.device, dtype: torch.dtype, head_width: int) -> bool:
    """Whether the kernel of a GPU takes such heads. PyTorch before 2.9 gives its sums in another shape."""
    if device.type != "cuda" or torch.version.hip is not None or TorchVersion(torch.__version__) < "2.9":
        return False
    return dtype in (torch.bfloat16, torch.float16) and head_width % 8 == 0


def reorder(x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
    """x[order] of a permutation: its gradient is a gather too, not a scatter."""
    return _Reorder.apply(x, order, inverse)


def take_rows(x: Tensor, rows: Tensor) -> Tensor:
    """x[rows] of rows that are all different: the gradient is written, not summed."""
    return _TakeRows.apply(x, rows)


def list_keys(x: Tensor, runs: PackRuns) -> Tensor:
    """x [T, ...] -> [L, ...], the keys as the runs see them. The gradient of a row is the sum over its copies, in
    their order: the same numbers every time."""
    return _ListKeys.apply(x, runs.keys, runs.copies, runs.copy_ends)


class _Reorder(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        return x[order]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad[ctx.saved_tensors[0]], None, None


class _TakeRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.count = len(x)
        return x[rows]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        whole = grad.new_zeros(ctx.count, *grad.shape[1:])
        return whole.index_copy(0, ctx.saved_tensors[0], grad), None


class _ListKeys(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, keys: Tensor, copies: Tensor, copy_ends: Tensor) -> Tensor:
        ctx.save_for_backward(copies, copy_ends)
        return x[keys]  # not an operator of ours: a plain gather may be fused, and made again instead of kept

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        summed: Tensor = _sum_copies(grad, *ctx.saved_tensors)
        return summed, None, None, None


@torch.library.custom_op("bagel::sum_copies", mutates_args=())
def _sum_copies(grad: Tensor, copies: Tensor, copy_ends: Tensor) -> Tensor:
    """grad [L, ...] -> [T, ...]: a row's sum over its copies, in their order, in float32, rounded once; zeros for a
    row without any. Every number is summed by one thread on any device."""
    if not len(grad):
        return grad.new_zeros(len(copy_ends) - 1, *grad.shape[1:])
    if grad.is_cuda and has_triton():
        from bagel.model.triton_copies import sum_copies

        return sum_copies(grad, copies, copy_ends)
    summed = torch.segment_reduce(grad[copies].float(), "sum", offsets=copy_ends, unsafe=True)
    return summed.to(grad.dtype)


@_sum_copies.register_fake
def _(grad: Tensor, copies: Tensor, copy_ends: Tensor) -> Tensor:
    return grad.new_empty(copy_ends.shape[0] - 1, *grad.shape[1:])


@torch.library.custom_op("bagel::run_attention", mutates_args=())
def _attention(q: Tensor, k: Tensor, v: Tensor, ends: Sequence[Tensor], sizes: Tensor) -> tuple[Tensor, Tensor]:
    """-> what the queries receive, and the logarithm of their sums, float32 [N, Q]. See `RunGroups`."""
    out, sums = (
        torch.empty(q.shape, dtype=q.dtype, device=q.device),
        q.new_empty(q.shape[1], len(q), dtype=torch.float32),
    )
    for queries, keys, *rest in _groups(ends, sizes):
        forward((out[queries], sums[:, queries]), q[queries], k[keys], v[keys], *rest)
    return out, sums


@_attention.register_fake
def _(q: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape), q.new_empty(q.shape[1], q.shape[0], dtype=torch.float32)


@torch.library.custom_op("bagel::run_attention_backward", mutates_args=())
def _attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, sums: Tensor, ends: Sequence[Tensor], sizes: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    dq, dk, dv = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))
    for queries, keys, *rest in _groups(ends, sizes):
        into = dq[queries], dk[keys], dv[keys]
        backward(into, grad[queries], q[queries], k[keys], v[keys], out[queries], sums[:, queries], *rest)
    return dq, dk, dv


@_attention_backward.register_fake
def _(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _groups(ends: Sequence[Tensor], sizes: Tensor) -> Iterator[tuple[Any, ...]]:
    """For each group that has queries: its rows of all queries and of all keys, its ends, its longest runs, and
    whether it is causal. A pack of text alone has no full runs, and the kernel refuses none."""
    query, key = 0, 0
    numbers = sizes.tolist()
    for group in range(len(ends) // 2):
        queries, keys, longest_query, longest_key, causal = numbers[5 * group : 5 * group + 5]
        rows = slice(query, query + queries), slice(key, key + keys)
        query, key = query + queries, key + keys
        if queries:
            yield *rows, *ends[2 * group : 2 * group + 2], longest_query, longest_key, bool(causal)


def forward(
    into: tuple[Tensor, Tensor],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    query_ends: Tensor,
    key_ends: Tensor,
    longest_query: int,
    longest_key: int,
    causal: bool,
) -> None:
    """Of runs of one kind, at least one: writes what the queries receive, and the logarithms of their sums. On a GPU
    one run alone, a few queries behind a long context, is FlashAttention-2's, which shares its keys out."""
    if q.is_cuda and has_triton() and len(query_ends) > 2:
        from bagel.model import triton_runs

        triton_runs.forward(q, k, v, query_ends, key_ends, longest_query, causal, into)
        return
    if q.is_cuda:
        made = torch.ops.aten._flash_attention_forward(
            q, k, v, query_ends, key_ends, longest_query, longest_key, 0.0, causal, False
        )[:2]
    else:
        outs, sums = zip(*(_one(*one, causal) for one in _each(q, k, v, query_ends, key_ends)), strict=True)
        made = torch.cat(outs), torch.cat(sums, dim=1)
    for place, value in zip(into, made, strict=True):
        place.copy_(value)


def backward(
    into: Gradients,
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
) -> None:
    """Writes the gradients of q, k and v of such runs. On a GPU the same numbers every time with Triton; without it
    FlashAttention's own backward, whose sums vary in their last bits."""
    known = out, sums, query_ends, key_ends, longest_query, longest_key
    if q.is_cuda and has_triton():
        from bagel.model import triton_runs

        triton_runs.backward(grad, q, k, v, *known, causal, into)
        return
    made = (_flash_backward if q.is_cuda else _plain_backward)(grad, q, k, v, *known, causal)
    for place, gradient in zip(into, made, strict=True):
        place.copy_(gradient)


def _flash_backward(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, sums: Tensor, *rest: Any) -> Gradients:
    *known, causal = rest
    unused = torch.zeros(2, dtype=torch.uint64, device=q.device)
    made = torch.ops.aten._flash_attention_backward(
        grad.contiguous(), q, k, v, out, sums.contiguous(), *known, 0.0, causal, unused, unused
    )
    return made[0], made[1], made[2]


def _plain_backward(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, sums: Tensor, *rest: Any) -> Gradients:
    query_ends, key_ends, _, _, causal = rest
    ends = query_ends.tolist()
    made = [
        _one_backward(grad[first:last], *one, out[first:last], sums[:, first:last], causal)
        for first, last, one in zip(ends, ends[1:], _each(q, k, v, query_ends, key_ends), strict=False)
    ]
    dq, dk, dv = (torch.cat(parts) for parts in zip(*made, strict=True))
    return dq, dk, dv


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, ends, sizes = inputs
    ctx.save_for_backward(q, k, v, *output, sizes, *ends)


def _gradients(ctx: Any, grad: Tensor, grad_sums: Any) -> tuple[Any, ...]:
    q, k, v, out, sums, sizes, *ends = ctx.saved_tensors
    return *_attention_backward(grad, q, k, v, out, sums, ends, sizes), [None] * len(ends), None


_attention.register_autograd(_gradients, setup_context=_keep)


def _each(q: Tensor, k: Tensor, v: Tensor, query_ends: Tensor, key_ends: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    lengths = [(ends[1:] - ends[:-1]).tolist() for ends in (query_ends, key_ends)]
    return list(zip(q.split(lengths[0]), k.split(lengths[1]), v.split(lengths[1]), strict=True))


def _one(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    """One run, in float32."""
    scores, wide = _scores(q, k, causal), _widened(v, q)
    received = torch.einsum("nqk,knh->qnh", F.softmax(scores, dim=-1), wide)
    return received.to(q.dtype), scores.logsumexp(-1)


def _one_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, sums: Tensor, causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """FlashAttention's backward (arXiv 2205.14135, algorithm 4), one run at once."""
    grad, scale = grad.float(), q.shape[2] ** -0.5
    share = (_scores(q, k, causal) - sums[..., None]).exp()
    through = torch.einsum("qnh,knh->nqk", grad, _widened(v, q)) - (grad * out.float()).sum(-1).t()[..., None]
    to_scores = share * through * scale
    dq = torch.einsum("nqk,knh->qnh", to_scores, _widened(k, q))
    dk = torch.einsum("nqk,qnh->knh", to_scores, q.float())
    dv = torch.einsum("nqk,qnh->knh", share, grad)
    return dq.to(q.dtype), _narrowed(dk, k), _narrowed(dv, v)


def _scores(q: Tensor, k: Tensor, causal: bool) -> Tensor:
    """float32 [N, Q, K]; -inf for what is not seen."""
    scores = torch.einsum("qnh,knh->nqk", q.float(), _widened(k, q)) * q.shape[2] ** -0.5
    if causal:
        seen = torch.ones(len(q), len(k), dtype=torch.bool, device=q.device).tril(len(k) - len(q))
        scores = scores.masked_fill(~seen, float("-inf"))
    return scores


def _widened(x: Tensor, q: Tensor) -> Tensor:
    """Key or value heads, each as often as there are query heads for it: float32 [K, N, H]."""
    return x.float().repeat_interleave(q.shape[1] // x.shape[1], dim=1)


def _narrowed(wide: Tensor, like: Tensor) -> Tensor:
    return wide.unflatten(1, (like.shape[1], -1)).sum(2).to(like.dtype)
