"""What is done: WORK/make.json, written whole after every change."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from bagel.mini.study.results import write

FILE = "make.json"
TRAIN, START, TRUNK, MODEL, PACKED, EVAL, PROBES = "run", "start", "trunk", "model", "packed", "eval", "probes"
"""Folders in WORK: the training, what it begins from, the running mean before the rate fell, the export, what is
embedded, verdicts, looks on the way."""


class State:
    """began: seconds since the epoch. stages: name -> seconds that it took, once it has ended. notes: what went
    wrong, or otherwise than planned. children: processes under way. changes: key=value that the trainings were given
    because of that."""

    def __init__(self, work: Path, plan: Mapping[str, Any] | None = None) -> None:
        self.path = work / FILE
        found = json.loads(self.path.read_text(encoding="utf-8")) if self.path.exists() else {}
        self.began: float = found.get("began", time.time())
        self.stages: dict[str, float] = found.get("stages", {})
        self.notes: list[str] = found.get("notes", [])
        self.children: dict[str, int] = found.get("children", {})
        self.changes: list[str] = found.get("changes", [])
        self.ended: bool = found.get("ended", False)
        self.plan = dict(plan if plan is not None else found.get("plan", {}))

    def write(self) -> None:
        names = ("began", "ended", "stages", "notes", "changes", "children", "plan")
        write(self.path, {name: getattr(self, name) for name in names})

    def note(self, text: str) -> None:
        self.notes.append(f"{(time.time() - self.began) / 60:.1f} min: {text}")
        print(self.notes[-1], flush=True)
        self.write()

    def add(self, pid: int) -> None:
        self.children[str(pid)] = started(pid)
        self.write()

    def remove(self, pid: int) -> None:
        self.children.pop(str(pid), None)
        self.write()

    def end_left_over(self) -> None:
        """Ends processes of a driver that was killed: with the same number and the same start."""
        left = [int(pid) for pid, at in self.children.items() if at and started(int(pid)) == at]
        for send in (os.kill, os.killpg):
            for pid in left:
                with suppress(ProcessLookupError):
                    send(pid, signal.SIGTERM if send is os.kill else signal.SIGKILL)
            end = time.monotonic() + 20
            while any(started(pid) for pid in left) and time.monotonic() < end:
                time.sleep(0.2)
        if left:
            self.note(f"ended {len(left)} processes that were left over")
        self.children = {}
        self.write()


def started(pid: int) -> int:
    """When a process began, in ticks since the machine's start; 0 if there is none, or only its exit code is left."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in "ZX" else int(fields[19])
