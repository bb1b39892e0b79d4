"""Rows without files: each is its own number, and the recipe makes the sample from it."""

from __future__ import annotations

from bagel.data.sources.base import Rows

BLOCK, BLOCKS = 1 << 16, 1 << 10
"""67 million rows in all: more than a run reads, few enough to be shuffled by block."""


class NumberSource:
    """See `Source`."""

    columns: tuple[str, ...] | None = ("number",)
    files = ("made as they are read",)
    notes = ()

    def __init__(self) -> None:
        self.block_sizes = [BLOCK] * BLOCKS

    def read(self, block: int) -> Rows:
        return Rows(BLOCK, lambda index: {"number": block * BLOCK + index})

    def where(self, block: int, index: int) -> str:
        return f"number {block * BLOCK + index}"

    def root(self, block: int) -> str:
        return ""
