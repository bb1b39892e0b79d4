"""The Mixture-of-Transformers decoder: two experts in every layer, one attention over the tokens of both.

The experts' tokens travel as two tensors, so that each expert is a plain sequence of products on its own
rows and nothing is gathered or scattered. In a dense model the second expert *is* the first; in a MoE model
it shares everything but the MLP.

Letters: U und tokens, G gen tokens, T either, N query heads, M key/value heads, H head width, D model width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from bagel.model.attention import QKV, Attend
from bagel.model.config import Layers, LLMConfig
from bagel.model.kernels import norm_and_rotate
from bagel.model.layers import RMSNorm, Rotary, SwiGLU, add_linear, norm_then
from bagel.model.varlen import take_rows

Angles = tuple[Tensor, Tensor]


class Share(Protocol):
    """Some of a layer's heads and of its MLP's inner numbers; others hold the rest. `adds`: whether this one's
    products carry the residual stream, as one of them must."""

    adds: bool

    def slices(self, rows: int) -> list[slice]:
        """How many rows are summed at a time."""

    def sum(self, x: Tensor) -> Callable[[], object]:
        """Begins to sum x over all shares, in place; the call of what is returned waits for it."""


class Read(NamedTuple):
    """Rows of each expert's tokens, int64, all different, that are read after the last layer; None for all."""

    und: Tensor | None
    gen: Tensor | None


class Expert(nn.Module):
    """One expert's half of a layer: everything but the attention itself. Query, key and value are one
    product: rows [q; k; v] of one weight."""

    def __init__(self, config: LLMConfig) -> None:
        super().__init__()
        width, self.head_dim = config.hidden_size, config.head_dim
        self.heads = (config.num_attention_heads, config.num_key_value_heads, config.num_key_value_heads)
        self.input_norm = RMSNorm(width, config.rms_norm_eps)
        self.qkv = nn.Linear(width, sum(self.heads) * self.head_dim)
        self.q_norm = RMSNorm(self.head_dim, config.rms_norm_eps)
        self.k_norm = RMSNorm(self.head_dim, config.rms_norm_eps)
        self.o = nn.Linear(config.num_attention_heads * self.head_dim, width, bias=False)
        self.post_norm = RMSNorm(width, config.rms_norm_eps)
        self.mlp = SwiGLU(width, config.intermediate_size)
        self.share: Share | None = None  # set where the weights here are a share of the layer's

    def project(self, x: Tensor, angles: Angles) -> QKV:
        """x [T, D] -> normalised, rotated queries and keys, and values."""
        if _idle(x):
            return QKV(*(x.new_empty(0, count, self.head_dim) for count in self.heads))
        heads = self.product(x)
        counts = self.heads[:2]
        weights = self.q_norm.weight, self.k_norm.weight
        q, k = norm_and_rotate(heads, weights, counts, *angles, self.q_norm.eps)
        return QKV(q, k, heads[:, sum(counts) :])

    def product(self, x: Tensor) -> Tensor:
        """x [T, D] -> queries, keys and values before their norms and rotation, [T, N + 2 M, H]."""
        return norm_then(x, self.input_norm, self.qkv).unflatten(-1, (-1, self.head_dim))

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """Adds what attention gave [T, N, H] and the MLP's answer to the residual stream x [T, D], in its place where
        no gradient is wanted."""
        if _idle(x):
            return x
        if self.share is not None:
            return self._finish_shared(x, attended.flatten(1), self.share)
        x = add_linear(x, self.o, attended.flatten(1))
        return self.mlp.add_to(x, self.post_norm)

    def _finish_shared(self, x: Tensor, attended: Tensor, share: Share) -> Tensor:
        """Slice by slice: while one is summed, the next is computed."""
        rows = share.slices(len(x))
        streams: list[Tensor] = []
        sums: list[Callable[[], object]] = []
        for some in rows:
            streams.append(add_linear(x[some] if share.adds else None, self.o, attended[some]))
            sums.append(share.sum(streams[-1]))
        done: list[Callable[[], object]] = []
        for number, wait in enumerate(sums):
            wait()
            streams[number] = self.mlp.add_to(streams[number], self.post_norm, add=share.adds)
            done.append(share.sum(streams[number]))
        for wait in done:
            wait()
        return streams[0] if len(streams) == 1 else torch.cat(streams)

    def share_all_but_mlp(self, other: Expert) -> None:
        for name, module in other.named_children():
            if name != "mlp":
                setattr(self, name, module)


def _idle(x: Tensor) -> bool:
    """No tokens for this expert. In training it runs all the same: under FSDP every rank must gather and
    reduce the same weights."""
    return len(x) == 0 and not torch.is_grad_enabled()


class Block(nn.Module):
    """One layer: each expert projects its tokens, all tokens attend, each expert finishes its own."""

    def __init__(self, config: LLMConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.und = Expert(config)
        self.gen = self.und if config.layers is Layers.DENSE else Expert(config)
        if config.layers is Layers.MOE:
            self.gen.share_all_but_mlp(self.und)

    def forward(
        self, und: Tensor, gen: Tensor, und_angles: Angles, gen_angles: Angles, attend: Attend, read: Read | None = None
    ) -> tuple[Tensor, Tensor]:
        und_seen, gen_seen = attend(self.layer, self.und.project(und, und_angles), self.gen.project(gen, gen_angles))
        if read is not None:
            und, und_seen = _taken(und, und_seen, read.und)
            gen, gen_seen = _taken(gen, gen_seen, read.gen)
        return self.und.finish(und, und_seen), self.gen.finish(gen, gen_seen)


def _taken(x: Tensor, seen: Tensor, rows: Tensor | None) -> tuple[Tensor, Tensor]:
    return (x, seen) if rows is None else (take_rows(x, rows), take_rows(seen, rows))


class Through(Protocol):
    """A way through the layers, for rows that several processes share out: see `bagel.parallel.rows`."""

    def __call__(
        self,
        layers: Iterable[nn.Module],
        und: Tensor,
        gen: Tensor,
        und_angles: Angles,
        gen_angles: Angles,
        attend: Attend,
    ) -> tuple[Tensor, Tensor]: ...


def one_by_one(
    layers: Iterable[nn.Module], und: Tensor, gen: Tensor, und_angles: Angles, gen_angles: Angles, attend: Attend
) -> tuple[Tensor, Tensor]:
    """Every layer in turn."""
    for block in layers:
        und, gen = block(und, gen, und_angles, gen_angles, attend)
    return und, gen


class Decoder(nn.Module):
    """The layers and the final norms. through: how a pass goes through them."""

    def __init__(self, config: LLMConfig) -> None:
        super().__init__()
        self.rotary = Rotary(config.head_dim, config.rope_theta)
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.num_hidden_layers))
        self.und_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        dense = config.layers is Layers.DENSE
        self.gen_norm = self.und_norm if dense else RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.through: Through = one_by_one

    def forward(
        self, und: Tensor, gen: Tensor, position: Tensor, attend: Attend, read: Read | None = None
    ) -> tuple[Tensor, Tensor]:
        """und [U, D], gen [G, D], position int64 [U + G] -> the residual stream after the last layer, before
        the final norms (`und_norm`, `gen_norm`). read: the rows that are wanted, all by default: the last layer gives
        those alone, and spares the others its wide products."""
        cos, sin = self.rotary(position)
        split = len(und)
        # Detached, since a compiled block checks all that is known of what a view is a view of.
        und_angles = cos[:split].detach(), sin[:split].detach()
        gen_angles = cos[split:].detach(), sin[split:].detach()
        if read is None:
            return self.through(self.layers, und, gen, und_angles, gen_angles, attend)
        und, gen = self.through(self.layers[:-1], und, gen, und_angles, gen_angles, attend)
        return self.layers[-1](und, gen, und_angles, gen_angles, attend, read)
