"""Dataclasses of tensors as one block of memory: passed between processes, pinned and copied to a device as one
tensor, where forty take as many file descriptors, registrations and copies."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.multiprocessing import get_sharing_strategy
from torch.utils.data import get_worker_info

T = TypeVar("T")

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


@dataclass(frozen=True, slots=True)
class Parcel(Generic[T]):
    """A dataclass on its way from a worker of a `DataLoader`, unopened: the loader passes on one tensor."""

    block: Tensor
    parts: Any

    @classmethod
    def of(cls, value: T) -> Parcel[T]:
        return cls(*to_block(value, _shared if get_worker_info() else _private))

    def pin_memory(self) -> Parcel[T]:
        """Called by the loader's pinning thread, which has no more use for this one: its memory is given back."""
        pinned = self.block.pin_memory()
        _give_back(self.block)
        return Parcel(pinned, self.parts)

    def opened(self) -> T:
        value: T = from_block(self.block, self.parts)
        return value


def _private(size: int, device: torch.device | None = None) -> Tensor:
    return torch.empty(size, dtype=torch.uint8, device=device)


def _shared(size: int, device: torch.device | None = None) -> Tensor:
    """Memory that other processes may read from the start: shared later on, it would be copied."""
    return torch.empty(0, dtype=torch.uint8).set_(torch.UntypedStorage._new_shared(size))


def _give_back(block: Tensor) -> None:
    """Frees the pages of shared memory that nobody reads any more. Where the last tensor goes the kernel does so while
    Python's lock is held, 25 ms for 160 MB in which no kernel is launched; here the lock is free."""
    if block.is_shared() and block.device.type == "cpu" and get_sharing_strategy() == "file_descriptor":
        descriptor, _ = block.untyped_storage()._share_fd_cpu_()  # of memory that is shared: the one that it has
        os.ftruncate(descriptor, 0)


def to_block(value: Any, allocate: Callable[[int, torch.device | None], Tensor] = _private) -> tuple[Tensor, Any]:
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
        block = allocate(size, tensors[0].device if tensors else None)
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
    """Not a view to autograd, which would have a compiler look at the whole block besides."""
    tensor = torch.empty(0, dtype=place.dtype, device=block.device)
    return tensor.set_(block.untyped_storage(), place.start // place.dtype.itemsize, place.shape)  # type: ignore[call-overload]
