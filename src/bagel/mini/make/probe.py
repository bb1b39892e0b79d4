"""A look at a run: the running mean of its newest checkpoint, put to a few held-out exercises of each category."""

from __future__ import annotations

import tempfile
from pathlib import Path

from bagel.eval.exam import Exam
from bagel.eval.exercises import Plan
from bagel.eval.runner import evaluate
from bagel.eval.summary import table
from bagel.infer.pipeline import Bagel
from bagel.train.export_run import export_run

BATCH = 128


def probe(run: Path, out: Path, limit: int) -> str:
    """Writes what `bagel eval world` writes; -> the table."""
    with tempfile.TemporaryDirectory() as folder:
        bagel = Bagel.load(export_run(run, Path(folder) / "model").folder)
        return table(evaluate(bagel, Exam(plan=Plan(count=limit), name=run.name), out, batch=BATCH))
