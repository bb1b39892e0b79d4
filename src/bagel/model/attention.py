"""Attention behind one signature: `attend` for one run of queries; for a training pack `RunAttention`, or
`PackAttention` where that cannot be. PyTorch's own kernels only (cuDNN or flash through SDPA, flash over runs,
FlexAttention with a mask); nothing compiles before its first use.

Letters: Q queries, K keys, N query heads, M key/value heads (N a multiple of M), H head width, T tokens.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bagel.model.varlen import RunGroups, can_run, group_attention, list_keys, reorder
from bagel.runs import PackRuns, Runs
from bagel.sequence import Layout, visible


class QKV(NamedTuple):
    """Queries [T, N, H], keys and values [T, M, H] of one expert's tokens."""

    q: Tensor
    k: Tensor
    v: Tensor


class Attend(Protocol):
    """How the tokens of a pass see each other. Given what both experts ask and offer in one layer, returns
    what their tokens received, [U, N, H] and [G, N, H]. The decoder knows no more of masks or caches."""

    def __call__(self, layer: int, und: QKV, gen: QKV) -> tuple[Tensor, Tensor]: ...


def attend(q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False, mask: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(H)) v: q [Q, N, H], k and v [K, M, H] -> [Q, N, H].

    `causal`: the queries are the last Q of the K keys. `mask`: bool [Q, K], True where q may see k.
    """
    num_q, num_k = len(q), len(k)
    if causal and num_q > 1 and num_q != num_k:  # SDPA's own causal flag aligns the first query, not the last
        mask = torch.ones(num_q, num_k, dtype=torch.bool, device=q.device).tril(num_k - num_q)
    heads_first = [x.transpose(0, 1)[None] for x in (q, k, v)]
    out = F.scaled_dot_product_attention(
        heads_first[0],
        heads_first[1],
        heads_first[2],
        attn_mask=mask,
        is_causal=causal and num_q > 1 and mask is None,
        enable_gqa=q.shape[1] != k.shape[1],
    )
    return out[0].transpose(0, 1)


class PackAttention:
    """Attention over a whole pack without a cache, as in training. FlexAttention skips the blocks that no
    token may see; where it has no backward (the CPU) a dense mask goes through SDPA instead."""

    def __init__(self, layout: Layout, *, flex: bool | None = None) -> None:
        self.num_und = layout.num_und
        self.flex = layout.order.is_cuda if flex is None else flex
        self.mask = _pack_mask(layout) if self.flex else visible(layout, layout)

    def __call__(self, layer: int, und: QKV, gen: QKV) -> tuple[Tensor, Tensor]:
        q, k, v = (torch.cat(pair) for pair in zip(und, gen, strict=True))
        out = _flex(q, k, v, self.mask) if self.flex else attend(q, k, v, mask=self.mask)
        split = und.q.shape[0]
        return out[:split], out[split:]


class RunAttention:
    """Attention over a whole pack as runs of queries over runs of keys: as `PackAttention`, without a mask, and in
    a kernel that is made for it. Takes what `bagel.model.varlen.can_run` says."""

    def __init__(self, runs: PackRuns) -> None:
        self.runs = runs
        self.groups = RunGroups.of_pack(runs)

    def __call__(self, layer: int, und: QKV, gen: QKV) -> tuple[Tensor, Tensor]:
        runs = self.runs
        q = reorder(torch.cat((und.q, gen.q)), runs.order, runs.place)
        k, v = (list_keys(torch.cat(pair), runs) for pair in ((und.k, gen.k), (und.v, gen.v)))
        out = reorder(group_attention(q, k, v, self.groups), runs.place, runs.order)
        split = und.q.shape[0]
        return out[:split], out[split:]


class PictureAttention:
    """Full attention inside each picture of a row of them; `lengths`: patches of each. Where gradients are wanted on
    a GPU one call for all (over runs, or FlexAttention for heads that the former does not take), else picture by
    picture. like: queries, for their device, kind and head width [..., H]."""

    def __init__(self, lengths: Sequence[int], like: Tensor, *, flex: bool | None = None) -> None:
        self.lengths = list(lengths)
        at_once = bool(self.lengths) and like.is_cuda and torch.is_grad_enabled()
        runs = at_once and flex is None and can_run(like.device, like.dtype, like.shape[-1])
        self.groups = _picture_runs(self.lengths, like.device) if runs else None
        masked = at_once and not runs if flex is None else flex
        self.mask = _picture_mask(self.lengths, like.device) if masked and self.lengths else None

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if self.groups is not None:
            return group_attention(q, k, v, self.groups)
        if self.mask is not None:
            return _flex(q, k, v, self.mask)
        if not self.lengths:
            return v
        pictures = zip(*(x.split(self.lengths) for x in (q, k, v)), strict=True)
        return torch.cat([attend(*picture) for picture in pictures])


def _picture_runs(lengths: Sequence[int], device: torch.device) -> RunGroups:
    each, patches = np.array(lengths), sum(lengths)
    return RunGroups.one(Runs.of(each, each).to(device), patches, patches, causal=False)


def _flex(q: Tensor, k: Tensor, v: Tensor, mask: Any) -> Tensor:
    """FlexAttention; compiled on its own unless a compiled block around it does that."""
    from torch.nn.attention.flex_attention import flex_attention

    call = flex_attention if torch.compiler.is_compiling() else _compiled_flex()
    q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
    out: Tensor = call(q, k, v, block_mask=mask, enable_gqa=q.shape[1] != k.shape[1])  # type: ignore[operator]
    return out[0].transpose(0, 1)


@functools.cache
def _compiled_flex() -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=True)


def _pack_mask(layout: Layout) -> Any:
    """The rule of `sequence.may_attend` for FlexAttention, one mask for all heads, in fewer numbers: q sees
    the keys from the `first` token of its sample to the `last` it may see (itself, or the end of its full
    segment), and of those that a hidden segment owns only its own. int32 [T] each."""
    order, owner = layout.order.int(), torch.where(layout.hidden, layout.segment, -1).int()
    first = _per_group(layout.sample, layout.order, "amin")
    last = torch.where(layout.full, _per_group(layout.segment, layout.order, "amax"), order)
    segment = layout.segment.int()

    def rule(batch: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        reachable = (first[q] <= order[k]) & (order[k] <= last[q])
        return reachable & ((owner[k] < 0) | (owner[k] == segment[q]))

    return _block_mask(rule, len(layout), order.device)


def _per_group(group: Tensor, order: Tensor, reduce: str) -> Tensor:
    """For every token the first or last `order` of its group: int64 [T] ids below T -> int32 [T]."""
    best = torch.empty_like(order).scatter_reduce(0, group, order, reduce, include_self=False)
    return best[group].int()


def _picture_mask(lengths: Sequence[int], device: torch.device) -> Any:
    size = sum(lengths)
    sizes = torch.tensor(lengths, device=device)
    picture = torch.arange(len(lengths), device=device, dtype=torch.int32).repeat_interleave(sizes, output_size=size)

    def rule(batch: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return picture[q] == picture[k]

    return _block_mask(rule, size, device)


def _block_mask(rule: Callable[..., Tensor], size: int, device: torch.device) -> Any:
    """On a GPU compiled, so that the size x size mask is never written out."""
    from torch.nn.attention.flex_attention import create_block_mask

    return create_block_mask(
        rule, B=None, H=None, Q_LEN=size, KV_LEN=size, device=device, _compile=device.type == "cuda"
    )
