"""Several trainings side by side on one GPU, each a process of its own, and what their logs say."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bagel.errors import BagelError, InputError
from bagel.train.log import LINES

OUTPUT = "output.txt"
POINTS = 120
"""Of a curve, at most."""


class StudyError(BagelError):
    """A training of the study ended badly."""


def side_by_side(commands: Mapping[Path, Sequence[str]], minutes: float) -> None:
    """commands: run folder -> CONFIG key=value ...; each ends by itself after `minutes`, and goes on when started
    again. Raises StudyError with the end of what the first failed one said; the others are ended then."""
    running = {}
    for run, arguments in commands.items():
        run.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "bagel.app.cli", "train", *arguments, f"run={run}", f"max_minutes={minutes}"]
        with (run / OUTPUT).open("w", encoding="utf-8") as output:
            running[run] = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        _wait(running)
    finally:
        for process in running.values():
            if process.poll() is None:
                process.terminate()
                process.wait()


def _wait(running: Mapping[Path, subprocess.Popen[bytes]]) -> None:
    while True:
        codes = {run: process.poll() for run, process in running.items()}
        for run, code in codes.items():
            if code:
                said = (run / OUTPUT).read_text(encoding="utf-8", errors="replace")
                raise StudyError(f"the training in {run} ended with {code}: {said[-1500:]}")
        if all(code == 0 for code in codes.values()):
            return
        time.sleep(0.5)


def log_of(run: Path) -> list[dict[str, Any]]:
    """The lines of a run, one a step: of a step that was done again after a stop, the last. Raises InputError for a
    folder without them."""
    if not (run / LINES).exists():
        raise InputError(f"{run} holds no {LINES}; give the folder of a training.")
    lines = (run / LINES).read_text(encoding="utf-8").splitlines()
    steps = {line["step"]: line for line in map(json.loads, lines)}
    return [steps[step] for step in sorted(steps)]


def curves(run: Path, points: int = POINTS) -> dict[str, list[float]]:
    """Losses by tokens seen, each a mean over as many steps as make `points` of them; the tokens are those at the
    end of these steps."""
    lines = log_of(run)
    width = max(1, -(-len(lines) // points))
    found: dict[str, list[float]] = {"step": [], "tokens": [], "ce": [], "mse": []}
    seen = 0
    for start in range(0, len(lines), width):
        group = lines[start : start + width]
        seen += sum(line["tokens"] for line in group)
        found["step"].append(group[-1]["step"])
        found["tokens"].append(int(seen))
        for name in ("ce", "mse"):
            values = [line[name] for line in group if name in line]
            found[name].append(round(sum(values) / max(1, len(values)), 4))
    return found


def tokens_by_step(run: Path) -> dict[int, int]:
    """Tokens seen after each step."""
    seen, found = 0, {}
    for line in log_of(run):
        seen += int(line["tokens"])
        found[line["step"]] = seen
    return found


def totals(run: Path) -> dict[str, float]:
    """Steps, tokens, hours of stepping and the middle speed of a run."""
    lines = log_of(run)
    seconds = sum(line["tokens"] / line["tokens_per_second"] for line in lines)
    speeds = sorted(line["tokens_per_second"] for line in lines)
    return {
        "steps": lines[-1]["step"],
        "tokens": int(sum(line["tokens"] for line in lines)),
        "hours": round(seconds / 3600, 4),
        "tokens_per_second": round(speeds[len(speeds) // 2]),
    }
