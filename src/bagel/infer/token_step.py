"""The next token of several contexts as one captured CUDA graph. Writing text is bound by reading the weights
once a token; launching a few hundred small kernels one by one would take several times as long.

Letters: R contexts, D model width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bagel.infer.context import Context, Store
from bagel.model.attention import QKV
from bagel.model.bagel import BagelModel

_ROWS = (1, 2, 4, 8, 16, 32, 64)
MOST_CONTEXTS = _ROWS[-1]


class TokenAttention:
    """One new token a context; where its keys and values lie is read from `state` when the kernels run, so a
    captured graph serves any contexts. state: int64 [5, R], see `_Graph`."""

    def __init__(self, state: Tensor, kv_heads: int) -> None:
        _, _, self.addresses, self.lengths, self.capacities = state
        self.kv_heads = kv_heads

    def begin(self) -> None:
        self.counts = self.lengths + 1

    def __call__(self, layer: int, und: QKV, gen: QKV) -> tuple[Tensor, Tensor]:
        from bagel.model import triton_decode

        triton_decode.write(und.k, und.v, self.addresses, self.lengths, self.capacities, layer)
        seen = triton_decode.attend(und.q, self.kv_heads, self.addresses, self.counts, self.capacities, layer)
        return seen, gen.q


class TokenStep:
    """Graphs by number of contexts, captured when first wanted."""

    def __init__(self, model: BagelModel) -> None:
        self.model = model
        self._graphs: dict[int, _Graph] = {}
        self._spare = Store(model.local, 1, model.dtype, model.device)

    def __call__(self, tokens: Sequence[tuple[Context, int]]) -> tuple[Tensor, Tensor]:
        """Writes each token's keys and values behind its context's; the caller advances the contexts.
        -> residual stream [R, D] and logits [R, V], valid until the next call."""
        rows = next(size for size in _ROWS if size >= len(tokens))
        graph = self._graphs.get(rows)
        if graph is None:
            graph = self._graphs[rows] = _Graph(self.model, rows, self._spare)
        stores = [context.reserve(1) for context, _ in tokens]
        state = [
            [token, context.position, store.tensor.data_ptr(), context.length, store.capacity]
            for (context, token), store in zip(tokens, stores, strict=True)
        ]
        stream, logits = graph.replay(state)
        return stream[: len(tokens)], logits[: len(tokens)]


class _Graph:
    """One captured step for R contexts; unused rows write into a spare storage. state, int64 [5, R]: token,
    position, address of the storage, tokens held, places."""

    def __init__(self, model: BagelModel, rows: int, spare: Store) -> None:
        self.model = model
        self.idle = [0, 0, spare.tensor.data_ptr(), 0, spare.capacity]
        self.host = torch.tensor([self.idle] * rows, dtype=torch.int64).t().contiguous().pin_memory()
        self.state = self.host.to(model.device)
        self.attention = TokenAttention(self.state, model.local.num_key_value_heads)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # compiles the kernels and fills the library's workspaces before the capture
            for _ in range(2):
                self._step()
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        # Other threads (those of NCCL) may ask the GPU something meanwhile.
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            self.out = self._step()

    def _step(self) -> tuple[Tensor, Tensor]:
        self.attention.begin()
        und = self.model.embed(self.state[0])
        und, _ = self.model.decoder(und, und[:0], self.state[1], self.attention)
        return und, self.model.logits(und)

    def replay(self, state: list[list[int]]) -> tuple[Tensor, Tensor]:
        # The step before has been read by now, so its inputs are no longer in flight.
        self.host[:, : len(state)] = torch.tensor(state, dtype=torch.int64).t()
        self.host[:, len(state) :] = torch.tensor(self.idle)[:, None]
        self.state.copy_(self.host, non_blocking=True)
        self.graph.replay()
        return self.out
