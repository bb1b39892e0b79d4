"""A pack's attention as runs of queries that see runs of keys, so that a kernel for rows of varied length does it
without a mask.

Inside a sample every full segment is one run of queries, and so is every stretch of causal segments. A run sees the
visible tokens before it, all of them, and itself: causally or in full. Keys that several runs see are listed once
for each, which costs memory traffic and no arithmetic.

Letters: T tokens of the pack, F of them in full runs (the others in causal ones), L listed keys, R runs of a kind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bagel.sequence import Layout

MAX_LISTED = 8
"""Keys listed per token of the pack, beyond which a mask costs less than the copies."""


@dataclass(frozen=True, slots=True)
class Runs:
    """Runs of one kind, an empty one where there is none: a compiler makes a graph of its own for a single end.
    query_ends, key_ends: int32 [R + 1], starting with 0; longest_*: of one run."""

    query_ends: Tensor
    key_ends: Tensor
    longest_query: int
    longest_key: int

    @classmethod
    def of(cls, queries: np.ndarray, keys: np.ndarray) -> Runs:
        """queries, keys: lengths of each run."""
        lengths = [x if len(x) else np.zeros(1, dtype=np.int64) for x in (queries, keys)]
        ends = [torch.from_numpy(np.concatenate(([0], np.cumsum(x))).astype(np.int32)) for x in lengths]
        return cls(ends[0], ends[1], int(lengths[0].max()), int(lengths[1].max()))

    def each(self, change: Callable[[Tensor], Tensor]) -> Runs:
        """With every tensor changed."""
        return replace(self, query_ends=change(self.query_ends), key_ends=change(self.key_ends))

    def to(self, device: torch.device | str) -> Runs:
        return self.each(lambda tensor: tensor.to(device, non_blocking=True))


@dataclass(frozen=True, slots=True)
class PackRuns:
    """All runs of a pack. order: int64 [T], the stored rows in the order of the runs, full ones first; place: int64
    [T], its inverse; keys: int64 [L], the stored rows that the runs see, the full runs' first; copies: int32 [L],
    where in `keys` the first stored row is listed, in order, then where the second is, and so on; copy_ends: int32
    [T + 1], starting with 0, where each row's part of `copies` ends; num_full: F; num_full_keys: how many of L the
    full runs see."""

    order: Tensor
    place: Tensor
    keys: Tensor
    copies: Tensor
    copy_ends: Tensor
    full: Runs
    causal: Runs
    num_full: int
    num_full_keys: int

    @classmethod
    def of(cls, layout: Layout) -> PackRuns | None:
        """From a layout in host memory; None where the copies would cost more than a mask."""
        stored = torch.argsort(layout.order).numpy()
        sample, segment, full, hidden = (
            column.numpy()[stored] for column in (layout.sample, layout.segment, layout.full, layout.hidden)
        )
        first, last, whole = _runs(sample, segment, full, hidden)
        seen_before = np.concatenate(([0], np.cumsum(~hidden)))
        sample_start = np.searchsorted(sample, sample[first]) if len(first) else first
        before = seen_before[first] - seen_before[sample_start]
        if (before + last - first).sum() > MAX_LISTED * len(stored):
            return None
        kinds = np.argsort(~whole, kind="stable")
        first, last, before, whole = first[kinds], last[kinds], before[kinds], whole[kinds]
        prefix_start = seen_before[sample_start][kinds]
        order = stored[_ranges(first, last)]
        visible = stored[np.flatnonzero(~hidden)]
        keys = _listed(visible, prefix_start, before, stored, first, last)
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        lengths = last - first
        copies, copy_ends = list_copies(keys, len(order))
        own = [Runs.of(lengths[kind], (before + lengths)[kind]) for kind in (whole, ~whole)]
        return cls(
            order=torch.from_numpy(order),
            place=torch.from_numpy(place),
            keys=torch.from_numpy(keys),
            copies=torch.from_numpy(copies),
            copy_ends=torch.from_numpy(copy_ends),
            full=own[0],
            causal=own[1],
            num_full=int(lengths[whole].sum()),
            num_full_keys=int((before + lengths)[whole].sum()),
        )

    def each(self, change: Callable[[Tensor], Tensor]) -> PackRuns:
        """With every tensor changed."""
        changed: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            changed[f.name] = value.each(change) if isinstance(value, Runs) else value
            if isinstance(value, Tensor):
                changed[f.name] = change(value)
        return PackRuns(**changed)

    def to(self, device: torch.device | str) -> PackRuns:
        return self.each(lambda tensor: tensor.to(device, non_blocking=True))


def list_copies(keys: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Where each of so many rows is listed among the keys: `copies` and `copy_ends` of `PackRuns`."""
    ends = np.concatenate(([0], np.cumsum(np.bincount(keys, minlength=rows))))
    # The keys rise inside each run, which the stable sort merges in a fraction of the time that others need.
    return np.argsort(keys, kind="stable").astype(np.int32), ends.astype(np.int32)


def _runs(
    sample: np.ndarray, segment: np.ndarray, full: np.ndarray, hidden: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First and last + 1 token of each run, in reading order, and whether it is full."""
    if not len(sample):
        none = np.zeros(0, dtype=np.int64)
        return none, none, none.astype(bool)
    apart = full | hidden  # tokens whose segment is a run of its own
    goes_on = (segment[1:] == segment[:-1]) | ~(apart[1:] | apart[:-1])
    begins = np.concatenate(([True], ~(goes_on & (sample[1:] == sample[:-1]))))
    first = np.flatnonzero(begins)
    return first, np.append(first[1:], len(sample)), full[first]


def _ranges(first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """first[0] ... last[0] - 1, first[1] ... end to end."""
    lengths = last - first
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) + np.repeat(first - (ends - lengths), lengths)


def _listed(
    visible: np.ndarray,
    prefix_start: np.ndarray,
    before: np.ndarray,
    stored: np.ndarray,
    first: np.ndarray,
    last: np.ndarray,
) -> np.ndarray:
    """Run by run: the visible tokens before it, then its own."""
    starts = np.stack((prefix_start, first + len(visible)), axis=1).ravel()
    ends = starts + np.stack((before, last - first), axis=1).ravel()
    return np.concatenate((visible, stored))[_ranges(starts, ends)]
