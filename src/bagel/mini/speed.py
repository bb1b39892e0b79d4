"""How fast the embedded model is on a CPU: loading, a picture with guidance, an answer."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from bagel import world
from bagel.eval.exercises import Exercise, job_of
from bagel.infer.engine import run
from bagel.infer.pipeline import Bagel
from bagel.options import ImageOptions, TextOptions

REPEATS = 3
LIMITS = {"loading": 2.0, "a picture, 25 updates, guided by the text": 2.0, "an answer": 0.5}
"""Seconds on two cores."""


def measure(model: str, repeats: int = REPEATS) -> dict[str, float]:
    """Seconds by what was done, the best of so many; the first of each is not counted."""
    load, picture, answer = LIMITS
    bagel = Bagel.load(model, device="cpu")
    return {
        load: _best(lambda: Bagel.load(model, device="cpu"), repeats),
        picture: _best(lambda: _put(bagel, "draw", "binding", ImageOptions(num_timesteps=26)), repeats),
        answer: _best(lambda: _put(bagel, "ask", "count", ImageOptions()), repeats),
    }


def _put(bagel: Bagel, task: str, category: str, image: ImageOptions) -> None:
    exercise = Exercise(f"{task}/{category}/0", world.make(task, category, 0, 0, "heldout", "en"))
    for _ in run(bagel.runtime.engine, [job_of(bagel.runtime, exercise, image, TextOptions())]):
        pass


def _best(work: Callable[[], object], repeats: int) -> float:
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


def write_speed(model: str, out: Path) -> str:
    """-> the file's text, seconds by what was done."""
    text = json.dumps({name: round(seconds, 3) for name, seconds in measure(model).items()}, indent=1)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text + "\n", encoding="utf-8")
    return text
