"""Attention behind one signature: `attend` for one run of queries, `PackAttention` for a training pack.
PyTorch's own kernels only (cuDNN or flash through SDPA, FlexAttention for packs); nothing compiles before
its first use.

Letters: Q queries, K keys, N query heads, M key/value heads (N a multiple of M), H head width, T tokens.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from bagel.sequence import Layout, may_attend, visible


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
        self.mask = _block_mask(layout) if self.flex else visible(layout, layout)

    def __call__(self, layer: int, und: QKV, gen: QKV) -> tuple[Tensor, Tensor]:
        q, k, v = (torch.cat(pair) for pair in zip(und, gen, strict=True))
        if self.flex:
            heads_first = (x.transpose(0, 1)[None] for x in (q, k, v))
            out = _flex_attention()(*heads_first, block_mask=self.mask, enable_gqa=q.shape[1] != k.shape[1])
            out = out[0].transpose(0, 1)
        else:
            out = attend(q, k, v, mask=self.mask)
        return out[: self.num_und], out[self.num_und :]


@functools.cache
def _flex_attention() -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


def _block_mask(layout: Layout) -> Any:
    """The attention rule for FlexAttention; one mask for all heads."""
    from torch.nn.attention.flex_attention import create_block_mask

    order, sample, segment, full, hidden = (
        layout.order, layout.sample, layout.segment, layout.full, layout.hidden
    )  # fmt: skip

    def rule(batch: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return may_attend(order[q], sample[q], segment[q], full[q], order[k], sample[k], segment[k], hidden[k])

    size = len(layout)
    return create_block_mask(rule, B=None, H=None, Q_LEN=size, KV_LEN=size, device=order.device)
