"""Parquet: a block is a row group. Of each file only the footer is read at the start."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from typing import Any, cast

from bagel.data.files import expand, is_url, need, open_binary, parent
from bagel.data.sources.base import Row, Rows
from bagel.errors import InputError


class ParquetSource:
    """See `Source`. `wanted`: the columns to read, where the files have them."""

    def __init__(self, paths: Sequence[str], wanted: Collection[str]) -> None:
        self.files = tuple(expand(paths, (".parquet",)))
        with ThreadPoolExecutor(16) as pool:
            footers = list(pool.map(_footer, self.files))
        self.columns: tuple[str, ...] | None = footers[0][0]
        for file, (columns, _) in zip(self.files, footers, strict=True):
            if set(columns) != set(self.columns):
                raise InputError(
                    f"{file} has the columns {', '.join(columns)}, but {self.files[0]} has "
                    f"{', '.join(self.columns)}; make them two data sets."
                )
        self._wanted = [name for name in self.columns if name in wanted]
        self._blocks = [
            (number, group, first)
            for number, (_, sizes) in enumerate(footers)
            for group, first in enumerate(_starts(sizes))
        ]
        self.block_sizes: list[int] = [size for _, sizes in footers for size in sizes]

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


def _footer(path: str) -> tuple[tuple[str, ...], list[int]]:
    """Column names, and rows of every row group that has any."""
    pyarrow = need("pyarrow", f"reading {path}")
    try:
        with _open(path) as file:
            meta = file.metadata
            sizes = [meta.row_group(i).num_rows for i in range(meta.num_row_groups)]
            return tuple(file.schema_arrow.names), sizes
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path} is no readable parquet file ({error}); write it again.") from None


def _open(path: str) -> Any:
    parquet = need("pyarrow.parquet", f"reading {path}", "pyarrow")
    if is_url(path):
        return parquet.ParquetFile(open_binary(path), pre_buffer=True)
    return parquet.ParquetFile(path, memory_map=True)


def _starts(sizes: Sequence[int]) -> list[int]:
    return [0, *accumulate(sizes)][:-1]
