"""Folders of pictures with a text file beside each, as tools for adapters have them: `cat.jpg`, `cat.txt`."""

from __future__ import annotations

from collections.abc import Sequence

from bagel.data.files import expand, parent, read_bytes
from bagel.data.sources.base import Row, Rows, even_blocks

BLOCK = 32
KINDS = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tiff")
SUFFIXES = tuple(f".{kind}" for kind in (*KINDS, *(kind.upper() for kind in KINDS)))


class PictureSource:
    """See `Source`. A row is a picture, `image`, and the `text` of its file; it is read when asked for."""

    columns: tuple[str, ...] | None = ("image", "text")
    notes = ()

    def __init__(self, paths: Sequence[str]) -> None:
        self.files = tuple(expand(paths, SUFFIXES))
        self.block_sizes = even_blocks(len(self.files), BLOCK)

    def read(self, block: int) -> Rows:
        first = block * BLOCK
        return Rows(self.block_sizes[block], lambda i: _row(self.files[first + i]))

    def where(self, block: int, index: int) -> str:
        return self.files[block * BLOCK + index]

    def root(self, block: int) -> str:
        return parent(self.files[block * BLOCK])


def _row(picture: str) -> Row:
    text = read_bytes(f"{picture.rpartition('.')[0]}.txt").decode("utf-8-sig", errors="replace").strip()
    return {"image": read_bytes(picture), "text": text}
