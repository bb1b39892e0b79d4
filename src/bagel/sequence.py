"""The rules of a sequence, in one place for training and inference (paper, section 2; upstream
`data/dataset_base.py` and `data/data_utils.py` at 056b5fd).

A *sample* is a conversation, made of *segments*: runs of like tokens. Rotary positions, attention, the
choice of expert and what a cache keeps all follow from the segments and are computed here alone.

    segment        tokens                                   expert               attention  position
    TEXT           <|im_start|> ids <|im_end|>              und                  causal     one per token
    VIT            <|vision_start|> patches <|vision_end|>  und                  full       one in all
    CLEAN latents  the same markers around latent tokens    markers und, rest gen full      one in all
    NOISED latents the same                                 the same             full       one, not used up

A token sees what comes before it in its own sample and, inside a full segment, the whole segment. A hidden
(noised) segment is seen by itself alone.

A pack holds many samples. It stores the understanding tokens of all samples first and the generation tokens
after them, each in reading order, so that an expert is a slice and never a gather; attention does not mind,
since it is told by `order` who comes before whom.

Letters: T tokens of a pack, U of them for the und expert, G for gen; Q queries, K keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import Enum
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Kind(Enum):
    TEXT = "text"
    VIT = "vit"
    CLEAN = "clean"
    NOISED = "noised"

    @property
    def is_latent(self) -> bool:
        return self in (Kind.CLEAN, Kind.NOISED)


@dataclass(frozen=True, slots=True)
class Segment:
    """One run of tokens. `length` counts both markers; 0 is an image dropped in training, which still
    uses up its position.

    advance: positions used up; by default `length` for text, 1 for an image, 0 for noised latents.
    joined:  continues the attention segment before it (the frames of one clip).
    hidden:  seen by itself alone; by default true for noised latents. Ignored where `joined`.
    """

    kind: Kind
    length: int
    advance: int | None = None
    joined: bool = False
    hidden: bool | None = None

    @property
    def positions(self) -> int:
        if self.advance is not None:
            return self.advance
        return {Kind.TEXT: self.length, Kind.NOISED: 0}.get(self.kind, 1)

    @property
    def num_gen(self) -> int:
        """Tokens of the generation expert: everything between the markers of a latent image."""
        return max(self.length - 2, 0) if self.kind.is_latent else 0


class Span(NamedTuple):
    """Where one segment lies in a pack: rows of the und part, rows of the gen part (counted from the first
    gen row), its sample, and whether it is causal."""

    und: slice
    gen: slice
    sample: int
    causal: bool


@dataclass(frozen=True, slots=True)
class Layout:
    """What every token of a pack needs to know, in stored order (und tokens, then gen tokens).

    order, sample, segment, position: int64 [T]; full, hidden: bool [T].
    text_rows, vit_rows: rows of the und part that hold text ids (markers too) and ViT patches.
    spans: one per segment that has tokens, in reading order.
    """

    order: Tensor
    sample: Tensor
    segment: Tensor
    position: Tensor
    full: Tensor
    hidden: Tensor
    text_rows: Tensor
    vit_rows: Tensor
    num_und: int
    spans: tuple[Span, ...]

    @classmethod
    def of(cls, samples: Sequence[Sequence[Segment]], start: Sequence[int] | None = None) -> Layout:
        """Lays out samples one after the other. `start`: the first position of each, 0 unless a cache
        holds what came before."""
        runs = _runs(samples, start or [0] * len(samples))
        columns = _token_columns(runs)
        gen = columns.pop("gen")
        stored = np.argsort(gen, kind="stable")
        num_und = int(len(gen) - gen.sum())
        patch = columns.pop("patch")[stored[:num_und]]
        return cls(
            **{name: torch.from_numpy(column[stored]) for name, column in columns.items()},
            text_rows=torch.from_numpy(np.flatnonzero(~patch)),
            vit_rows=torch.from_numpy(np.flatnonzero(patch)),
            num_und=num_und,
            spans=_spans(runs),
        )

    def __len__(self) -> int:
        return len(self.order)

    def to(self, device: torch.device | str) -> Layout:
        moved = {f.name: getattr(self, f.name) for f in fields(self)}
        moved = {k: v.to(device, non_blocking=True) if isinstance(v, Tensor) else v for k, v in moved.items()}
        return Layout(**moved)


def visible(query: Layout, key: Layout) -> Tensor:
    """May query q attend to key k? bool [Q, K], rows and columns in stored order."""
    return may_attend(
        *(x[:, None] for x in (query.order, query.sample, query.segment, query.full)),
        *(x[None, :] for x in (key.order, key.sample, key.segment, key.hidden)),
    )


def may_attend(
    q_order: Tensor,
    q_sample: Tensor,
    q_segment: Tensor,
    q_full: Tensor,
    k_order: Tensor,
    k_sample: Tensor,
    k_segment: Tensor,
    k_hidden: Tensor,
) -> Tensor:
    """The attention rule, elementwise, so that a dense mask and a FlexAttention mask share it."""
    same_segment = q_segment == k_segment
    reachable = (k_order <= q_order) | (same_segment & q_full)
    return (q_sample == k_sample) & reachable & (same_segment | ~k_hidden)


class _Run(NamedTuple):
    segment: Segment
    sample: int
    attention_id: int
    hidden: bool
    position: int


def _runs(samples: Sequence[Sequence[Segment]], start: Sequence[int]) -> list[_Run]:
    """Each segment with its sample, attention segment and first position."""
    runs: list[_Run] = []
    attention_id, hidden = -1, False
    for index, segments in enumerate(samples):
        position = start[index]
        for segment in segments:
            if not segment.joined:
                attention_id += 1
                hidden = segment.kind is Kind.NOISED if segment.hidden is None else segment.hidden
            if segment.length:
                runs.append(_Run(segment, index, attention_id, hidden, position))
            position += segment.positions
    return runs


def _token_columns(runs: Sequence[_Run]) -> dict[str, np.ndarray]:
    """The runs spelt out token by token, in reading order."""
    lengths = np.array([run.segment.length for run in runs], dtype=np.int64)
    ends = np.cumsum(lengths)
    total = int(lengths.sum())

    def spread(values: Sequence[int] | Sequence[bool], dtype: type) -> np.ndarray:
        return np.repeat(np.array(values, dtype=dtype), lengths)

    order = np.arange(total, dtype=np.int64)
    within = order - np.repeat(ends - lengths, lengths)
    marker = (within == 0) | (order == np.repeat(ends - 1, lengths))
    causal = spread([run.segment.kind is Kind.TEXT for run in runs], bool)
    return {
        "order": order,
        "sample": spread([run.sample for run in runs], np.int64),
        "segment": spread([run.attention_id for run in runs], np.int64),
        "position": spread([run.position for run in runs], np.int64) + within * causal,
        "full": ~causal,
        "hidden": spread([run.hidden for run in runs], bool),
        "gen": spread([run.segment.kind.is_latent for run in runs], bool) & ~marker,
        "patch": spread([run.segment.kind is Kind.VIT for run in runs], bool) & ~marker,
    }


def _spans(runs: Sequence[_Run]) -> tuple[Span, ...]:
    spans, und, gen = [], 0, 0
    for run in runs:
        next_gen = gen + run.segment.num_gen
        next_und = und + run.segment.length - run.segment.num_gen
        spans.append(Span(slice(und, next_und), slice(gen, next_gen), run.sample, run.segment.kind is Kind.TEXT))
        und, gen = next_und, next_gen
    return tuple(spans)
