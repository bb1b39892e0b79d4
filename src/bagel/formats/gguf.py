"""GGUF files, memory-mapped (specification: docs/gguf.md of the ggml project, version 2 and 3, little-endian).

    magic "GGUF", version u32, number of tensors u64, number of facts u64
    facts     name, type u32, value; a string is its length u64 and UTF-8; an array its type u32, length u64, values
    tensors   name, number of axes u32, their lengths u64 (the fastest first), type u32, offset u64
    data      from the next multiple of `general.alignment` (32) on; offsets count from there

ComfyUI-GGUF and its kin keep the published names and store in `comfy.gguf.orig_shape.NAME` the shape of a tensor
that was reshaped to fill whole blocks.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bagel.errors import CheckpointError
from bagel.formats.blocks import KINDS, NAMES, Kind

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MOST = 2**24
"""Numbers decoded at a time: what is needed besides the result stays below 300 MiB."""
_SHAPE = "comfy.gguf.orig_shape."


class Entry(NamedTuple):
    """A tensor: its shape as PyTorch has it, how it is stored, and where: bytes from the file's begin."""

    shape: tuple[int, ...]
    kind: Kind
    start: int

    @property
    def size(self) -> int:
        return math.prod(self.shape) // self.kind.numbers * self.kind.bytes


class GgufFile:
    """The tensors of one file. about: the facts in its header. Raises CheckpointError for a file that is damaged,
    of another version, or stored in a way that is not known here."""

    def __init__(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)  # never written
        except FileNotFoundError:
            raise CheckpointError(f"{path.parent} has no {path.name}; copy or download it again.") from None
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path} cannot be read ({error}); copy or download it again.") from None
        try:
            self.about, self._entries = _header(self._map)
        except (struct.error, UnicodeDecodeError, OverflowError, RecursionError) as error:
            raise CheckpointError(f"{path} is truncated or damaged ({error}); copy or download it again.") from None
        except _UnknownError as error:
            raise CheckpointError(f"{path} {error}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._entries[name].shape

    def dtype(self, name: str) -> str:
        return self._entries[name].kind.gives

    def size(self, name: str) -> int:
        return self._entries[name].size

    def read(self, name: str) -> Tensor:
        return torch.cat(list(self.parts(name, torch.device("cpu"))))

    def parts(self, name: str, device: torch.device) -> Iterator[Tensor]:
        shape, kind, start = entry = self._entries[name]
        stored = torch.frombuffer(self._map, dtype=torch.uint8, count=entry.size, offset=start) if entry.size else None
        if stored is None or not shape:
            yield torch.zeros(shape) if stored is None else kind.decode(stored.view(1, -1)).view(shape)
            return
        rows, width = _rows_at_once(shape, kind), math.prod(shape[1:])
        for begin in range(0, shape[0], rows):
            count = min(rows, shape[0] - begin)
            at, size = (n * width // kind.numbers * kind.bytes for n in (begin, count))
            blocks = stored[at : at + size].clone().to(device)  # the map's pages are the system's to drop
            yield kind.decode(blocks.view(-1, kind.bytes)).view(count, *shape[1:])


def _rows_at_once(shape: tuple[int, ...], kind: Kind) -> int:
    """As many as are decoded at a time, so that each time begins with a whole block."""
    width = math.prod(shape[1:])
    whole = kind.numbers // math.gcd(width, kind.numbers) if width else 1
    return max(_MOST // max(width, 1) // whole, 1) * whole


class _UnknownError(Exception):
    """Something in a header that is not known here."""


class _Cursor:
    """Reads a header from the front."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.at = data, 0

    def number(self, kind: str) -> Any:
        (value,) = struct.unpack_from(f"<{kind}", self.data, self.at)
        self.at += struct.calcsize(f"<{kind}")
        return value

    def string(self) -> str:
        length = self.number("Q")
        self._within(length)
        self.at += length
        return self.data[self.at - length : self.at].decode("utf-8")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            inner, length = self.number("I"), self.number("Q")
            self._within(length)
            return [self.value(inner) for _ in range(length)]
        if kind not in _SCALARS:
            raise _UnknownError(f"has a fact of type {kind}, which GGUF does not know; copy or download it again.")
        return self.number(_SCALARS[kind])

    def _within(self, length: int) -> None:
        if length > len(self.data) - self.at:
            raise struct.error("a length goes beyond the end")


def _header(data: mmap.mmap) -> tuple[dict[str, Any], dict[str, Entry]]:
    cursor = _Cursor(data)
    if data[:4] != b"GGUF":
        raise _UnknownError("is no GGUF file; copy or download it again.")
    cursor.at = 4
    version = cursor.number("I")
    if version not in (2, 3):
        raise _UnknownError(f"has GGUF version {version}; versions 2 and 3, little-endian, are read.")
    num_tensors, num_facts = cursor.number("Q"), cursor.number("Q")
    about = {}
    for _ in range(num_facts):
        name, kind = cursor.string(), cursor.number("I")
        about[name] = cursor.value(kind)
    found = [_described(cursor) for _ in range(num_tensors)]
    alignment = about.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 1:
        raise _UnknownError(f"has alignment {alignment!r}; copy or download it again.")
    begin = -(-cursor.at // alignment) * alignment
    entries = {}
    for name, shape, kind, offset in found:
        entries[name] = entry = _entry(name, tuple(about.get(_SHAPE + name, shape)), shape, kind, begin + offset)
        if entry.start + entry.size > len(data):
            raise struct.error(f"{name} goes beyond the end")
    return about, entries


def _described(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    name, axes = cursor.string(), cursor.number("I")
    if axes > 8:
        raise struct.error(f"{name} has {axes} axes")
    lengths = [cursor.number("Q") for _ in range(axes)]
    return name, tuple(reversed(lengths)), cursor.number("I"), cursor.number("Q")


def _entry(name: str, shape: tuple[int, ...], stored: tuple[int, ...], kind: int, start: int) -> Entry:
    if kind not in KINDS:
        raise _UnknownError(
            f"stores {name} as {NAMES.get(kind, f'type {kind}')}, which is not read here; use a file in one of "
            f"{', '.join(one.name for one in KINDS.values())}, or the original."
        )
    if math.prod(shape) != math.prod(stored) or math.prod(stored) % KINDS[kind].numbers:
        raise struct.error(f"{name} has shape {list(stored)} in {KINDS[kind].name}")
    return Entry(shape, KINDS[kind], start)
