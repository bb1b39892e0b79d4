"""Tar shards as WebDataset writes them: files of one sample stand together and share their name up to the
first dot (`007.jpg`, `007.json`). The headers are read once; samples are then read in any order.

A row holds the fields of the sample's `.json`, `text` from `.txt`, `image` from its only picture, `video` from
its only video. All members are there too by what follows the first dot, so that a field of the json may name
them: `{"image_list": ["0.png", "1.png"]}` beside `007.0.png` and `007.1.png`.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Sequence
from itertools import accumulate, groupby
from operator import itemgetter
from typing import Any

from bagel.data.files import expand, open_binary, parent
from bagel.data.sources.base import FILES, Row, Rows
from bagel.data.sources.jsonl import parse_object
from bagel.data.sources.pictures import KINDS
from bagel.errors import InputError

BLOCK, BLOCK_BYTES = 32, 64 << 20
"""Most samples of a block, and most bytes that more than one sample may take: a block is read at once."""
VIDEOS = ("mp4", "webm", "mkv", "mov", "avi")

Member = tuple[str, int, int]
"""What follows the first dot of the name, offset, length."""


class TarSource:
    """See `Source`."""

    columns = None
    notes = ()

    def __init__(self, paths: Sequence[str]) -> None:
        self.files = tuple(expand(paths, (".tar",)))
        self.block_sizes: list[int] = []
        self._samples: list[list[tuple[str, list[Member]]]] = []
        self._blocks: list[tuple[int, int]] = []
        for number, file in enumerate(self.files):
            samples = _index(file)
            sizes = _cut([_span(members) for _, members in samples])
            self._blocks += [(number, first) for first in (0, *accumulate(sizes)) if first < len(samples)]
            self.block_sizes += sizes
            self._samples.append(samples)

    def read(self, block: int) -> Rows:
        number, first = self._blocks[block]
        samples = self._samples[number][first : first + self.block_sizes[block]]
        start, stop = _span([member for _, members in samples for member in members])
        with open_binary(self.files[number]) as file:
            file.seek(start)
            data = file.read(stop - start)
        return Rows(len(samples), lambda i: _row(data, start, samples[i][1]))

    def where(self, block: int, index: int) -> str:
        number, first = self._blocks[block]
        return f"{self.files[number]}, sample {self._samples[number][first + index][0]}"

    def root(self, block: int) -> str:
        return parent(self.files[self._blocks[block][0]])


def _span(members: Sequence[Member]) -> tuple[int, int]:
    """Where the contents start and stop in the shard."""
    return min(offset for _, offset, _ in members), max(offset + length for _, offset, length in members)


def _cut(spans: Sequence[tuple[int, int]]) -> list[int]:
    """Samples, by where they lie, -> sizes of blocks."""
    sizes: list[int] = []
    first = 0
    for number, (_, stop) in enumerate(spans):
        if not sizes or sizes[-1] == BLOCK or stop - spans[first][0] > BLOCK_BYTES:
            sizes.append(0)
            first = number
        sizes[-1] += 1
    return sizes


def _row(data: bytes, start: int, members: list[Member]) -> Row:
    contents: dict[str, bytes] = {}
    for extension, offset, length in members:
        contents[extension] = data[offset - start : offset - start + length]
        if len(contents[extension]) < length:
            raise InputError(f"the shard ends in the middle of .{extension}; write it again")
    row: dict[str, Any] = {FILES: contents}
    for column, kinds in (("image", KINDS), ("video", VIDEOS)):
        found = [extension for extension in contents if extension.rsplit(".", 1)[-1].lower() in kinds]
        if len(found) == 1:
            row[column] = contents[found[0]]
    if "txt" in contents:
        row["text"] = contents["txt"].decode("utf-8", errors="replace")
    if "json" in contents:
        row.update(parse_object(contents["json"]))
    return row


def _index(path: str) -> list[tuple[str, list[Member]]]:
    """Samples of a shard: key, members."""
    try:
        with open_binary(path) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            return [(key, [own for _, own in run]) for key, run in groupby(_members(tar), key=itemgetter(0))]
    except InputError:
        raise
    except (tarfile.TarError, OSError) as error:
        raise InputError(f"{path} is no readable tar file ({error}); shards must not be compressed.") from None


def _members(tar: tarfile.TarFile) -> Iterator[tuple[str, Member]]:
    """Each file with the key of its sample, which is its name up to the first dot."""
    for member in tar:
        if member.isfile():
            folder, _, name = member.name.rpartition("/")
            stem, _, extension = name.partition(".")
            yield f"{folder}/{stem}" if folder else stem, (extension, member.offset_data, member.size)
