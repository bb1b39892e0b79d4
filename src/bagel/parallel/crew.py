"""What the processes of a grid say to each other. The first leads: it sends orders over the hosts, tensors follow
over the devices, and every rank does its part. Nobody waits on a GPU for an order, so that a crew may be idle for
days."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor

from bagel.errors import DeviceError
from bagel.parallel.grid import AXES, Grid

PATIENCE = timedelta(minutes=10)
"""How long a rank may be late for a sum or an exchange."""
_FOREVER = timedelta(days=3650)


def check_free() -> None:
    """Raises DeviceError where this process cannot belong to a crew."""
    import torch.distributed as dist

    if not dist.is_available():
        raise DeviceError("this build of PyTorch has no torch.distributed; use one device.")
    if dist.is_initialized():
        raise DeviceError(
            "this process belongs to a process group already, maybe of another model; close() that one, or load this "
            "one in a process of its own."
        )


@dataclass
class Crew:
    """This rank among all. groups: of each axis of the grid that has more than one device."""

    rank: int
    size: int
    device: torch.device
    grid: Grid = field(default_factory=Grid)
    groups: dict[str, Any] = field(default_factory=dict)
    _orders: Any = None

    @classmethod
    def join(cls, store: Any, rank: int, size: int, device: torch.device) -> Crew:
        """Meets the others. store: where they find each other, or None under torchrun. Raises DeviceError."""
        import torch.distributed as dist

        check_free()
        if device.type == "cuda":
            torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
        return cls(rank, size, device, _orders=dist.new_group(backend="gloo", timeout=_FOREVER))

    def take_places(self, grid: Grid) -> None:
        """Makes the groups of a grid; all ranks call it together."""
        import torch.distributed as dist

        self.grid = grid
        for axis in AXES:
            if getattr(grid, axis) == 1:
                continue
            for ranks in grid.groups(axis):
                group = dist.new_group(ranks)
                if self.rank in ranks:
                    self.groups[axis] = group

    @property
    def place(self) -> tuple[int, int, int]:
        return self.grid.place(self.rank)

    def order(self, what: Any) -> None:
        """Says a plain value to all; the leader calls it."""
        import torch.distributed as dist

        dist.broadcast_object_list([what], src=0, group=self._orders)

    def next_order(self) -> Any:
        """Waits for it; None where the leader has gone."""
        import torch.distributed as dist

        box: list[Any] = [None]
        try:
            dist.broadcast_object_list(box, src=0, group=self._orders)
        except RuntimeError:
            return None
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """Everyone's plain value, by rank."""
        import torch.distributed as dist

        everyone: list[Any] = [None] * self.size
        dist.all_gather_object(everyone, value, group=self._orders)
        return everyone

    def share_out(self, tensors: Sequence[Tensor]) -> None:
        """Fills the tensors of all others with the leader's."""
        import torch.distributed as dist

        for tensor in tensors:
            dist.broadcast(tensor, src=0)

    def send(self, tensor: Tensor) -> None:
        """To the leader."""
        import torch.distributed as dist

        dist.send(tensor, dst=0)

    def receive(self, tensor: Tensor, rank: int) -> None:
        import torch.distributed as dist

        dist.recv(tensor, src=rank)

    def abort(self) -> None:
        """Ends what waits for a rank that has gone, on the GPUs; on the CPU it fails by itself."""
        import torch.distributed as dist

        if self.device.type != "cuda":
            return
        for group in (*self.groups.values(), dist.group.WORLD):
            backend = group._get_backend(self.device)
            if hasattr(backend, "abort"):
                backend.abort()

    def leave(self) -> None:
        leave()


def leave() -> None:
    """This process belongs to no group any more."""
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()
