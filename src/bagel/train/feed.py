"""Packs on their way to the model: moved to the device, their pictures encoded and noised, and their attention
mask made, on a side stream while the step before still computes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from bagel.data.packing import TrainPack
from bagel.model.attention import Attend, PackAttention, RunAttention
from bagel.train.loss import Counts
from bagel.train.noise import LatentEncoder, noised


class Data(Protocol):
    """Packs without end, with a state to go on from (see `bagel.data.loader.PackLoader`). `load_state_dict` takes
    the states of all ranks that saved."""

    def __iter__(self) -> Iterator[TrainPack]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, states: Sequence[Mapping[str, Any]]) -> None: ...


@dataclass(frozen=True)
class Ready:
    """A pack as the model wants it. target: velocities float32 [M, Z]; counts and the pack's own facts are plain
    numbers, so that no one waits for the device."""

    batch: TrainPack
    target: Tensor
    attend: Attend
    counts: Counts


class Feed:
    """Hands out packs; `ahead` prepares those of the next step. runs: whether the device attends over runs."""

    def __init__(self, data: Data, encoder: LatentEncoder, device: torch.device, runs: bool) -> None:
        self._packs = iter(data)
        self._encoder, self._device, self._runs = encoder, device, runs
        self._side = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._waiting: list[Ready] = []
        self._safe: torch.cuda.Event | None = None
        self.waited = 0.0

    def take(self, count: int) -> list[Ready]:
        """The packs of a step. What the side stream made may be used from here on; memory freed in the step
        before may be written again by the next `ahead`."""
        self._safe = None  # packs that are missing now are made after all that was launched
        self.ahead(count)
        taken, self._waiting = self._waiting[:count], self._waiting[count:]
        if self._side:
            torch.cuda.current_stream().wait_stream(self._side)
            self._safe = torch.cuda.current_stream().record_event()
        return taken

    def ahead(self, count: int) -> None:
        """Prepares packs until `count` are ready. The packs of the present step must still be referred to."""
        if self._side and len(self._waiting) < count:
            current = torch.cuda.current_stream()
            self._side.wait_event(self._safe) if self._safe else self._side.wait_stream(current)
        while len(self._waiting) < count:
            start = time.perf_counter()
            pack = next(self._packs)
            self.waited += time.perf_counter() - start
            with torch.cuda.stream(self._side) if self._side else nullcontext():
                self._waiting.append(self._ready(pack))

    def _ready(self, pack: TrainPack) -> Ready:
        counts = Counts.of([pack])
        moved = pack.to(self._device)
        batch, target = noised(moved, self._encoder(moved))
        by_runs = self._runs and batch.runs is not None
        attend = RunAttention(batch.runs) if by_runs else PackAttention(batch.pack.layout)  # type: ignore[arg-type]
        return Ready(batch, target, attend, counts)
