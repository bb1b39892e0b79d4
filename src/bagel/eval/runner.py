"""Puts exercises to a model in batches and keeps what came of them, so that a run that was stopped goes on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from bagel.eval.exam import Exam
from bagel.eval.exercises import SEES, Exercise, job_of, judged, outputs_of
from bagel.eval.record import Record
from bagel.eval.sheet import Shown
from bagel.eval.summary import Count
from bagel.infer.engine import Finished, run
from bagel.infer.pipeline import Bagel

BATCH = 32


def evaluate(
    bagel: Bagel,
    exam: Exam,
    out: Path,
    *,
    batch: int = BATCH,
    minutes: float | None = None,
    report: Callable[[int, int], None] = lambda judged, total: None,
) -> dict[str, Count]:
    """Judges what `out` does not hold yet and writes everything (see `Record`). minutes: no batch is begun later;
    exercises come in turn from all categories, so that what is judged by then is a smaller whole. report: called with
    (exercises judged, exercises in all). Raises InputError where `out` holds a run with other settings."""
    plan = exam.plan
    end = math.inf if minutes is None else time.monotonic() + 60 * minutes
    with Record(out, exam.settings()) as record:
        total, before = plan.count * len(plan.categories), len(record.first(plan.count))
        for number, shown in enumerate(answered(bagel, exam, batch=batch, done=record.names, end=end), 1):
            record.add(shown)
            report(before + number, total)
        return record.summarise(plan.count)


def answered(
    bagel: Bagel, exam: Exam, *, batch: int = BATCH, done: frozenset[str] = frozenset(), end: float = math.inf
) -> Iterator[Shown]:
    """Exercises with their outputs and verdicts, but those that are `done`. end: of time.monotonic(), when no batch is
    begun any more."""
    todo = (exercise for exercise in exam.plan.exercises() if exercise.name not in done)
    ask = _oracle_asked if exam.oracle else _model_asked
    while time.monotonic() < end and (group := list(islice(todo, batch))):
        yield from ask(bagel, exam, group)


def _model_asked(bagel: Bagel, exam: Exam, group: list[Exercise]) -> Iterator[Shown]:
    runtime = replace(bagel.runtime, sees=frozenset(SEES[use] for use in exam.plan.see))
    requests = [job_of(runtime, exercise, exam.image, exam.text, exam.plan.free) for exercise in group]
    for number, event in run(runtime.engine, requests):
        if isinstance(event, Finished):
            exercise, outputs = group[number], outputs_of(group[number], event.result)
            yield Shown(exercise, outputs, judged(exercise, outputs, event.result.text))


def _oracle_asked(bagel: Bagel, exam: Exam, group: list[Exercise]) -> Iterator[Shown]:
    for exercise in group:
        outputs = exercise.truth()
        if exam.oracle == "autoencoder":
            outputs = [output if isinstance(output, str) else _through(bagel, output) for output in outputs]
        yield Shown(exercise, outputs, judged(exercise, outputs))


def _through(bagel: Bagel, pixels: np.ndarray) -> np.ndarray:
    """A picture once through the autoencoder."""
    read = bagel.runtime.encode(Image.fromarray(pixels))
    return np.asarray(bagel.runtime.decode(read.latents, read.grid))
