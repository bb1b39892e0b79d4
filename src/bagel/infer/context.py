"""What a conversation has read so far: keys and values of every layer, and the next rotary position.

A fork shares its parent's storage and copies nothing. The storage is append-only: whoever comes first
writes behind what both have read; a second branch that wants the same place moves to storage of its own,
once. A dropped branch frees its place as soon as nothing refers to it.

Letters: L layers, S places, M key/value heads, H head width.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from bagel.model.config import LLMConfig
from bagel.sequence import Segment

_GRAIN = 256
Devices = torch.device | Sequence[torch.device]
"""One for all layers, or one for each."""


class Store:
    """Keys and values of up to S tokens in all layers: [L, 2, S, M, H]. With a device for each layer, a tensor
    for every run of layers on one device; `tensor` is then the first."""

    def __init__(self, config: LLMConfig, capacity: int, dtype: torch.dtype, device: Devices) -> None:
        capacity = -(-capacity // _GRAIN) * _GRAIN
        runs = [device] * config.num_hidden_layers if isinstance(device, torch.device) else device
        shape = 2, capacity, config.num_key_value_heads, config.head_dim
        self.tensors: list[Tensor] = []
        self._layers: list[Tensor] = []
        for where, run in itertools.groupby(runs):
            self.tensors.append(torch.empty((len(list(run)), *shape), dtype=dtype, device=where))
            self._layers += self.tensors[-1].unbind()
        self.contexts: weakref.WeakSet[Context] = weakref.WeakSet()

    @property
    def tensor(self) -> Tensor:
        return self.tensors[0]

    @property
    def is_whole(self) -> bool:
        return len(self.tensors) == 1

    @property
    def capacity(self) -> int:
        return self.tensor.shape[2]

    def layer(self, index: int) -> tuple[Tensor, Tensor]:
        """Keys and values of one layer, [S, M, H] each; slices of them are written in place."""
        keys, values = self._layers[index].unbind()
        return keys, values


class Mark(NamedTuple):
    """How far a context has read: see `Context`."""

    length: int
    position: int
    history: tuple[Hashable, ...]

    def after(self, segment: Segment, what: Hashable) -> Mark:
        return Mark(self.length + segment.length, self.position + segment.positions, (*self.history, what))


class Context:
    """A place in a conversation. `length`: tokens kept; `position`: the next rotary position; `history`:
    what was read, so that two contexts can be told equal."""

    def __init__(self, config: LLMConfig, dtype: torch.dtype, device: Devices) -> None:
        self._config, self._device = config, device
        self._store = Store(config, 0, dtype, device)
        self._store.contexts.add(self)
        self.length = self.position = self._reserved = 0
        self.history: tuple[Hashable, ...] = ()

    @property
    def place(self) -> tuple[int, int]:
        """Which storage it reads and how much of it; another place means other keys and values."""
        return self._store.tensor.data_ptr(), self.length

    @property
    def mark(self) -> Mark:
        return Mark(self.length, self.position, self.history)

    def fork(self, at: Mark | None = None) -> Context:
        """A branch that goes on from here, or from an earlier mark; its parent never notices. Copies nothing."""
        child = object.__new__(type(self))
        child._config, child._store, child._device = self._config, self._store, self._device
        child.length, child.position, child.history = at or self.mark
        child._reserved = 0
        child._store.contexts.add(child)
        return child

    def reserve(self, count: int) -> Store:
        """Storage in which places length : length + count are this context's alone to write."""
        end = self.length + count
        if not self.has_room(count):
            self._move(end)
        self._reserved = end
        return self._store

    def has_room(self, count: int) -> bool:
        """Whether `reserve` would find the places where the context is."""
        taken = any(
            max(other.length, other._reserved) > self.length for other in self._store.contexts if other is not self
        )
        return not taken and self.length + count <= self._store.capacity

    def advance(self, segment: Segment, what: Hashable) -> None:
        """Keeps what the last pass wrote."""
        self.length, self.position, self.history = self.mark.after(segment, what)

    def back_to(self, mark: Mark) -> None:
        """Undoes what was read since, after a pass that failed."""
        self.length, self.position, self.history = mark
        self._reserved = 0

    def _move(self, needed: int) -> None:
        old = self._store
        # Room to grow by half, so that a long text is copied a few times only.
        new = Store(self._config, max(needed, self.length * 3 // 2), old.tensor.dtype, self._device)
        for fresh, kept in zip(new.tensors, old.tensors, strict=True):
            fresh[:, :, : self.length] = kept[:, :, : self.length]
        old.contexts.discard(self)
        new.contexts.add(self)
        self._store = new
