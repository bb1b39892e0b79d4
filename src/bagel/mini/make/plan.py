"""What `python -m bagel.mini make` is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bagel.checkpoint import WEIGHTS
from bagel.data.config import build
from bagel.errors import InputError
from bagel.infer.pipeline import find_model
from bagel.train import config as configs


@dataclass(frozen=True, kw_only=True)
class Plan:
    """minutes: of everything, counted from the first start in `work`; the same command goes on within them.
    start: a folder, or `mini`, from which sizes, tokenizer and autoencoder are taken. init: `checkpoint`, its weights
    too; `scratch`, random ones; null: its weights where it holds any. autoencoder, pretrain, finish: configs of the
    stages. autoencoder_minutes: 0 leaves the autoencoder as it is. finish_minutes: the last of training, in which the
    rate falls. judge_minutes: for `limit` exercises of each category at the end, `batch` side by side.
    probe_every: minutes between looks at the running mean with `probe_limit` exercises of each category, 0 for none.
    first_step_seconds: a training without a step by then is started again, not compiled; quiet_seconds: one without a
    further step, as it was. tries: starts of each training. overrides: key=value of both trainings.
    """

    work: str
    start: str
    init: str | None = None
    autoencoder: str
    pretrain: str
    finish: str
    minutes: float = 27.0
    autoencoder_minutes: float = 0.0
    finish_minutes: float = 6.0
    judge_minutes: float = 2.5
    limit: int = 60
    batch: int = 256
    probe_every: float = 5.0
    probe_limit: int = 2
    first_step_seconds: float = 150.0
    quiet_seconds: float = 90.0
    tries: int = 4
    overrides: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.init not in (None, "checkpoint", "scratch"):
            raise InputError(f"init is {self.init!r}; use checkpoint or scratch.")
        needed = self.autoencoder_minutes + self.finish_minutes + self.judge_minutes + EXPORT_SECONDS / 60
        if self.minutes <= needed:
            raise InputError(
                f"minutes is {self.minutes:g}, but the autoencoder, the finish, the judging and the export want "
                f"{needed:g} of them; give more, or shorten those."
            )

    @property
    def begins_from_weights(self) -> bool:
        return (self.folder / WEIGHTS).exists() if self.init is None else self.init == "checkpoint"

    @property
    def folder(self) -> Path:
        """That of `start`. Raises CheckpointError if there is none."""
        return find_model(self.start)


EXPORT_SECONDS = 30.0
"""Kept free for the export."""


def read_plan(path: Path, overrides: Sequence[str]) -> Plan:
    """A YAML file, then key=value; what follows the word `train` changes both trainings, as in
    `minutes=20 train optim.lr=1e-3`. The file's `init` is that of its own `start`. Raises InputError."""
    own, more = list(overrides), []
    if "train" in own:
        place = own.index("train")
        own, more = own[:place], own[place + 1 :]
    data = configs.read(path, own)
    given = {item.partition("=")[0] for item in own}
    if "start" in given and "init" not in given:
        data.pop("init", None)
    data["overrides"] = [*data.get("overrides", ()), *more]
    return build(Plan, data, "make")
