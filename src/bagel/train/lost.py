"""What is said when another rank has died or hangs."""

from __future__ import annotations

from pathlib import Path

import torch.distributed as dist

from bagel.train import state
from bagel.train.errors import TrainError


def is_lost(error: BaseException) -> bool:
    """Whether an error says that a rank no longer answers: a closed connection, or none within
    `parallel.timeout_minutes`."""
    return isinstance(error, dist.DistError) or any(sign in str(error) for sign in ("gloo/transport", "ProcessGroup"))


def lost(error: BaseException, rank: int, run: Path) -> TrainError:
    """The sentence for the user: what this rank saw, and where the run goes on."""
    path = state.newest(run)
    kept = f"{path.name} is the last whole checkpoint, and the same command goes on from there" if path else (
        "there is no checkpoint yet, and the same command begins again"
    )  # fmt: skip
    seen = str(error).splitlines()[0].rpartition("] ")[2].split(". ")[0]
    return TrainError(
        f"rank {rank}: another rank has ended or hangs ({seen}); look at what the other ranks said. In {run}, {kept} "
        "(torchrun --max-restarts does so by itself)."
    )
