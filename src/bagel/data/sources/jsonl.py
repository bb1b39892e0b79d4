"""JSON Lines: one object a line. Lines are found once, by offset, and then read in any order."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from bagel.data.files import expand, open_binary, parent
from bagel.data.sources.base import Rows, even_blocks
from bagel.errors import InputError

BLOCK = 32
CHUNK = 1 << 24


class JsonlSource:
    """See `Source`. Blank lines are no rows."""

    columns = None
    notes = ()

    def __init__(self, paths: Sequence[str]) -> None:
        self.files = tuple(expand(paths, (".jsonl", ".ndjson")))
        self.block_sizes: list[int] = []
        self._lines: list[_Lines] = []
        self._blocks: list[tuple[int, int]] = []
        for number, file in enumerate(self.files):
            lines = _Lines.of(file)
            sizes = even_blocks(len(lines.start), BLOCK)
            self._blocks += [(number, i * BLOCK) for i in range(len(sizes))]
            self.block_sizes += sizes
            self._lines.append(lines)

    def read(self, block: int) -> Rows:
        number, first = self._blocks[block]
        lines, size = self._lines[number], self.block_sizes[block]
        with open_binary(self.files[number]) as file:
            file.seek(int(lines.start[first]))
            data = file.read(int(lines.stop[first + size - 1] - lines.start[first]))
        offset = lines.start[first]
        cuts = [(int(lines.start[i] - offset), int(lines.stop[i] - offset)) for i in range(first, first + size)]
        return Rows(size, lambda i: parse_object(data[slice(*cuts[i])]))

    def where(self, block: int, index: int) -> str:
        number, first = self._blocks[block]
        return f"{self.files[number]}, line {int(self._lines[number].number[first + index]) + 1}"

    def root(self, block: int) -> str:
        return parent(self.files[self._blocks[block][0]])


class _Lines:
    """Where the lines of one file that hold something start and stop, and their numbers."""

    def __init__(self, start: np.ndarray, stop: np.ndarray, number: np.ndarray) -> None:
        self.start, self.stop, self.number = start, stop, number

    @classmethod
    def of(cls, path: str) -> _Lines:
        ends = [np.empty(0, dtype=np.int64)]
        size = 0
        with open_binary(path) as file:
            while chunk := file.read(CHUNK):
                ends.append(np.flatnonzero(np.frombuffer(chunk, dtype=np.uint8) == ord("\n")) + size)
                size += len(chunk)
        stop = np.concatenate(ends)
        if size and (not len(stop) or stop[-1] != size - 1):
            stop = np.append(stop, size)
        start = np.concatenate((np.zeros(1, dtype=np.int64), stop[:-1] + 1))[: len(stop)]
        filled = np.flatnonzero(stop - start > 1)
        return cls(start[filled], stop[filled], filled)


def parse_object(text: bytes | str) -> dict[str, Any]:
    """A JSON object. Raises InputError where it is broken or something else."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise InputError(f"broken JSON ({error}); write one object a line, in UTF-8") from None
    if not isinstance(value, dict):
        raise InputError(f"the line holds a {type(value).__name__}; write one object a line")
    return value
