"""The first picture of a new process, kernels being compiled included: once with no compiled kernels on disk, once
with those that the first process left there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bagel.bench.ceilings import PLAIN
from bagel.bench.jobs import JOBS, Sizes
from bagel.bench.subject import Source, wait
from bagel.errors import BagelError

CACHES = ("TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "CUDA_CACHE_PATH")
FLAG = "--only-first-picture"


def first_picture(source: Source, timesteps: int) -> dict[str, float]:
    """In this process: seconds of a picture right after loading, and of the one behind it."""
    bagel, _ = source.load(PLAIN)
    draw, sizes, taken = JOBS["draw"], Sizes.of(bagel, timesteps), []
    for _ in range(2):
        wait(source.device)
        began = time.perf_counter()
        draw.run(bagel, sizes)
        wait(source.device)
        taken.append(round(time.perf_counter() - began, 4))
    return {"seconds": taken[0], "next_seconds": taken[1]}


def measure(source: Source, timesteps: int) -> dict[str, Any]:
    """Two new processes, one after the other; nothing else should be on the device meanwhile."""
    with TemporaryDirectory() as folder:
        env = {**os.environ, **{name: str(Path(folder) / name.lower()) for name in CACHES}}
        very_first, second = (_in_new_process(source, timesteps, env) for _ in range(2))
    return {
        "seconds": second["seconds"],
        "very_first_seconds": very_first["seconds"],
        "next_seconds": second["next_seconds"],
    }


def _in_new_process(source: Source, timesteps: int, env: dict[str, str]) -> dict[str, float]:
    words = [sys.executable, "-m", "bagel.bench", FLAG, "--timesteps", str(timesteps), "--device", str(source.device)]
    words += ["--model", str(source.folder)] if source.folder else ["--random", str(source.random)]
    done = subprocess.run(words, capture_output=True, text=True, env=env, check=False)
    if done.returncode:
        raise BagelError(f"the process of the first picture failed: {done.stderr.strip()[-600:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))
