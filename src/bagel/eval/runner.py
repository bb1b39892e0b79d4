"""Puts exercises to a model in batches and keeps what came of them, so that a run that was stopped goes on.

OUT/verdicts.jsonl   the settings, then a line an exercise, as they are judged
OUT/summary.json     counts and 95 % intervals; OUT/summary.txt the same as a table
OUT/failures.png     the first wrong ones
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bagel.errors import InputError
from bagel.eval.exercises import SEES, Plan, Verdict, job_of, judged, outputs_of
from bagel.eval.sheet import Shown, sheet
from bagel.eval.summary import Count, counted, table
from bagel.infer.engine import Finished, run
from bagel.infer.pipeline import Bagel
from bagel.options import ImageOptions, TextOptions

VERDICTS, SUMMARY, TABLE, FAILURES = "verdicts.jsonl", "summary.json", "summary.txt", "failures.png"
BATCH, SHOWN = 32, 60
ORACLES = ("truth", "autoencoder")


def answered(
    bagel: Bagel,
    plan: Plan,
    image: ImageOptions,
    text: TextOptions,
    *,
    batch: int = BATCH,
    oracle: str | None = None,
    done: frozenset[str] = frozenset(),
    end: float = math.inf,
) -> Iterator[Shown]:
    """Exercises with their outputs and verdicts, but those that are `done`. oracle: in place of the model's outputs
    the true ones, as they are or once through the autoencoder. end: of time.monotonic(), when no batch is begun any
    more."""
    runtime = dataclasses.replace(bagel.runtime, sees=frozenset(SEES[use] for use in plan.see))
    todo = (exercise for exercise in plan.exercises() if exercise.name not in done)
    while time.monotonic() < end and (group := list(islice(todo, batch))):
        if oracle:
            for exercise in group:
                outputs = [_passed(bagel, output, oracle) for output in exercise.truth()]
                yield Shown(exercise, outputs, judged(exercise, outputs))
            continue
        requests = [job_of(runtime, exercise, image, text, plan.free) for exercise in group]
        for number, event in run(runtime.engine, requests):
            if isinstance(event, Finished):
                exercise, outputs = group[number], outputs_of(group[number], event.result)
                yield Shown(exercise, outputs, judged(exercise, outputs, event.result.text))


def _passed(bagel: Bagel, output: np.ndarray | str, oracle: str) -> np.ndarray | str:
    if isinstance(output, str) or oracle == "truth":
        return output
    read = bagel.runtime.encode(Image.fromarray(output))
    return np.asarray(bagel.runtime.decode(read.latents, read.grid))


def evaluate(
    bagel: Bagel,
    plan: Plan,
    image: ImageOptions,
    text: TextOptions,
    out: Path,
    *,
    name: str = "",
    batch: int = BATCH,
    oracle: str | None = None,
    minutes: float | None = None,
    report: Callable[[int, int], None] | None = None,
) -> dict[str, Count]:
    """Judges what `out` does not hold yet and writes everything. minutes: no batch is begun later; exercises come in
    turn from all categories, so that what is judged by then is a smaller whole. report: called with (exercises judged,
    exercises in all). Raises InputError where `out` holds a run with other settings."""
    if oracle is not None and oracle not in ORACLES:
        raise InputError(f"the oracle {oracle!r} is not known; use {' or '.join(ORACLES)}.")
    settings = _settings(plan, image, text, name, oracle)
    out.mkdir(parents=True, exist_ok=True)
    verdicts = _resumed(out / VERDICTS, settings)
    done = frozenset(verdict.name for verdict in verdicts)
    total, judged_before = plan.count * len(plan.categories), len(_wanted(plan, verdicts))
    failures: list[Shown] = []
    end = math.inf if minutes is None else time.monotonic() + 60 * minutes
    with (out / VERDICTS).open("a", encoding="utf-8") as file:
        every = answered(bagel, plan, image, text, batch=batch, oracle=oracle, done=done, end=end)
        for judged_now, shown in enumerate(every, 1):
            verdicts.append(shown.verdict)
            file.write(json.dumps(shown.verdict._asdict(), ensure_ascii=False) + "\n")
            file.flush()
            if report:
                report(judged_before + judged_now, total)
            if not shown.verdict.ok and len(failures) < SHOWN:
                failures.append(shown)
    counts = counted(_wanted(plan, verdicts))
    _write(out, settings, counts)
    if failures:
        sheet(failures).save(out / FAILURES)
    return counts


def _wanted(plan: Plan, verdicts: Iterable[Verdict]) -> list[Verdict]:
    """Those of this plan: an earlier run may have judged more of each category."""
    return [verdict for verdict in verdicts if int(verdict.name.rsplit("/", 1)[1]) < plan.count]


def _settings(plan: Plan, image: ImageOptions, text: TextOptions, name: str, oracle: str | None) -> dict[str, Any]:
    """All that decides what comes out; how many exercises may grow from run to run."""
    asked = {key: value for key, value in dataclasses.asdict(plan).items() if key != "count"}
    knobs = {key: value for key, value in dataclasses.asdict(image).items() if value is not None}
    words = {key: value for key, value in dataclasses.asdict(text).items() if value is not None}
    data = {"model": name, "oracle": oracle, "plan": asked, "image": knobs, "text": words}
    return dict(json.loads(json.dumps(data)))


def _resumed(path: Path, settings: Mapping[str, Any]) -> list[Verdict]:
    """What was judged already; begins the file if there is none."""
    if not path.exists():
        path.write_text(json.dumps({"settings": settings}) + "\n", encoding="utf-8")
        return []
    first, *lines = path.read_text(encoding="utf-8").splitlines()
    before = json.loads(first).get("settings")
    if before != settings:
        changed = [key for key in settings if not before or before.get(key) != settings[key]]
        raise InputError(f"{path.parent} holds a run with other settings ({', '.join(changed)}); give another folder.")
    kept = [Verdict(**json.loads(line)) for line in lines if line.endswith("}")]  # the last may be cut short
    text = "".join(json.dumps(verdict._asdict(), ensure_ascii=False) + "\n" for verdict in kept)
    path.write_text(f"{first}\n{text}", encoding="utf-8")
    return kept


def _write(out: Path, settings: Mapping[str, Any], counts: dict[str, Count]) -> None:
    summary = {"settings": settings, "results": {name: count.to_json() for name, count in counts.items()}}
    (out / SUMMARY).write_text(json.dumps(summary, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (out / TABLE).write_text(table(counts) + "\n", encoding="utf-8")
