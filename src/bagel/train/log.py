"""What a run tells while it runs: one line a step on the screen, in `log.jsonl`, TensorBoard and, if asked for,
Weights & Biases. Only the first rank speaks."""

from __future__ import annotations

import json
import math
import secrets
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from bagel.data.packing import TrainPack
from bagel.model.config import ModelConfig
from bagel.train import freeze
from bagel.train.config import TrainConfig
from bagel.train.setup import Setup

LINES = "log.jsonl"
MAX_SAID = 5
"""Skipped rows that are told on the screen."""

PEAK = {
    "H100": 989e12, "H200": 989e12, "H800": 989e12, "GH200": 989e12, "A100": 312e12, "A800": 312e12,
    "B200": 2250e12, "B100": 1750e12, "L40S": 362e12, "4090": 165e12, "5090": 209e12, "A6000": 155e12,
}  # fmt: skip
"""Dense bf16 products a second, by a part of the device's name."""


def flops(config: ModelConfig, batch: TrainPack) -> float:
    """Of one pack, forward and backward, nothing recomputed, the VAE not counted: 6 x weights of one expert x
    tokens + 6 x ViT weights x patches + 6 x vocabulary x width x labelled tokens + attention, 12 x layers x width x
    sum of squared sample lengths."""
    llm, vit = config.llm, config.vit
    width, heads = llm.hidden_size, llm.num_attention_heads + 2 * llm.num_key_value_heads
    layer = width * heads * llm.head_dim + width * width + 3 * width * llm.intermediate_size
    vit_layer = 4 * vit.hidden_size**2 + 2 * vit.hidden_size * vit.intermediate_size
    squares = sum(length**2 for length in batch.sample_lengths)
    return float(
        6 * layer * llm.num_hidden_layers * len(batch)
        + 6 * vit_layer * vit.num_built_layers * batch.counts["vit"]
        + 6 * llm.vocab_size * width * batch.counts["ce"]
        + 12 * llm.num_hidden_layers * width * squares
    )


def peak_flops(device: torch.device) -> float | None:
    """What the device can do a second; None for an unknown one, whose MFU is not shown."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return next((peak for part, peak in PEAK.items() if part in name), None)


def memory_gib(device: torch.device) -> float:
    """Most memory held so far, GiB: of the GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


class Reporter:
    """Use as a context manager. Ranks but the first write nothing but the rows that they skipped. start: steps done
    before; what was told of later ones, by a run that was killed, is forgotten. end: when this process must stop, on
    time.monotonic()."""

    def __init__(self, config: TrainConfig, is_main: bool, start: int, end: float = math.inf, rank: int = 0) -> None:
        self.config, self.rank, self.is_main, self.folder = config, rank, is_main, Path(config.run)
        self.console = Console(stderr=True, quiet=not is_main)
        silent = not (is_main and self.console.is_terminal)  # a file gets the lines of the steps, and no bar
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"), console=self.console, disable=silent,
        )  # fmt: skip
        self._task: TaskID = self._progress.add_task("training", total=config.steps, completed=start, left="")
        self._writer: Any = None
        self._opened: Any = None
        self._wandb: Any = None
        self._clock = time.perf_counter()
        self._start, self._pace = start, Pace(config.steps, end)
        self._skipped = 0

    def __enter__(self) -> Reporter:
        if self.is_main:
            self.folder.mkdir(parents=True, exist_ok=True)
            _forget_after(self.folder / LINES, self._start)
            self._writer = self._tensorboard() if self.config.log.tensorboard else None
            self._wandb = self._weights_and_biases() if self.config.log.wandb else None
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._progress.stop()
        if self._opened:
            self._opened.close()
        if self._wandb:
            self._wandb.finish(exit_code=int(kind is not None))

    def introduce(self, setup: Setup) -> None:
        """Coverage of the base weights, and what is trained."""
        for line in setup.start.coverage().lines():
            self.say(line)
        table = Table("part", "trained", "parameters", title="Trained parameters")
        for part, trained, total in freeze.table(setup.checkpoint.model):
            table.add_row(part, f"{trained:,}", f"{total:,}")
        self.console.print(table)

    def say(self, text: str) -> None:
        """A line of its own, which a file gets whole, however long it is."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def seconds(self) -> float:
        """Since the last call."""
        now = time.perf_counter()
        passed, self._clock = now - self._clock, now
        return passed

    def step(self, step: int, values: Mapping[str, float | None]) -> None:
        if not self.is_main:
            return
        known = {name: value for name, value in values.items() if value is not None}
        with (self.folder / LINES).open("a", encoding="utf-8") as lines:
            lines.write(json.dumps({"step": step, **known}) + "\n")
        left = self._pace.left(step, time.monotonic())
        self._progress.update(self._task, completed=step, description=_short(known), left=left)
        if step % self.config.log.every and step != self.config.steps:
            return
        if board := self._board():
            for name, value in known.items():
                board.add_scalar(name, value, step)
        if self._wandb:
            self._wandb.log(dict(known), step=step)
        if not self.console.is_terminal:
            self.say(f"step {step}/{self.config.steps}  {_short(known)}{left and '  '}{left}")

    def skipped(self, rows: Sequence[str]) -> None:
        """Rows that this rank passed over, a sentence each: all in a file of its own, the first ones on the screen."""
        if not rows:
            return
        path = self.folder / f"skipped-rank-{self.rank}.txt"
        with path.open("a", encoding="utf-8") as lines:
            lines.writelines(f"{row}\n" for row in rows)
        for row in rows[: max(0, MAX_SAID - self._skipped)]:
            self.say(f"skipped: {row}")
        if self._skipped < MAX_SAID <= self._skipped + len(rows):
            self.say(f"Further rows that are skipped stand in {path}.")
        self._skipped += len(rows)

    def sample(self, step: int, name: str, text: str, image: Any = None) -> None:
        """A picture or an answer made during training; `image`: a PIL picture."""
        if not self.is_main:
            return
        folder = self.folder / "samples" / f"step-{step:08d}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
        if image is not None:
            image.save(folder / f"{name}.png")
        board = self._board()
        if board and image is not None:
            import numpy as np

            board.add_image(f"samples/{name}", np.array(image), step, dataformats="HWC")
        if board:
            board.add_text(f"samples/{name}", text, step)

    def _board(self) -> Any:
        """TensorBoard's writer, or None. It writes a file as soon as there is one, so it is made when there is
        something to write: a start that fails leaves none."""
        if self._opened is None and self._writer:
            self._opened = self._writer(str(self.folder / "tensorboard"), purge_step=self._start + 1)
        return self._opened

    def _tensorboard(self) -> Any:
        """The class of its writer."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self.say("tensorboard is not installed (`pip install tensorboard`): log.jsonl alone is written.")
            return None
        return SummaryWriter

    def _weights_and_biases(self) -> Any:
        from bagel.errors import InputError

        try:
            import wandb
        except ImportError:
            raise InputError("log.wandb needs `pip install wandb`; set it to null to do without.") from None
        path = self.folder / "wandb-id"  # the run goes on as one, however often it is stopped
        if not path.exists():
            path.write_text(secrets.token_hex(8), encoding="utf-8")
        wandb.init(
            project=self.config.log.wandb, dir=self.folder, name=self.folder.name, id=path.read_text(encoding="utf-8"),
            resume="allow",
        )  # fmt: skip
        return wandb


class Pace:
    """How long a run still takes: from the steps of this process but its first, which compiles."""

    def __init__(self, steps: int, end: float) -> None:
        self._steps, self._end = steps, end
        self._first: tuple[int, float] | None = None

    def left(self, step: int, now: float) -> str:
        """After `step` at the time `now`; nothing while it cannot be told. Where `max_minutes` ends the run earlier,
        that is said, with the step that it will have reached."""
        first, self._first = self._first, self._first or (step, now)
        if first is None or step == first[0]:
            return ""
        pace = (now - first[1]) / (step - first[0])
        needed, given = pace * (self._steps - step), max(0.0, self._end - now)
        if needed <= given:
            return f"{_clock(needed)} left"
        return f"{_clock(given)} left by max_minutes, to about step {step + int(given / pace)}"


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _forget_after(path: Path, step: int) -> None:
    """Lines of later steps, which are done again."""
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if _step_of(line) <= step]
    if len(kept) < len(lines):
        partial = path.with_suffix(".partial")
        partial.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        partial.replace(path)


def _step_of(line: str) -> float:
    """Infinite for a line that a killed run left unfinished."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf


def _short(values: Mapping[str, float]) -> str:
    formats = {
        "ce": "ce {:.4f}", "mse": "mse {:.4f}", "grad_norm": "norm {:.3g}", "tokens_per_second": "{:,.0f} tokens/s",
        "mfu": "MFU {:.1%}", "memory_gib": "{:.1f} GiB", "data_wait": "data wait {:.1%}",
    }  # fmt: skip
    return "  ".join(text.format(values[name]) for name, text in formats.items() if name in values)
