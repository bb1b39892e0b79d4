"""Starts runs as processes of their own, as torchrun would."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .packs import ROOT, losses


def start(
    config: Mapping[str, Any], ranks: int = 1, *words: str, worker: str = "worker.py"
) -> list[subprocess.Popen[bytes]]:
    path = Path(config["run"]).parent / f"config-{time.monotonic_ns()}.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(ranks)}
    started = []
    for rank in range(ranks):
        paths = [str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
        if ranks > 1:
            env |= {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        command = [sys.executable, str(Path(__file__).parent / worker), str(path), *words]
        started.append(subprocess.Popen(command, env=env, stderr=subprocess.PIPE))
    return started


def finish(processes: list[subprocess.Popen[bytes]], seconds: float = 240) -> str:
    """Waits; -> what they said. Fails if one did."""
    said = [process.communicate(timeout=seconds)[1].decode() for process in processes]
    assert all(process.returncode == 0 for process in processes), "\n".join(said)[-12000:]
    return "\n".join(said)


def until_step(run: Path, step: int, processes: list[subprocess.Popen[bytes]], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and all(process.poll() is None for process in processes):
        if (run / "log.jsonl").exists() and max(losses(run), default=0) >= step:
            return
        time.sleep(0.02)
    raise AssertionError(f"step {step} was not reached")


def kill(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.send_signal(signal.SIGKILL)
    for process in processes:
        process.communicate()
