"""The training loop."""

from __future__ import annotations

import gc
import json
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from bagel.data.check import look_over
from bagel.data.loader import PackLoader, of_a_killed_worker
from bagel.errors import InputError
from bagel.model.varlen import can_run
from bagel.train import config as configs
from bagel.train import folder, optim, parallel, samples, state, update
from bagel.train.config import RESOLVED, TrainConfig
from bagel.train.errors import TrainError
from bagel.train.feed import Data, Feed, Ready
from bagel.train.freeze import UndFrozen
from bagel.train.init import Start
from bagel.train.log import Reporter, flops, memory_gib, peak_flops
from bagel.train.loss import Counts, errors, sums, total
from bagel.train.lost import is_lost, lost
from bagel.train.setup import Setup, open_data, prepare, start_of
from bagel.train.stop import Stop, stop_asked

COLLECT_EVERY = 500
"""Steps between collections of Python's garbage."""
NOTHING_LEARNT = (
    "the gradient of the first step is zero: what is trained has no part in these samples. Look at freeze, "
    "lora.experts and the recipes of the data sets."
)


def run(config_path: str | Path, overrides: Sequence[str] = ()) -> None:
    """`bagel train CONFIG.yaml key=value ...`, alone or under torchrun."""
    train(configs.load(Path(config_path), overrides))


def train(config: TrainConfig, data: Data | None = None) -> None:
    """Trains until `config.steps`, `config.max_minutes` or SIGTERM, going on from the newest whole checkpoint.

    data: packs from elsewhere than `config.data`. Raises InputError, CheckpointError or TrainError.
    """
    start = start_of(config.model, config.data.seed)
    samples.check(config.samples)
    notes: list[str] = []
    if data is None:
        data, notes = _looked_over(config, start)
    with folder.held(Path(config.run)):
        _train(config, start, data, notes)


def _train(config: TrainConfig, start: Start, data: Data, notes: list[str]) -> None:
    world = parallel.start(config.parallel, config.device)
    end = time.monotonic() + 60 * config.max_minutes if config.max_minutes else math.inf
    try:
        changed = folder.changes(config)
        setup = prepare(config, world, start, data)
        step = resume(setup)
        with Reporter(config, world.is_main, step, end, world.rank) as reporter, stop_asked(end) as stop:
            if world.is_main:
                (Path(config.run) / RESOLVED).write_text(config.to_yaml(), encoding="utf-8")
            reporter.introduce(setup)
            for note in notes:
                reporter.say(f"WARNING: {note}")
            if step:
                reporter.say(_going_on(step, config.steps))
            if changed:
                reporter.say(changed)
            Trainer(setup, reporter, stop, step).run()
    except RuntimeError as error:
        if world.size > 1 and is_lost(error):
            raise lost(error, world.rank, Path(config.run)) from error
        killed = of_a_killed_worker(error)
        if killed:
            raise killed from error
        raise
    finally:
        gc.enable()
        gc.unfreeze()
        parallel.stop(world)


def _looked_over(config: TrainConfig, start: Start) -> tuple[PackLoader, list[str]]:
    """The data, and what the first rank found wrong with it; no device is touched yet."""
    data = open_data(config, start)
    own = config.data
    first = int(os.environ.get("RANK", 0)) == 0
    return data, look_over(data.datasets, own.check_rows, own.bad_rows) if first else []


def _going_on(done: int, steps: int) -> str:
    if done < steps:
        return f"going on after step {done}"
    return f"nothing is left to do: {done} steps are done, and steps is {steps}. To go on, give more: steps={2 * done}."


def resume(setup: Setup) -> int:
    """Loads the newest whole checkpoint; -> the number of steps done."""
    path = state.newest(Path(setup.config.run))
    if path is None:
        return 0
    progress = setup.checkpoints.load(path, setup.tensors())
    setup.data.load_state_dict(progress["data"])
    return int(progress["step"])


class Agreed(NamedTuple):
    """Sums over all ranks, known before a step computes."""

    ce_weights: float
    mse_tokens: float
    stop: float
    save: float
    seconds_left: float
    tokens: float
    flops: float
    skipped: float


class Done(NamedTuple):
    """A step that was launched; its numbers are on the device and are read when it is reported. sums: [packs, 2]
    of this rank."""

    step: int
    agreed: Agreed
    sums: Tensor
    norm: Tensor
    rate: float
    packs: list[tuple[str, ...]]


class Trainer:
    """Steps, reports, saves."""

    def __init__(self, setup: Setup, reporter: Reporter, stop: Stop, step: int) -> None:
        self.setup, self.reporter, self.stop = setup, reporter, stop
        self.config, self.world, self.model = setup.config, setup.world, setup.checkpoint.model
        self.number = self.first = step
        self.feed = self.fed_by(setup.data)
        self.update = update.make(setup)
        self.peak = peak_flops(self.world.device)
        self.unread: Done | None = None
        self.waited = 0.0
        self.saved = time.monotonic()

    def fed_by(self, data: Data) -> Feed:
        device = self.world.device
        compute = parallel.compute_dtype(self.config.parallel, device)
        by_runs = can_run(device, compute, self.model.config.llm.head_dim)
        return Feed(data, self.setup.encoder, device, by_runs)

    def run(self) -> None:
        ended = self.number >= self.config.steps
        self.reporter.seconds()
        gc.freeze()
        gc.disable()  # ranks that collect at different times wait for each other
        while not ended:
            done, ended, save = self.step()
            self._read()
            self.unread = done
            if save or self.number == self.first + 1 or self.world.device.type == "cpu":
                self._read()
            if save:
                self._save()
            self._tell(self.setup.checkpoints.poll())
            if self.config.samples.every and self.number % self.config.samples.every == 0:
                self._sample()
            if self.number % COLLECT_EVERY == 0:
                gc.collect()
        problem = self.setup.checkpoints.finish()
        if problem:
            raise TrainError(problem)
        if self.number < self.config.steps:
            self.reporter.say(f"stopped after step {self.number}; the same command goes on from there.")

    def step(self) -> tuple[Done, bool, bool]:
        """One optimizer step over `accumulate` packs; -> what it did, whether it is the last, whether to save.

        The packs of the next step are prepared while this one computes, unless a checkpoint follows: its data
        state must be that of the packs that were trained on.
        """
        ready = self.feed.take(self.config.accumulate)
        self.reporter.skipped([row for one in ready for row in one.batch.skipped])
        agreed = self._agree(ready)
        ended = bool(agreed.stop) or self.number + 1 == self.config.steps
        every = self.config.save.every
        save = ended or bool(agreed.save) or bool(every and (self.number + 1) % every == 0)
        found = [self._backward(one, agreed, index) for index, one in enumerate(ready)]
        if not save:
            self.feed.ahead(self.config.accumulate)
        left = agreed.seconds_left / self.world.size
        rate = optim.rate(self.config.optim, self.number, self.config.steps, left)
        self.number += 1
        norm = self.update(rate, self.number)
        names = [one.batch.samples for one in ready]
        return Done(self.number, agreed, torch.stack(found), norm, rate, names), ended, save

    def _agree(self, ready: Sequence[Ready]) -> Agreed:
        batches = [one.batch for one in ready]
        own = Agreed(
            ce_weights=sum(one.counts.ce for one in ready),
            mse_tokens=sum(one.counts.mse for one in ready),
            stop=float(bool(self.stop)),
            save=float(self._save_is_due()),
            seconds_left=self.stop.seconds_left,
            tokens=sum(len(batch) for batch in batches),
            flops=sum(flops(self.model.config, batch) for batch in batches),
            skipped=sum(len(batch.skipped) for batch in batches),
        )
        return Agreed(*self.world.sum(own))

    def _backward(self, one: Ready, agreed: Agreed, index: int) -> Tensor:
        """Gradients of one pack; -> its two sums. FSDP takes the mean over ranks of what is a sum already."""
        torch.manual_seed(hash((self.config.data.seed, self.number, self.world.rank, index)) % 2**63)
        attend = UndFrozen(one.attend) if self.config.freeze.und else one.attend
        found = sums(errors(self.model, one.batch, one.target, attend, self.config.loss.chunk_rows), one.batch)
        loss = total(found, Counts(agreed.ce_weights, agreed.mse_tokens), self.config.loss)
        if loss.requires_grad:
            (loss * self.world.size).backward()
        return torch.stack(found).detach()

    # --- after a step ------------------------------------------------------------------------------------

    def _read(self) -> None:
        """Reads the numbers of the last step, stops the run if they are wrong, and reports them."""
        done, self.unread = self.unread, None
        if done is None:
            return
        own = done.sums.double().tolist()
        waited, self.waited = self.feed.waited - self.waited, self.feed.waited  # since the last step was read
        ce_sum, mse_sum, waited = self.world.sum([*(sum(pack[task] for pack in own) for task in (0, 1)), waited])
        ce = ce_sum / done.agreed.ce_weights if done.agreed.ce_weights else None
        mse = mse_sum / done.agreed.mse_tokens if done.agreed.mse_tokens else None
        norm = float(done.norm)
        self._check_finite(done, own, ce, mse, norm)
        if done.step == 1:
            self._check_first(ce, mse)
            self._tell(None if norm else NOTHING_LEARNT)
        seconds, size = self.reporter.seconds(), self.world.size
        part = self.config.loss
        values = {
            "loss": part.ce_weight * (ce or 0.0) + part.mse_weight * (mse or 0.0),
            "ce": ce,
            "mse": mse,
            "grad_norm": norm,
            "lr": done.rate,
            "tokens": done.agreed.tokens,
            "tokens_per_second": done.agreed.tokens / seconds,
            "mfu": done.agreed.flops / seconds / size / self.peak if self.peak else None,
            "memory_gib": memory_gib(self.world.device),
            "skipped": done.agreed.skipped,
            "data_wait": min(1.0, waited / size / seconds),
        }
        self.reporter.step(done.step, values)

    def _check_finite(
        self, done: Done, own: list[list[float]], ce: float | None, mse: float | None, norm: float
    ) -> None:
        if all(value is None or math.isfinite(value) for value in (ce, mse, norm)):
            return
        bad = [list(names) for names, pack in zip(done.packs, own, strict=True) if not all(map(math.isfinite, pack))]
        everyone = self.world.gather(bad)
        packs = [names for rank in everyone for names in rank] or [list(names) for names in done.packs]
        path = Path(self.config.run) / f"bad-batch-step-{done.step:08d}.json"
        if self.world.is_main:
            path.write_text(json.dumps({"step": done.step, "ce": ce, "mse": mse, "samples": packs}), encoding="utf-8")
        last = self._last_checkpoint()
        raise TrainError(
            f"step {done.step}: cross-entropy {ce}, squared error {mse}, gradient norm {norm}. The pack holds "
            f"{', '.join(packs[0][:5])}{' ...' if len(packs[0]) > 5 else ''} (all in {path.name}). {last}"
        )

    def _last_checkpoint(self) -> str:
        self.setup.checkpoints.finish()
        return state.last_whole(Path(self.config.run))

    def _check_first(self, ce: float | None, mse: float | None) -> None:
        part = self.config.loss
        for name, value, limit, what in (
            ("ce_limit", ce, part.ce_limit, "cross-entropy"), ("mse_limit", mse, part.mse_limit, "squared error")
        ):  # fmt: skip
            if value is not None and limit is not None and value > limit:
                share = self.setup.start.coverage().share
                cause = (
                    "the weights do not fit the configuration (another tokenizer, position table or timestep_shift?)"
                    if share > 0.99
                    else f"only {share:.1%} of the base weights came from files"
                )
                raise TrainError(
                    f"the first {what} is {value:.3f}, above loss.{name} {limit}: likely {cause}. Set loss.{name} to "
                    "null if such a start is meant."
                )

    def _save_is_due(self) -> bool:
        minutes = self.config.save.minutes
        return minutes is not None and time.monotonic() - self.saved > 60 * minutes

    def _save(self) -> None:
        self.saved = time.monotonic()
        of_rank = self.world.gather(self.setup.data.state_dict())
        progress = {"step": self.number, "ranks": self.world.size, "data": of_rank}
        self._tell(self.setup.checkpoints.save(self.number, self.setup.tensors(), progress))

    def _sample(self) -> None:
        """A sample that cannot be made, which every rank finds alike, is no reason to lose the run."""
        try:
            for shown in samples.make(self.setup):
                self.reporter.sample(self.number, shown.name, shown.text, shown.image)
        except InputError as error:
            self._tell(f"the samples of step {self.number} were not made: {error}")

    def _tell(self, problem: str | None) -> None:
        if problem:
            self.reporter.say(f"WARNING: {problem}")
