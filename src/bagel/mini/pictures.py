"""Pictures of the world without end, for the autoencoder, the same ones for the same numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from bagel import world
from bagel.data.recipes.world import WorldOptions, exercise


class Pictures(IterableDataset[Tensor]):
    """Batches uint8 [B, 3, 128, 128]; batch n is the same on any number of workers. start: first batch; tasks: as
    the recipe `world` has them."""

    def __init__(self, batch: int, seed: int, start: int = 0, tasks: Mapping[str, Any] | None = None) -> None:
        self.batch, self.start = batch, start
        self.options = WorldOptions(seed=seed, tasks=tasks or {})

    def __iter__(self) -> Iterator[Tensor]:
        torch.set_num_threads(1)
        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        number = self.start + first
        while True:
            yield self.make(number)
            number += step

    def make(self, number: int) -> Tensor:
        found: list[np.ndarray] = []
        index = number * self.batch
        while len(found) < self.batch:
            sample = exercise(self.options, index)
            shown = [part for part in sample.parts if isinstance(part, world.Picture)]
            found += [part.pixels() for part in shown[-2:]]  # of a clip only the last ones
            index += 1
        return torch.from_numpy(np.stack(found[: self.batch])).permute(0, 3, 1, 2).contiguous()


def batches(pictures: Pictures, workers: int, pin: bool) -> Iterator[Tensor]:
    """In order, read ahead by `workers` processes."""
    extra: dict[str, Any] = {"prefetch_factor": 4, "persistent_workers": True} if workers else {}
    loader: DataLoader[Tensor] = DataLoader(pictures, batch_size=None, num_workers=workers, pin_memory=pin, **extra)
    return iter(loader)
