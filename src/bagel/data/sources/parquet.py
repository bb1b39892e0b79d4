"""Parquet: a block is a row group. Of each file only the footer is read at the start."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from typing import Any, cast

from bagel.data.files import expand, is_url, need, open_binary, parent
from bagel.data.sources.base import Row, Rows
from bagel.errors import InputError

MAX_GROUP_BYTES = 512 << 20


class ParquetSource:
    """See `Source`. `wanted`: the columns to read, where the files have them."""

    notes: tuple[str, ...] = ()

    def __init__(self, paths: Sequence[str], wanted: Collection[str]) -> None:
        self.files = tuple(expand(paths, (".parquet",)))
        with ThreadPoolExecutor(16) as pool:
            footers = list(pool.map(_footer, self.files))
        self.columns: tuple[str, ...] | None = footers[0][0]
        for file, (columns, _, _) in zip(self.files, footers, strict=True):
            if set(columns) != set(self.columns):
                raise InputError(
                    f"{file} has the columns {', '.join(columns)}, but {self.files[0]} has "
                    f"{', '.join(self.columns)}; make them two data sets."
                )
        self._wanted = [name for name in self.columns if name in wanted]
        self._blocks = [
            (number, group, first)
            for number, (_, sizes, _) in enumerate(footers)
            for group, first in enumerate(_starts(sizes))
        ]
        self.block_sizes: list[int] = [size for _, sizes, _ in footers for size in sizes]
        largest = max(group_bytes for _, _, group_bytes in footers)
        if largest > MAX_GROUP_BYTES:
            self.notes = (
                f"a row group holds {largest >> 20} MB and is read whole by every worker that needs a row of it; "
                f"write the files with row groups of {MAX_GROUP_BYTES >> 20} MB at most.",
            )

    def read(self, block: int) -> Rows:
        number, group, _ = self._blocks[block]
        path = self.files[number]
        pyarrow = need("pyarrow", f"reading {path}")
        try:
            with _open(path) as file:
                table = file.read_row_group(group, columns=self._wanted)
        except (pyarrow.ArrowException, OSError) as error:
            raise InputError(f"{path}: row group {group} is damaged ({error}); write the file again.") from None
        return Rows(table.num_rows, lambda i: cast(Row, table.slice(i, 1).to_pylist()[0]))

    def where(self, block: int, index: int) -> str:
        number, _, first = self._blocks[block]
        return f"{self.files[number]}, row {first + index}"

    def root(self, block: int) -> str:
        return parent(self.files[self._blocks[block][0]])


def _footer(path: str) -> tuple[tuple[str, ...], list[int], int]:
    """Column names, rows of every row group, and bytes of the largest."""
    pyarrow = need("pyarrow", f"reading {path}")
    try:
        with _open(path) as file:
            meta = file.metadata
            groups = [meta.row_group(i) for i in range(meta.num_row_groups)]
            largest = max((group.total_byte_size for group in groups), default=0)
            return tuple(file.schema_arrow.names), [group.num_rows for group in groups], largest
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path} is no readable parquet file ({error}); write it again.") from None


def _open(path: str) -> Any:
    parquet = need("pyarrow.parquet", f"reading {path}", "pyarrow")
    if is_url(path):
        return parquet.ParquetFile(open_binary(path), pre_buffer=True)
    return parquet.ParquetFile(path, memory_map=True)


def _starts(sizes: Sequence[int]) -> list[int]:
    return [0, *accumulate(sizes)][:-1]
