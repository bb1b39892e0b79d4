"""(b) What is learnt when: every checkpoint of a run put to the same held-out exercises."""

from __future__ import annotations

import hashlib
import math
import tempfile
import time
from pathlib import Path

from bagel import world
from bagel.errors import InputError
from bagel.eval.exercises import Plan
from bagel.mini.study import results
from bagel.mini.study.judged import load, success
from bagel.mini.study.trainings import tokens_by_step
from bagel.train import state
from bagel.train.config import RESOLVED
from bagel.train.export_run import export_run

FILE = "checkpoints.json"


def checkpoints(run: Path, out: Path, limit: int, minutes: float, tasks: tuple[str, ...] = ()) -> None:
    """`limit` exercises of each category for each checkpoint that `checkpoints.json` in `out` does not hold yet, from
    few to many tokens; none is begun after `minutes`. Train with `save.keep` at 12 or more.

    Raises InputError for a run without a log or without checkpoints, and where the file is of another run."""
    end = time.monotonic() + 60 * minutes if minutes else math.inf
    tokens = tokens_by_step(run)
    paths = sorted((run / state.FOLDER).glob("step-*"))
    if not paths:
        raise InputError(
            f"{run} holds no {state.FOLDER}/step-*; give a run that has saved, with save.keep at 12 or more."
        )
    of = {"run": _digest(run / RESOLVED), "limit": limit, "tasks": list(tasks), "world": world.VERSION}
    found = results.resumed(out / FILE, of, {"points": []})
    done = {point["step"] for point in found["points"]}
    for path in paths:
        step = int(path.name.removeprefix("step-"))
        if step in done or not (path / state.PROGRESS).exists():
            continue
        if time.monotonic() > end:
            break
        with tempfile.TemporaryDirectory() as folder:
            bagel = load(export_run(run, Path(folder) / "model", step=step).folder)
            plan = Plan(tasks=tasks, count=limit)
            found["points"].append({"step": step, "tokens": tokens[step], "results": success(bagel, plan)})
        found["points"].sort(key=lambda point: point["step"])
        results.write(out / FILE, found)
        print(f"step {step}: {found['points'][-1]['results']['all']}", flush=True)


def _digest(config: Path) -> str:
    """Of what a run was told to do, its folder and seed included."""
    return hashlib.blake2b(config.read_bytes(), digest_size=8).hexdigest()
