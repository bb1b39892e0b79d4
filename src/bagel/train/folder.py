"""The folder of a run: that it can be written, that no other run writes it, and what a start changes in it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from errno import EACCES, EAGAIN
from pathlib import Path
from typing import IO, Any

from bagel.data.config import build
from bagel.errors import CheckpointError, InputError
from bagel.lora import LoraConfig
from bagel.train.config import RESOLVED, TrainConfig
from bagel.train.state import newest
from bagel.train.yaml_files import flat, read

LOCK = ".lock"
MAX_CHANGES = 8
"""Changed settings that are told one by one."""


@contextmanager
def held(run: Path) -> Iterator[None]:
    """The folder, made and held by the first rank, so that what cannot be written is told before a device is taken and
    two runs never mix their checkpoints. The system lets go of it when the process ends, however it ends.

    Raises InputError.
    """
    if int(os.environ.get("RANK", 0)):
        yield
        return
    try:
        run.mkdir(parents=True, exist_ok=True)
        file = (run / LOCK).open("a", encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"the run folder {run} cannot be written ({error.strerror or error}); give another: run=FOLDER."
        ) from None
    with file:
        _lock(file, run)
        yield


def _lock(file: IO[str], run: Path) -> None:
    """A lock of the process: the data's workers, which outlive a killed one for seconds, do not inherit it."""
    try:
        import fcntl

        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ModuleNotFoundError:  # Windows
        pass
    except OSError as error:
        if error.errno in (EACCES, EAGAIN):  # else a file system that knows no locks
            raise InputError(
                f"another run is writing {run}; wait for its end, or give this one a folder of its own: run=FOLDER."
            ) from None


def changes(config: TrainConfig) -> str | None:
    """What is set otherwise than at the start before, of a run that goes on, for the user.

    Raises CheckpointError where the saved adapters would count otherwise than while they were trained.
    """
    path = Path(config.run) / RESOLVED
    if not path.exists() or newest(Path(config.run)) is None:
        return None
    before, now = read(path), config.plain()
    _check_adapters(before.get("lora") or {}, config.lora)
    old, new = flat(before), flat(now)
    other = [f"{key} {old[key]} -> {new[key]}" for key in old.keys() & new.keys() if old[key] != new[key]]
    other += [f"{key} is new" for key in new.keys() - old.keys()] + [
        f"{key} is gone" for key in old.keys() - new.keys()
    ]
    more = f" and {len(other) - MAX_CHANGES} more" if len(other) > MAX_CHANGES else ""
    return f"changed since the last start: {', '.join(sorted(other)[:MAX_CHANGES])}{more}" if other else None


def _check_adapters(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    if not before or not now:
        return  # other tensors: the checkpoint itself does not fit
    old, new = build(LoraConfig, before, "lora"), build(LoraConfig, now, "lora")
    for key in ("alpha", "rslora"):
        if getattr(old, key) != getattr(new, key):
            raise CheckpointError(
                f"lora.{key} was {getattr(old, key)} when the run was saved and is {getattr(new, key)} now: its "
                "adapters would count otherwise. Set it back, or start a new run."
            )
