"""Attention of many short contexts in one call. One by one, a hundred small calls a layer would take far longer
than the arithmetic in them, above all on a CPU.

Letters: R windows, Q rows of each, S places of the longest, L layers, N query heads, M key/value heads, H head width.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from bagel.model.attention import QKV

if TYPE_CHECKING:
    from bagel.infer.attention import Window

MOST_PLACES = 1024
"""A longer context is looked at where it lies: copying it would cost more than the call it saves."""
MOST_ROWS = 128
"""A window of more rows keeps the processor busy by itself."""


class PaddedAttention:
    """Windows of one shape whose rows look at all of their context: words being written one by one, pictures
    of one size. The contexts are copied side by side once for all layers, padded to the longest; `finish`
    copies what was written back."""

    def __init__(self, windows: Sequence[Window]) -> None:
        self.windows = windows
        und, rows, size = windows[0].und, windows[0].end - windows[0].at, max(window.end for window in windows)
        first = windows[0].store.tensor
        layers, _, _, heads, width = first.shape
        self.past = first.new_zeros(layers, 2, len(windows), size, heads, width)
        for row, window in enumerate(windows):
            self.past[:, :, row, : window.at] = window.store.tensor[:, :, : window.at]
        device = first.device
        begins = torch.tensor([window.at for window in windows], device=device)[:, None]
        self.row = torch.arange(len(windows), device=device)[:, None]
        self.places = begins + torch.arange(rows, device=device)
        self.seen = (torch.arange(size, device=device) < begins + rows)[:, None, None]
        self.und = _indexes([window.span.und for window in windows], und, device)
        self.gen = _indexes([window.span.gen for window in windows], rows - und, device)

    def __call__(self, layer: int, und: QKV, gen: QKV, und_seen: Tensor, gen_seen: Tensor) -> None:
        """Fills its rows of `und_seen` and `gen_seen`."""
        q, k, v = (torch.cat([x[self.und], y[self.gen]], dim=1) for x, y in zip(und, gen, strict=True))
        keys, values = self.past[layer]
        keys[self.row, self.places], values[self.row, self.places] = k, v
        seen = F.scaled_dot_product_attention(
            q.transpose(1, 2),
            keys.transpose(1, 2),
            values.transpose(1, 2),
            attn_mask=self.seen,
            enable_gqa=q.shape[2] != k.shape[2],
        ).transpose(1, 2)
        split = self.und.shape[1]
        und_seen[self.und], gen_seen[self.gen] = seen[:, :split], seen[:, split:]

    def finish(self) -> None:
        for row, window in enumerate(self.windows):
            window.store.tensor[:, :, window.at : window.end] = self.past[:, :, row, window.at : window.end]


def _indexes(spans: Sequence[slice], length: int, device: torch.device) -> Tensor:
    """int64 [R, length]"""
    begins = torch.tensor([span.start for span in spans], device=device)
    return begins[:, None] + torch.arange(length, device=device)


def groups_of(windows: Sequence[Window]) -> tuple[list[list[Window]], list[Window]]:
    """(the windows that can share a call, by shape; the rest). A storage that several windows of the pass use
    is left alone: one may look at what another writes."""
    uses = Counter(id(window.store) for window in windows)
    groups: dict[tuple[int, int], list[Window]] = defaultdict(list)
    rest = []
    for window in windows:
        rows = window.end - window.at
        alike = (rows == 1 or not window.span.causal) and window.store.is_whole
        if alike and rows <= MOST_ROWS and window.end <= MOST_PLACES and uses[id(window.store)] == 1:
            groups[window.und, rows].append(window)
        else:
            rest.append(window)
    single = [group[0] for group in groups.values() if len(group) == 1]
    return [group for group in groups.values() if len(group) > 1], [*rest, *single]
