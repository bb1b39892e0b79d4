"""What every source of rows offers, whatever the files behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

Row = Mapping[str, Any]

FILES = "__files__"
"""Key of a row under which a tar sample keeps its members, extension -> bytes; a picture may name one."""


class Rows:
    """The rows of one block; each is parsed when asked for, so that a broken one spoils no other."""

    def __init__(self, count: int, get: Callable[[int], Row]) -> None:
        self._count, self._get = count, get

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Row:
        if not 0 <= index < self._count:
            raise IndexError(index)
        return self._get(index)

    def __iter__(self) -> Iterator[Row]:
        return map(self._get, range(self._count))


class Source(Protocol):
    """Rows in blocks that are cheap to read together (a row group of parquet, some lines of JSONL). Rows can
    be read in any order, so that ranks and workers share rows and never whole files. Must pickle.

    block_sizes: rows of every block.
    columns: names that every row has, or None where each row has its own.
    files: what it was found to consist of.
    notes: what works but could be better.
    """

    @property
    def block_sizes(self) -> Sequence[int]: ...
    @property
    def columns(self) -> tuple[str, ...] | None: ...
    @property
    def files(self) -> tuple[str, ...]: ...
    @property
    def notes(self) -> tuple[str, ...]: ...

    def read(self, block: int) -> Rows:
        """The rows of a block. Raises InputError."""
        ...

    def where(self, block: int, index: int) -> str:
        """The place of a row, in words for an error message."""
        ...

    def root(self, block: int) -> str:
        """Where relative paths in these rows start."""
        ...


def even_blocks(rows: int, size: int) -> list[int]:
    """`rows` cut into blocks of `size`, the last one shorter."""
    return [size] * (rows // size) + ([rows % size] if rows % size else [])
