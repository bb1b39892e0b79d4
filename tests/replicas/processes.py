"""Commands of ours with the processes that Ray starts for them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from conftest import CHECKPOINT


class Command:
    """`bagel ...` on the small random checkpoint, on the CPU; what it says goes to a file."""

    def __init__(self, log: Path, *words: str, **environment: str) -> None:
        self.log = log
        command = [sys.executable, "-m", "bagel.app.cli", *words, "-m", str(CHECKPOINT), "--device", "cpu"]
        surroundings = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
        surroundings.pop("RAY_ADDRESS", None)
        with log.open("w") as file:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=file, text=True, env=surroundings)

    def children(self, title: str) -> list[psutil.Process]:
        """Processes below it whose title holds `title`, which Ray sets."""
        found = []
        with contextlib.suppress(psutil.NoSuchProcess):
            found = psutil.Process(self.process.pid).children(recursive=True)
        return [process for process in found if title in title_of(process)]

    def kill(self) -> None:
        """With SIGKILL, and waits until Ray's processes are gone too."""
        below = psutil.Process(self.process.pid).children(recursive=True)
        self.process.kill()
        self.process.wait(10)
        psutil.wait_procs(below, 30)

    def stop(self, seconds: float = 60) -> tuple[int, str]:
        """With SIGTERM; -> its exit code and what it printed."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            printed, _ = self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        return self.process.returncode, printed


def title_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # it has ended
        return ""
