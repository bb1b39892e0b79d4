"""Tar shards as WebDataset writes them: files of one sample stand together and share their name up to the
first dot (`007.jpg`, `007.json`). The headers are read once; samples are then read in any order.

A row holds the fields of the sample's `.json`, `text` from `.txt`, `image` from its only picture, `video` from
its only video. All members are there too by what follows the first dot, so that a field of the json may name
them: `{"image_list": ["0.png", "1.png"]}` beside `007.0.png` and `007.1.png`.
"""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from typing import Any

from bagel.data.files import expand, open_binary, parent
from bagel.data.sources.base import FILES, Row, Rows, even_blocks
from bagel.data.sources.jsonl import parse_object
from bagel.errors import InputError

BLOCK = 32
PICTURES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tiff")
VIDEOS = ("mp4", "webm", "mkv", "mov", "avi")

Member = tuple[str, int, int]
"""What follows the first dot of the name, offset, length."""


class TarSource:
    """See `Source`."""

    columns = None

    def __init__(self, paths: Sequence[str]) -> None:
        self.files = tuple(expand(paths, (".tar",)))
        self.block_sizes: list[int] = []
        self._samples: list[list[tuple[str, list[Member]]]] = []
        self._blocks: list[tuple[int, int]] = []
        for number, file in enumerate(self.files):
            samples = _index(file)
            sizes = even_blocks(len(samples), BLOCK)
            self._blocks += [(number, i * BLOCK) for i in range(len(sizes))]
            self.block_sizes += sizes
            self._samples.append(samples)

    def read(self, block: int) -> Rows:
        number, first = self._blocks[block]
        path, samples = self.files[number], self._samples[number]
        return Rows(self.block_sizes[block], lambda i: _row(path, samples[first + i][1]))

    def where(self, block: int, index: int) -> str:
        number, first = self._blocks[block]
        return f"{self.files[number]}, sample {self._samples[number][first + index][0]}"

    def root(self, block: int) -> str:
        return parent(self.files[self._blocks[block][0]])


def _row(path: str, members: list[Member]) -> Row:
    contents: dict[str, bytes] = {}
    with open_binary(path) as file:
        for extension, offset, length in members:
            file.seek(offset)
            contents[extension] = file.read(length)
            if len(contents[extension]) < length:
                raise InputError(f"the shard ends in the middle of .{extension}; write it again")
    row: dict[str, Any] = {FILES: contents}
    for column, kinds in (("image", PICTURES), ("video", VIDEOS)):
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
    samples: list[tuple[str, list[Member]]] = []
    try:
        with open_binary(path) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                if not member.isfile():
                    continue
                folder, _, name = member.name.rpartition("/")
                stem, _, extension = name.partition(".")
                key = f"{folder}/{stem}" if folder else stem
                if not samples or samples[-1][0] != key:
                    samples.append((key, []))
                samples[-1][1].append((extension, member.offset_data, member.size))
    except (tarfile.TarError, OSError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is no readable tar file ({error}); shards must not be compressed.") from None
    return samples
