"""Attention of a pass over contexts: every span writes its keys and values behind what its context holds and
looks at all of it. There is no mask: within a span attention is causal or full, and storage keeps the markers
of an image before its latents, which full attention cannot tell.

Letters: U und tokens, G gen tokens, R single rows, N query heads, M key/value heads, H head width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bagel.infer.context import Store
from bagel.infer.padded import PaddedAttention, groups_of
from bagel.model.attention import QKV, attend
from bagel.model.varlen import can_run, run_attention
from bagel.runs import Runs
from bagel.sequence import Span


class Window(NamedTuple):
    """Where a span of a pack writes its keys and values in its context's storage."""

    store: Store
    at: int
    span: Span

    @property
    def und(self) -> int:
        return self.span.und.stop - self.span.und.start

    @property
    def end(self) -> int:
        return self.at + self.und + self.span.gen.stop - self.span.gen.start


class CacheAttention:
    """The plain form, one span after the other, small ones of a shape in one call; the reference for the fast one."""

    def __init__(self, windows: Sequence[Window]) -> None:
        together, self.windows = groups_of(windows)
        self.together = [PaddedAttention(group) for group in together]
        self.rows: slice | None = None

    def restrict(self, rows: slice) -> CacheAttention:
        """From now on the latent queries are these rows of all. What was looked at together is not any more."""
        self.windows = [*(window for group in self.together for window in group.windows), *self.windows]
        self.together, self.rows = [], rows
        return self

    def finish(self) -> None:
        """To be called behind the last layer: the storage of what was looked at together is filled."""
        for group in self.together:
            group.finish()

    def __call__(self, layer: int, und: QKV, gen: QKV) -> tuple[Tensor, Tensor]:
        und_seen, gen_seen = torch.empty_like(und.q), torch.empty_like(gen.q)
        for group in self.together:
            group(layer, und, gen, und_seen, gen_seen)
        for window in self.windows:
            write_span(window, layer, und, gen)
            keys, values = (x[: window.end] for x in window.store.layer(layer))
            gen_rows = queries(window, self.rows)
            asking = torch.cat((und.q[window.span.und], gen.q[gen_rows]))
            seen = attend(asking, keys, values, causal=window.span.causal)
            und_seen[window.span.und], gen_seen[gen_rows] = seen.split([window.und, len(seen) - window.und])
        return und_seen, gen_seen


def write_span(window: Window, layer: int, und: QKV, gen: QKV) -> None:
    """Stores the keys and values of one span, und rows before gen rows."""
    keys, values = window.store.layer(layer)
    begin = window.at
    for part, span in ((und, window.span.und), (gen, window.span.gen)):
        end = begin + span.stop - span.start
        if end > begin:
            keys[begin:end], values[begin:end] = part.k[span], part.v[span]
        begin = end


def queries(window: Window, rows: slice | None) -> slice:
    """Where a span's latents stand among the queries, which are `rows` of all latents."""
    span = window.span.gen
    if rows is None:
        return span
    begin, end = max(span.start, rows.start), min(span.stop, rows.stop)
    return slice(begin - rows.start, end - rows.start) if begin < end else slice(0, 0)


class FastAttention:
    """The form for an NVIDIA GPU. Rows that look at a whole context by themselves, tokens being written and
    the two markers of a latent image, go through one kernel for all contexts; latents are never gathered."""

    def __init__(self, windows: Sequence[Window], num_und: int, device: torch.device) -> None:
        windows = joined(windows)
        self.latents = [w for w in windows if w.end > w.at + w.und]
        self.runs = [w for w in windows if w.end == w.at + w.und and w.und > 1]
        self.behind = [_behind(w, device) if w.span.causal and w.at else None for w in self.runs]
        singles = [
            (row, w.store.tensor.data_ptr(), w.at + row - w.span.und.start, w.end, w.store.capacity)
            for w in windows
            if w not in self.runs
            for row in range(w.span.und.start, w.span.und.stop)
        ]
        self.only_singles = len(singles) == num_und
        state = torch.tensor(singles, dtype=torch.int64).reshape(-1, 5).t().contiguous().to(device, non_blocking=True)
        self.singles, self.addresses, self.slots, self.counts, self.capacities = state
        self.rows: slice | None = None

    def restrict(self, rows: slice) -> FastAttention:
        """From now on the latent queries are these rows of all."""
        self.rows = rows
        return self

    def __call__(self, layer: int, und: QKV, gen: QKV) -> tuple[Tensor, Tensor]:
        for window in self.latents:
            keys, values = window.store.layer(layer)
            begin = window.at + window.und
            keys[begin : window.end], values[begin : window.end] = gen.k[window.span.gen], gen.v[window.span.gen]
        for window in self.runs:  # all is written before anyone looks: a context may have several spans here
            write_span(window, layer, und, gen)
        und_seen = self._single_rows(layer, und)
        for window, behind in zip(self.runs, self.behind, strict=True):
            und_seen[window.span.und] = self._look(window, layer, und.q[window.span.und], behind)
        places = [(window, queries(window, self.rows)) for window in self.latents]
        pictures = [self._look(window, layer, gen.q[at]) for window, at in places if at.stop > at.start]
        if not pictures:
            return und_seen, gen.q
        return und_seen, pictures[0] if len(pictures) == 1 else torch.cat(pictures)

    def _single_rows(self, layer: int, und: QKV) -> Tensor:
        if not len(self.singles):
            return torch.empty_like(und.q)
        from bagel.model import triton_decode

        q, k, v = und if self.only_singles else (x.index_select(0, self.singles) for x in und)
        triton_decode.write(k, v, self.addresses, self.slots, self.capacities, layer)
        seen = triton_decode.attend(q, k.shape[1], self.addresses, self.counts, self.capacities, layer)
        return seen if self.only_singles else torch.empty_like(und.q).index_copy_(0, self.singles, seen)

    def _look(self, window: Window, layer: int, q: Tensor, behind: Runs | None = None) -> Tensor:
        keys, values = (x[: window.end] for x in window.store.layer(layer))
        if behind is not None and can_run(q.device, q.dtype, q.shape[-1]):
            return run_attention(q, keys, values, behind, causal=True)
        return attend(q, keys, values, causal=window.span.causal)


def joined(windows: Sequence[Window]) -> list[Window]:
    """Texts that a context reads one behind the other see what one text would: as few windows as that takes."""
    out: list[Window] = []
    for window in windows:
        before = out[-1] if out else None
        if before is not None and _continues(before, window):
            rows = slice(before.span.und.start, window.span.und.stop)
            out[-1] = before._replace(span=before.span._replace(und=rows))
        else:
            out.append(window)
    return out


def _continues(before: Window, window: Window) -> bool:
    follows = before.store is window.store and before.end == window.at
    return follows and before.span.causal and window.span.causal and before.span.und.stop == window.span.und.start


def _behind(window: Window, device: torch.device) -> Runs:
    """A text behind what its context holds: one run, its last token sees the last key. PyTorch's attention would take
    a mask for it."""
    return Runs.of(np.array([window.und]), np.array([window.end])).to(device)
