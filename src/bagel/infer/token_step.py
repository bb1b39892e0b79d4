"""The next token of several contexts as one captured CUDA graph. Writing text is bound by reading the weights
once a token; launching a few hundred small kernels one by one would take several times as long.

The graph also takes the likeliest token and makes the next step's inputs from it, so that the device goes on with the
next token while the host reads the last one, decodes it and asks for more: see `TokenStep.choose`.

Letters: R contexts, D model width, V vocabulary.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from bagel.infer.context import Context, Store
from bagel.model.bagel import BagelModel
from bagel.model.decoder import Expert
from bagel.model.layers import norm_then

_ROWS = (1, 2, 4, 8, 16, 32, 64)
MOST_CONTEXTS = _ROWS[-1]

Draw = Callable[[Tensor], Tensor]
"""logits [1, V] -> an id, int64 [1], without waiting for the device."""


class Wish(NamedTuple):
    """A token that a context reads, and the wish to know which comes behind it. draw: how it is chosen, None for the
    likeliest; more: whether the one behind that will be wanted too."""

    context: Context
    token: int
    draw: Draw | None
    more: bool


class _Ahead(NamedTuple):
    """What a context is known to have asked for before it does: the token that it reads where it is `length` long in
    the storage at `address`; the answer is in a row of a flight."""

    flight: _Flight
    row: int
    token: int
    length: int
    address: int


class TokenStep:
    """Graphs by number of contexts, captured when first wanted."""

    def __init__(self, model: BagelModel) -> None:
        self.model = model
        self._graphs: dict[int, _Graph] = {}
        self._spare = Store(model.local, 1, model.dtype, model.device)
        self._known: weakref.WeakKeyDictionary[Context, _Ahead] = weakref.WeakKeyDictionary()

    def __call__(self, tokens: Sequence[tuple[Context, int]]) -> tuple[Tensor, Tensor]:
        """Writes each token's keys and values behind its context's; the caller advances the contexts.
        -> residual stream [R, D] and logits [R, V], valid until the next call."""
        for context, _ in tokens:
            self._known.pop(context, None)
        graph = self._graph(len(tokens))
        graph.begin([_state(context, token, context.length) for context, token in tokens])
        stream, logits = graph.replay()
        return stream[: len(tokens)], logits[: len(tokens)]

    def choose(self, wishes: Sequence[Wish]) -> list[int]:
        """As a call, and the token that comes behind each. Before they are read from the device the next step is on
        its way there: where its contexts ask for it, they find it answered. What was begun and is not asked for was
        written behind what its context keeps, where the next one to write does not mind it."""
        held = [self._held(wish.context, wish.token) for wish in wishes]
        flight = _same_flight(held)
        if flight is None and not any(held):
            flight = self._launch([(wish, wish.token, wish.context.length) for wish in wishes])
        if flight is not None:
            on_way = self._follow(flight, wishes)
            chosen = flight.tokens()
        else:
            on_way, chosen = None, self._apart(wishes, held)
        self._expect(wishes, chosen, on_way)
        return chosen

    def held(self, context: Context, token: int) -> int | None:
        """The token behind this one if it has been drawn already; a second draw would be another."""
        ahead = self._held(context, token)
        return None if ahead is None else ahead.flight.tokens()[ahead.row]

    # --- parts -------------------------------------------------------------------------------------------

    def _held(self, context: Context, token: int) -> _Ahead | None:
        ahead = self._known.get(context)
        here = token, context.length, context.place[0]
        return ahead if ahead is not None and (ahead.token, ahead.length, ahead.address) == here else None

    def _apart(self, wishes: Sequence[Wish], held: Sequence[_Ahead | None]) -> list[int]:
        """Some are answered already, the others now."""
        known = [None if ahead is None else ahead.flight.tokens()[ahead.row] for ahead in held]
        missing = [(w, w.token, w.context.length) for w, answer in zip(wishes, known, strict=True) if answer is None]
        found = iter(self._launch(missing).tokens() if missing else [])
        return [next(found) if answer is None else answer for answer in known]

    def _follow(self, flight: _Flight, wishes: Sequence[Wish]) -> _Flight | None:
        """Behind a flight that is still under way, the next one for the same contexts, if all of them want it."""
        if flight.graph.last is not flight or not all(_goes_on(wish) for wish in wishes):
            return None
        for wish in wishes:
            wish.context.reserve(2)
        return _Flight(flight.graph, [wish.draw for wish in wishes])

    def _expect(self, wishes: Sequence[Wish], chosen: Sequence[int], on_way: _Flight | None) -> None:
        """Notes what the contexts will ask for; without a flight one is begun, for those that want it."""
        going = [(w, token) for w, token in zip(wishes, chosen, strict=True) if on_way is not None or _goes_on(w)]
        if on_way is None and going:
            on_way = self._launch([(wish, token, wish.context.length + 1) for wish, token in going], kept=2)
        for wish in wishes:
            self._known.pop(wish.context, None)
        if on_way is not None:
            for row, (wish, token) in enumerate(going):
                context = wish.context
                self._known[context] = _Ahead(on_way, row, token, context.length + 1, context.place[0])

    def _launch(self, steps: Sequence[tuple[Wish, int, int]], kept: int = 1) -> _Flight:
        """steps: (wish, token, place behind the context's beginning at which it is written)."""
        graph = self._graph(len(steps))
        graph.begin([_state(wish.context, token, length, kept) for wish, token, length in steps])
        return _Flight(graph, [wish.draw for wish, _, _ in steps])

    def _graph(self, count: int) -> _Graph:
        rows = next(size for size in _ROWS if size >= count)
        graph = self._graphs.get(rows)
        if graph is None:
            graph = self._graphs[rows] = _Graph(self.model, rows, self._spare)
        return graph


def _goes_on(wish: Wish) -> bool:
    return wish.more and wish.context.has_room(2)


def _same_flight(held: Sequence[_Ahead | None]) -> _Flight | None:
    """The flight that answers all, in its own order, and nobody else."""
    first = held[0]
    if first is None or len(held) != len(first.flight.draws):
        return None
    same = all(a is not None and a.flight is first.flight and a.row == row for row, a in enumerate(held))
    return first.flight if same else None


def _state(context: Context, token: int, length: int, kept: int = 1) -> list[int]:
    """A row of `_Graph.state` for a token that is written where the context is `length` long."""
    store = context.reserve(kept)
    position = context.position + length - context.length
    return [token, position, length, store.tensor.data_ptr(), store.capacity, 1]


class _Flight:
    """One step that was begun, and the tokens that come out of it."""

    def __init__(self, graph: _Graph, draws: Sequence[Draw | None]) -> None:
        """Replays the graph on the inputs that lie there."""
        self.graph, self.draws = graph, draws
        _, logits = graph.replay()
        for row, draw in enumerate(draws):
            if draw is not None:
                graph.state[0, row : row + 1].copy_(draw(logits[row : row + 1]))
        self._host = torch.empty(len(draws), dtype=torch.int64, pin_memory=True)
        self._host.copy_(graph.state[0, : len(draws)], non_blocking=True)
        self._ready = torch.cuda.Event()
        self._ready.record()
        self._tokens: list[int] | None = None
        graph.last = self

    def tokens(self) -> list[int]:
        """Waits for this step, not for what was begun behind it."""
        if self._tokens is None:
            self._ready.synchronize()
            self._tokens = self._host.tolist()
        return self._tokens


class _Graph:
    """One captured step for R contexts; unused rows write into a spare storage. state, int64 [6, R]: token, position,
    tokens held, address of the storage, places, and what a step adds to position and tokens held. A replay leaves
    there the inputs of the next step, as if the likeliest token were read. last: the flight that has left them."""

    def __init__(self, model: BagelModel, rows: int, spare: Store) -> None:
        from bagel.model.triton_token import Norms, Places

        self.model = model
        self.last: _Flight | None = None
        self.idle = [0, 0, 0, spare.tensor.data_ptr(), spare.capacity, 0]
        self.host = torch.tensor([self.idle] * rows, dtype=torch.int64).t().contiguous().pin_memory()
        self.state = self.host.to(model.device)
        self.places = Places(self.state[3], self.state[2], self.state[4])
        self.heads = model.local.num_attention_heads
        self.frequency = model.decoder.rotary.frequency(model.device)
        experts: list[Expert] = [block.und for block in model.decoder.layers]  # type: ignore[misc]
        self.layers = [(e, Norms(e.q_norm.weight, e.k_norm.weight, e.q_norm.eps)) for e in experts]
        self._copied = torch.cuda.Event()
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
        from bagel.model.triton_token import attend

        stream = self.model.embed(self.state[0])
        angle = self.state[1].float()[:, None] * self.frequency
        cos, sin = angle.cos(), angle.sin()
        for layer, (expert, norms) in enumerate(self.layers):
            seen = attend(expert.product(stream), norms, cos, sin, self.places, layer, self.heads)
            stream = expert.finish(stream, seen)
        logits = norm_then(stream, self.model.decoder.und_norm, self.model.lm_head)
        torch.argmax(logits, dim=-1, out=self.state[0])
        self.state[1:3] += self.state[5]
        return stream, logits

    def begin(self, state: Sequence[list[int]]) -> None:
        """Puts inputs there for the next replay."""
        self._copied.synchronize()  # the last ones have left the host
        self.host[:, : len(state)] = torch.tensor(state, dtype=torch.int64).t()
        self.host[:, len(state) :] = torch.tensor(self.idle)[:, None]
        self.state.copy_(self.host, non_blocking=True)
        self._copied.record()

    def replay(self) -> tuple[Tensor, Tensor]:
        """-> residual stream [R, D] and logits [R, V], good until the next one."""
        self.last = None
        self.graph.replay()
        return self.out
