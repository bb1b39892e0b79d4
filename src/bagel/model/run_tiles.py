"""Which tiles the kernels of attention over runs (`triton_runs`) work in: by heads, lengths of runs and the GPU."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch


class Shape(NamedTuple):
    """Sides of a tile, and how a program runs."""

    queries: int
    keys: int
    warps: int
    stages: int


_MUCH = 164_000
"""Bytes of shared memory that the widest tiles take: what an A100 has, and consumer cards have not (99 KiB)."""


@functools.cache
def _shared_memory() -> int:
    """Bytes that a program may have, on the GPU that is used; much where there is none (Triton's interpreter)."""
    if not torch.cuda.is_available():
        return 1 << 20
    found: Any = torch.cuda.get_device_properties(torch.cuda.current_device())
    return int(found.shared_memory_per_block_optin)


def widths(head_width: int) -> tuple[int, int]:
    """Columns of the two products that a head's are made of: powers of two, at least 16, the second 0 if the first
    has them all. 72 columns as 64 and 16 are little more than half of 128."""
    if head_width <= 16:
        return 16, 0
    whole = _power_of_two(head_width)
    if whole == head_width:
        return whole, 0
    rest = max(16, _power_of_two(head_width - whole // 2))
    return (whole // 2, rest) if rest < whole // 2 else (whole, 0)


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()


def shapes(width: int, longest_query: int, longest_key: int, causal: bool) -> tuple[Shape, Shape]:
    """For the queries' pass and for the keys': by the wider of `widths`, smaller for short runs.

    By time (`benchmarks/train_attention.py`, H100, PyTorch 2.11): full runs, heads of 128, 0.55 and 0.91 ms; causal
    ones 0.05 and 0.07 ms; heads of 72 in the ViT 0.22 and 0.42 ms. Not yet by time, but among those whose sums stay in
    registers on sm_90, which a compiler shows: causal runs of narrower heads, and heads of at most 64 columns (the
    small model's have 32)."""
    wide = width > 64
    of_queries = Shape(128, 64, 8 if wide else 4, 3)
    of_keys = Shape(64, 64, 4, 2)
    if causal and wide:
        of_queries, of_keys = Shape(64, 128, 4, 2), Shape(32, 64, 4, 3)
    elif causal:
        of_keys = Shape(64, 128, 8, 2)
    if longest_query <= 64:
        of_queries = of_queries._replace(queries=64, warps=4)
    if width >= 64 and _shared_memory() < _MUCH:
        of_queries = Shape(64, 64, 4, 2)
    if longest_key <= 64:
        of_keys = of_keys._replace(keys=64, warps=4, stages=2)
    return of_queries, of_keys


def forward_shape(width: int, longest_query: int, causal: bool) -> Shape:
    """By the wider of `widths`. By time (as above): full runs, heads of 128, 0.44 ms, causal ones 0.04; heads of 72 in
    the ViT 0.20 ms. Not yet by time: heads of at most 32."""
    if width > 64 and _shared_memory() < _MUCH:
        return Shape(64, 64, 4, 2)
    if width > 64:
        return Shape(64, 128 if causal else 64, 4, 3)
    if longest_query <= 64:
        return Shape(64, 64, 4, 3)
    return Shape(128, 64, 4, 3)
