"""The stages in order. Every one has its own end; one that fails is noted, and what comes after takes what there is."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import FrameType

from bagel.checkpoint import WEIGHTS
from bagel.mini.folder import package
from bagel.mini.make.child import Child, run
from bagel.mini.make.plan import EXPORT_SECONDS, Plan
from bagel.mini.make.state import EVAL, MODEL, PACKED, PROBES, START, TRAIN, TRUNK, State
from bagel.train import state as checkpoints
from bagel.train.log import LINES

CLI, OWN = "bagel.app.cli", "bagel.mini"
SPARE = 60.0
"""Seconds that a training may take beyond its end, for saving."""
BEGINNING = 10.0
"""Seconds until a training counts its own."""
SHORTEST = 5.0
"""Seconds for which a training is not started any more."""


def make(plan: Plan) -> None:
    """Does what is left of the plan within what is left of its time."""
    work = Path(plan.work)
    work.mkdir(parents=True, exist_ok=True)
    state = State(work, asdict(plan))
    state.ended = False
    state.end_left_over()
    driver = Driver(plan, state)
    before = signal.signal(signal.SIGTERM, _leave)
    try:
        driver.run()
        state.ended = True
    finally:
        driver.end_children()
        signal.signal(signal.SIGTERM, before)
        state.write()


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit("asked to end; the same command goes on.")


class Driver:
    """Times are in seconds since the epoch."""

    def __init__(self, plan: Plan, state: State) -> None:
        self.plan, self.state, self.work = plan, state, Path(plan.work)
        self.end = state.began + 60 * plan.minutes
        self.trained = self.end - 60 * plan.judge_minutes - EXPORT_SECONDS
        self.falls = self.trained - 60 * plan.finish_minutes
        self.training: Child | None = None
        self.probe: Child | None = None
        self.probed = time.monotonic()

    def run(self) -> None:
        self._stage("start", self._start)
        self._stage("pretrain", lambda: self._train("pretrain", self.plan.pretrain, self.falls))
        if self.plan.finish_minutes:
            self._stage("trunk", lambda: self._export(TRUNK))
            self._stage("finish", lambda: self._train("finish", self.plan.finish, self.trained))
        self._end_probe()
        self._stage("export", self._final)
        self._stage("judge", self._judge)

    def _stage(self, name: str, work: Callable[[], object]) -> None:
        if name in self.state.stages:
            return
        begun = time.monotonic()
        work()
        self.state.stages[name] = round(time.monotonic() - begun, 1)
        self.state.note(f"{name}: {self.state.stages[name]:.0f} s")

    def _log(self, name: str) -> Path:
        return self.work / "logs" / f"{name}.txt"

    # --- what training begins from ----------------------------------------------------------------------------

    def _start(self) -> None:
        """What of `start` is used, its autoencoder trained further if that is asked for: as it will be embedded."""
        source, plan = self.plan.folder, self.plan
        if plan.autoencoder_minutes:
            trained = self.work / "autoencoder"
            shutil.copytree(source, trained, dirs_exist_ok=True)
            minutes = plan.autoencoder_minutes
            arguments = ["autoencoder", plan.autoencoder, f"run={self.work / 'autoencoder-run'}", f"out={trained}",
                         f"start={source}", f"max_minutes={minutes}"]  # fmt: skip
            if run(self.state, self._log("autoencoder"), 60 * minutes + SPARE, OWN, arguments):
                source = trained
        package(source, self.work / START, weights=plan.begins_from_weights)

    # --- training -----------------------------------------------------------------------------------------------

    def _train(self, name: str, config: str, until: float) -> None:
        """Until `until`; started again where it fails, falls silent or meets numbers that are none."""
        for _ in range(self.plan.tries):
            left = until - time.time()
            if left < SHORTEST:
                return
            why = self._trained(name, config, left)
            if why is None:
                return
            self.state.note(f"{name}: {why}")
            self._change(why)
        self.state.note(f"{name}: given up after {self.plan.tries} starts")

    def _change(self, why: str) -> None:
        """What the next start does otherwise."""
        if why == SILENT_AT_FIRST:
            self.state.changes.append("parallel.compile=off")
        for bad in (self.work / TRAIN).glob("bad-batch-*.json"):
            bad.rename(bad.with_suffix(".seen"))
            self.state.changes.append(f"optim.lr={self._rate() / 2}")

    def _trained(self, name: str, config: str, left: float) -> str | None:
        """One start; -> why it ended before its time, if it did."""
        run_folder, plan = self.work / TRAIN, self.plan
        begun_from = "checkpoint" if plan.begins_from_weights else "scratch"
        own = [f"run={run_folder}", f"model.path={self.work / START}", f"model.init={begun_from}",
               f"max_minutes={(left - min(BEGINNING, left / 4)) / 60}"]  # fmt: skip
        if name == "finish":
            own.append(f"optim.decay_minutes={plan.finish_minutes}")
        arguments = ["train", config, *own, *plan.overrides, *self.state.changes]
        child = self.training = Child(self.state, self._log(name), CLI, arguments)
        lines, first = run_folder / LINES, True
        size, moved = _size(lines), time.monotonic()
        while (code := child.wait(1.0)) is None:
            self._look()
            before, size = size, _size(lines)
            if size > before:  # it shrinks where a run forgets what it does again
                moved, first = time.monotonic(), False
            if child.seconds > left + SPARE:
                child.end()
                return "did not end in time and was ended"
            if time.monotonic() - moved > (plan.first_step_seconds if first else plan.quiet_seconds):
                child.end(grace=5.0)
                return SILENT_AT_FIRST if first else "fell silent"
        return None if code == 0 else f"failed with {code}: {child.last_words()}"

    def _rate(self) -> float:
        """The highest rate so far, as it was changed last."""
        changed = [text.partition("=")[2] for text in self.state.changes if text.startswith("optim.lr=")]
        if changed:
            return float(changed[-1])
        lines = (self.work / TRAIN / LINES).read_text(encoding="utf-8").splitlines()
        return max((json.loads(line)["lr"] for line in lines if line.endswith("}")), default=1e-3)

    # --- a look on the way ----------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Begins a look where it is time and there is something new to see; nothing waits for it."""
        if self.probe is not None and (self.probe.code is not None or self.probe.seconds > 60 * self.plan.probe_every):
            self._end_probe()
        if not self.plan.probe_every or self.probe is not None:
            return
        newest = checkpoints.newest(self.work / TRAIN)
        if newest is None or time.monotonic() - self.probed < 60 * self.plan.probe_every:
            return
        out = self.work / PROBES / newest.name
        if out.exists():
            return
        arguments = ["probe", str(self.work / TRAIN), str(out), str(self.plan.probe_limit)]
        self.probe = Child(self.state, self._log("probe"), OWN, arguments, low=True)
        self.probed = time.monotonic()

    def _end_probe(self) -> None:
        if self.probe is None:
            return
        if self.probe.code is None:
            self.probe.end(grace=2.0)
            self.state.note("a look took too long and was ended")
        elif self.probe.code:
            self.state.note(f"a look failed: {self.probe.last_words()}")
        self.probe = None

    # --- what came of it ------------------------------------------------------------------------------------------

    def _export(self, name: str) -> bool:
        out = self.work / name
        return run(self.state, self._log("export"), 90.0, CLI, ["export", str(self.work / TRAIN), str(out)])

    def _final(self) -> None:
        """The newest whole checkpoint, or else the one before the rate fell."""
        source = MODEL if self._export(MODEL) else TRUNK
        if not (self.work / source / WEIGHTS).exists():
            self.state.note("there is nothing to export")
            return
        self.state.note(f"packed {package(self.work / source, self.work / PACKED):,} bytes of {source}")

    def _judge(self) -> None:
        if not (self.work / PACKED / WEIGHTS).exists():
            return
        minutes = max(0.3, (self.end - time.time()) / 60)
        plan = self.plan
        arguments = ["eval", "world", "-m", str(self.work / PACKED), "-o", str(self.work / EVAL), "--limit",
                     str(plan.limit), "--batch", str(plan.batch), "--minutes", f"{minutes:.2f}"]  # fmt: skip
        run(self.state, self._log("judge"), 60 * minutes + 2 * SPARE, CLI, arguments)

    def end_children(self) -> None:
        for child in (self.training, self.probe):
            if child is not None:
                child.end()


SILENT_AT_FIRST = "made no first step in time; it goes on without compiling"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
