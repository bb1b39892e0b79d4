"""One process of the making: in a group of its own, its output in a file, ended in time whatever it does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bagel.mini.make.state import State

GRACE = 30.0
"""Seconds between asking a process to end and ending it."""


class Child:
    """python -m MODULE ARGUMENTS. log: file that its output is added to; low: after the others for the CPU."""

    def __init__(self, state: State, log: Path, module: str, arguments: Sequence[str], low: bool = False) -> None:
        self.state, self.log, self.began = state, log, time.monotonic()
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [*(("nice", "-n", "10") if low else ()), sys.executable, "-u", "-m", module, *arguments]
        with log.open("a", encoding="utf-8") as output:
            output.write(f"$ {' '.join(command)}\n")
            output.flush()
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        state.add(self.process.pid)

    @property
    def code(self) -> int | None:
        """Exit status, None while it runs."""
        code = self.process.poll()
        if code is not None:
            self.state.remove(self.process.pid)
        return code

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def wait(self, seconds: float) -> int | None:
        """-> exit status, or None after so many seconds."""
        try:
            self.process.wait(max(0.0, seconds))
        except subprocess.TimeoutExpired:
            return None
        return self.code

    def end(self, grace: float = GRACE) -> None:
        """Asks the process to end (its data workers would die of the question), then ends its whole group."""
        if self.code is None:
            self.process.terminate()
            self.wait(grace)
        if self.code is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.state.remove(self.process.pid)

    def last_words(self, count: int = 400) -> str:
        text = self.log.read_text(encoding="utf-8", errors="replace")[-count:]
        return " ".join(text.split())


def run(state: State, log: Path, seconds: float, module: str, arguments: Sequence[str]) -> bool:
    """A process from beginning to end; -> whether it went well. What went wrong is noted."""
    child = Child(state, log, module, arguments)
    try:
        code = child.wait(seconds)
    finally:
        child.end()
    if code != 0:
        how = f"was ended after {seconds:.0f} s" if code is None else f"failed with {code}: {child.last_words()}"
        state.note(f"{module} {' '.join(arguments[:2])} {how}")
    return code == 0
