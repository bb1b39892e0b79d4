"""Dataclasses of tensors as one block of memory: passed between processes, pinned and copied to a device as one
tensor, where forty take as many file descriptors, registrations and copies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

_ALIGN = 64
"""Bytes that every tensor begins at a multiple of."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a tensor lies in the block, in bytes."""

    start: int
    dtype: torch.dtype
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Parts:
    """A dataclass with places instead of tensors, inner dataclasses described likewise, other values as they are."""

    kind: type
    values: dict[str, Any]


def to_block(value: Any) -> tuple[Tensor, Any]:
    """A dataclass, its tensors and those of dataclasses inside -> uint8 [bytes] and what is needed to read it. Without
    a copy where `from_block` made it of a block that is its own."""
    tensors: list[Tensor] = []
    _each(value, tensors.append)
    starts, size = _where_they_are(tensors)
    if starts is None:
        starts, size = [], 0
        for tensor in tensors:
            starts.append(size)
            size += -(-tensor.numel() * tensor.element_size() // _ALIGN) * _ALIGN
        block = torch.empty(size, dtype=torch.uint8, device=tensors[0].device if tensors else None)
        for start, tensor in zip(starts, tensors, strict=True):
            _read(block, _Place(start, tensor.dtype, tuple(tensor.shape))).copy_(tensor)
    else:
        block = torch.empty(0, dtype=torch.uint8, device=tensors[0].device).set_(tensors[0].untyped_storage())
    next_start = iter(starts)
    return block, _each(value, lambda tensor: _Place(next(next_start), tensor.dtype, tuple(tensor.shape)))


def from_block(block: Tensor, parts: Any) -> Any:
    """What `to_block` took, made of views of the block."""
    if isinstance(parts, _Place):
        return _read(block, parts)
    if isinstance(parts, _Parts):
        return parts.kind(**{name: from_block(block, value) for name, value in parts.values.items()})
    return parts


def _each(value: Any, change: Callable[[Tensor], Any]) -> Any:
    """The description of a value; `change` is called for its tensors in order."""
    if isinstance(value, Tensor):
        return change(value)
    if is_dataclass(value) and not isinstance(value, type):
        return _Parts(type(value), {f.name: _each(getattr(value, f.name), change) for f in fields(value)})
    return value


def _where_they_are(tensors: list[Tensor]) -> tuple[list[int] | None, int]:
    """Where tensors begin in their one storage, if they have one that holds little else."""
    if not tensors or len({tensor.untyped_storage().data_ptr() for tensor in tensors}) > 1:
        return None, 0
    used = sum(-(-tensor.numel() * tensor.element_size() // _ALIGN) * _ALIGN for tensor in tensors)
    size = tensors[0].untyped_storage().nbytes()
    if size > used or not all(tensor.is_contiguous() for tensor in tensors):
        return None, 0
    return [int(tensor.storage_offset()) * tensor.element_size() for tensor in tensors], size


def _read(block: Tensor, place: _Place) -> Tensor:
    count = torch.Size(place.shape).numel()
    return block[place.start : place.start + count * place.dtype.itemsize].view(place.dtype).view(place.shape)
