"""Which row comes when, and who reads it.

An epoch of a data set is one order of all its rows, the same for everybody: blocks are shuffled, then the
rows inside each block. A *place* is a number in that order. Consumers (a worker of a rank; there are
`world_size x workers`) share the places of an epoch in runs of equal length, so that every row is read once
whatever the numbers, and a block is opened by as few consumers as can be.

What a consumer has still to read is a value of a few numbers (`Todo`); it is what a resume needs. When the
number of consumers changes, `share_again` deals out what all of them had left.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import numpy as np

from bagel.errors import InputError


class Span(NamedTuple):
    """Places start to stop of an epoch."""

    epoch: int
    start: int
    stop: int


class Epoch:
    """One order of the rows: place -> (block, index in the block).

    rows: only the first so many rows of the data set take part; `sizes` of the blocks are cut accordingly.
    """

    def __init__(self, sizes: Sequence[int], rows: int, key: Sequence[int], shuffle: bool) -> None:
        whole = np.array(sizes, dtype=np.int64)
        before = np.cumsum(whole) - whole
        self.sizes = np.clip(rows - before, 0, whole)
        self._key, self._shuffle = list(key), shuffle
        count = len(self.sizes)
        self._blocks = np.random.default_rng(self._key).permutation(count) if shuffle else np.arange(count)
        self._ends = np.cumsum(self.sizes[self._blocks])
        self._inside: tuple[int, np.ndarray] = (-1, np.empty(0, dtype=np.int64))

    def row(self, place: int) -> tuple[int, int]:
        turn = int(np.searchsorted(self._ends, place, side="right"))
        block = int(self._blocks[turn])
        within = place - int(self._ends[turn] - self.sizes[block])
        return block, int(self._order_inside(block)[within])

    def _order_inside(self, block: int) -> np.ndarray:
        if self._inside[0] != block:
            size = int(self.sizes[block])
            rng = np.random.default_rng([*self._key, block])
            self._inside = block, rng.permutation(size) if self._shuffle else np.arange(size)
        return self._inside[1]


def fair_share(rows: int, consumer: int, consumers: int, epoch: int) -> Span:
    """One consumer's run of an epoch. It moves on from epoch to epoch, so that even with fewer rows than
    consumers everyone gets some in the end."""
    turn = (consumer + epoch) % consumers
    return Span(epoch, rows * turn // consumers, rows * (turn + 1) // consumers)


@dataclass(frozen=True, slots=True)
class Todo:
    """What one consumer has still to read: these spans, and then its fair share of `epoch` and the epochs
    after it."""

    spans: tuple[Span, ...] = ()
    epoch: int = 0

    def next(self, rows: int, consumer: int, consumers: int) -> tuple[int, int, Todo]:
        """(epoch, place) of the next row, and what is left then."""
        spans, epoch = self.spans, self.epoch
        while not spans:
            share = fair_share(rows, consumer, consumers, epoch)
            spans = (share,) if share.start < share.stop else ()
            epoch += 1
        now = spans[0]
        rest = (Span(now.epoch, now.start + 1, now.stop),) if now.start + 1 < now.stop else ()
        return now.epoch, now.start, Todo(rest + spans[1:], epoch)

    def to_json(self) -> dict[str, Any]:
        return {"spans": [list(span) for span in self.spans], "epoch": self.epoch}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Todo:
        return cls(tuple(Span(*span) for span in data["spans"]), data["epoch"])


def share_again(todos: Sequence[Todo], waiting: Iterable[tuple[int, int]], rows: int, consumers: int) -> list[Todo]:
    """Deals out what `todos`, one for each of the former consumers, had left, and `waiting`, single
    (epoch, place) that they had read but not yet used, among `consumers` new ones."""
    last = max(todo.epoch for todo in todos)
    left = [Span(epoch, place, place + 1) for epoch, place in waiting]
    for consumer, todo in enumerate(todos):
        left += todo.spans
        left += [fair_share(rows, consumer, len(todos), epoch) for epoch in range(todo.epoch, last)]
    spans = _joined(left)
    total = sum(span.stop - span.start for span in spans)
    cuts = [total * i // consumers for i in range(consumers + 1)]
    return [Todo(_cut(spans, a, b), last) for a, b in pairwise(cuts)]


def _joined(spans: Iterable[Span]) -> list[Span]:
    """In order, neighbours made one."""
    joined: list[Span] = []
    for span in sorted(span for span in spans if span.start < span.stop):
        if joined and joined[-1].epoch == span.epoch and joined[-1].stop == span.start:
            joined[-1] = joined[-1]._replace(stop=span.stop)
        elif joined and joined[-1].epoch == span.epoch and joined[-1].stop > span.start:
            raise InputError(
                "the saved data states do not fit together: rows appear twice; resume from another checkpoint."
            )
        else:
            joined.append(span)
    return joined


def _cut(spans: Sequence[Span], start: int, stop: int) -> tuple[Span, ...]:
    """The part of the spans from their `start`-th row to their `stop`-th."""
    ends = list(accumulate(span.stop - span.start for span in spans))
    part = []
    for span, end in zip(spans, ends, strict=True):
        first = end - (span.stop - span.start)
        low, high = max(start, first), min(stop, end)
        if low < high:
            part.append(Span(span.epoch, span.start + low - first, span.start + high - first))
    return tuple(part)
