"""Checkpoints of a run: sharded, written in the background, whole or not there.

    RUN/checkpoints/step-00000500/    .metadata, *.distcp   weights that are trained, EMA, optimiser (Distributed
                                                            Checkpoint; loads on any number of ranks)
                                      progress.json         step, data state of every rank

A checkpoint is written under another name and renamed when every rank is done, so that whatever stands there is
whole. Frozen weights are not stored: they are those of `model.path`. There is no state of random generators: every
draw follows from the data's seeds.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Collection, Mapping
from concurrent.futures import Future
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException

from bagel.errors import CheckpointError
from bagel.train import eight_bit
from bagel.train.parallel import World

FOLDER, PROGRESS = "checkpoints", "progress.json"


def newest(run: Path) -> Path | None:
    """The newest whole checkpoint of a run."""
    found = sorted(path for path in (run / FOLDER).glob("step-*") if (path / PROGRESS).exists())
    return found[-1] if found else None


def last_whole(run: Path) -> str:
    """A sentence for errors."""
    path = newest(run)
    return f"{path.name} is the last whole checkpoint." if path else "There is no whole checkpoint yet."


class Checkpoints:
    """The checkpoints of a run. All ranks call `save`, `finish` and `load` together. minutes: that a rank waits for
    the others to have written theirs."""

    def __init__(self, run: Path, keep: int, world: World, minutes: float = 60) -> None:
        self.folder, self.keep, self.world = run / FOLDER, keep, world
        self._writing: tuple[Future[Any], Path] | None = None
        # Written from another thread: its collectives must not meet those of training.
        self._group = dist.new_group(backend="gloo", timeout=timedelta(minutes=minutes)) if world.size > 1 else None
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
        if world.is_main:
            self.folder.mkdir(parents=True, exist_ok=True)
            for left in self.folder.glob(".*.partial"):
                shutil.rmtree(left, ignore_errors=True)
        world.wait()

    def save(self, step: int, tensors: Mapping[str, Tensor], progress: Mapping[str, Any]) -> str | None:
        """Starts writing; returns as soon as the tensors are copied to host memory. progress: plain values, the
        same on every rank. -> what went wrong with the one before, if anything."""
        before = self.finish()
        partial = self.folder / f".step-{step:08d}.partial"
        problem = self._begin(partial, progress)
        if problem:
            return before or problem
        self._writing = (
            _async_save(_copied(eight_bit.flat(tensors)), partial, self._group),
            self.folder / f"step-{step:08d}",
        )
        return before

    def _begin(self, partial: Path, progress: Mapping[str, Any]) -> str | None:
        problem = None
        if self.world.is_main:
            try:
                partial.mkdir(parents=True)
                (partial / PROGRESS).write_text(json.dumps(progress), encoding="utf-8")
            except OSError as error:
                shutil.rmtree(partial, ignore_errors=True)
                problem = _problem(self.folder / f"step-{progress['step']:08d}", error)
        return next((found for found in self.world.gather(problem) if found), None)

    def poll(self) -> str | None:
        """Completes a checkpoint that has been written meanwhile."""
        return self.finish() if self._writing and self._writing[0].done() else None

    def finish(self) -> str | None:
        """Waits for the checkpoint being written and gives it its name. -> what went wrong, if anything; then
        nothing of it is left, and the one before is as it was."""
        if self._writing is None:
            return None
        (future, final), self._writing = self._writing, None
        partial = final.with_name(f".{final.name}.partial")
        try:
            future.result()
        except (Exception, CheckpointException) as error:  # DCP's own is no Exception
            if self.world.is_main:
                shutil.rmtree(partial, ignore_errors=True)
            return _problem(final, error)
        if self.world.is_main:
            shutil.rmtree(final, ignore_errors=True)
            partial.rename(final)
            for old in sorted(self.folder.glob("step-*"))[: -self.keep]:
                shutil.rmtree(old, ignore_errors=True)
        return None

    def load(self, path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """Fills the tensors in place, whatever the number of ranks that saved them; -> progress.

        Raises CheckpointError if it holds other tensors than wanted.
        """
        import torch.distributed.checkpoint as dcp

        stored, own = sizes(path), eight_bit.flat(tensors)
        wanted = {name for rank in self.world.gather(list(own)) for name in rank}
        other = _states(wanted ^ stored.keys()) & _states(wanted) & _states(stored)
        missing, surplus = (
            sorted(name for name in names if eight_bit.state_of(name) not in other)
            for names in (wanted - stored.keys(), stored.keys() - wanted)
        )
        if missing or surplus:
            raise CheckpointError(
                f"{path} was saved with other settings (freeze, lora, optim.name or optim.ema): it lacks "
                f"{len(missing)} tensors {missing[:3]} and has {len(surplus)} more {surplus[:3]}. "
                "Start a new run."
            )
        _refuse_sizes(
            path, {name: value for name, value in own.items() if eight_bit.state_of(name) not in other}, stored
        )
        same = {name: value.detach() for name, value in own.items() if eight_bit.state_of(name) not in other}
        dcp.load(same, checkpoint_id=path)
        for name in sorted(other & tensors.keys()):
            eight_bit.refill(tensors[name], name, path, stored)
        return dict(json.loads((path / PROGRESS).read_text(encoding="utf-8")))


def _refuse_sizes(path: Path, own: Mapping[str, Tensor], stored: Mapping[str, tuple[torch.Size, torch.dtype]]) -> None:
    for name, value in own.items():
        if value.shape != stored[name][0]:
            raise CheckpointError(
                f"{path} was saved with other sizes (lora.rank, or those of the model): {name} is "
                f"{list(stored[name][0])} there and {list(value.shape)} here. Start a new run."
            )


def _states(names: Collection[str]) -> set[str]:
    """What the tensors are, or are pieces of."""
    return {eight_bit.state_of(name) for name in names}


def sizes(path: Path) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """Name -> (shape, dtype) of all tensors in a checkpoint."""
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    stored = dcp.FileSystemReader(path).read_metadata().state_dict_metadata
    return {
        name: (about.size, about.properties.dtype)
        for name, about in stored.items()
        if isinstance(about, TensorStorageMetadata)
    }


def read(path: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint, whole, in host memory, without any process group (for export): names as saved,
    `model.NAME`, `ema.NAME`, `optim.NAME.KEY`."""
    import torch.distributed.checkpoint as dcp

    tensors = {
        name: torch.empty(size, dtype=dtype)
        for name, (size, dtype) in sizes(path).items()
        if not name.startswith("optim.")
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        dcp.load(tensors, checkpoint_id=path, no_dist=True)
    return tensors


def _copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What lies in host memory is copied here, since training goes on at once; the rest is DCP's to copy."""
    return {
        name: value.detach().clone() if value.device.type == "cpu" else value.detach()
        for name, value in tensors.items()
    }


def _async_save(tensors: dict[str, Tensor], partial: Path, group: Any) -> Future[Any]:
    import torch.distributed.checkpoint as dcp

    future = dcp.async_save(tensors, checkpoint_id=partial, process_group=group)
    assert isinstance(future, Future)
    return future


def _problem(path: Path, error: BaseException) -> str:
    """The innermost cause, in one line."""
    if isinstance(error, CheckpointException):
        error = next(iter(error.failures.values()))[0]
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    remedy = "free some disk" if isinstance(error, OSError) else "look at what the other ranks said"
    return f"{path} could not be written ({error}); {remedy}. {last_whole(path.parent.parent)}"
