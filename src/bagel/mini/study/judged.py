"""Success of a folder on held-out exercises, as counts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from bagel.eval.exam import Exam
from bagel.eval.exercises import Plan
from bagel.eval.runner import answered
from bagel.eval.sheet import Shown
from bagel.eval.summary import counted
from bagel.infer.pipeline import Bagel
from bagel.options import ImageOptions

BATCH = 128
Counts = dict[str, list[int]]
"""Task or task/category -> [right, of]."""


def load(folder: Path) -> Bagel:
    return Bagel.load(folder)


def success(bagel: Bagel, plan: Plan, image: ImageOptions | None = None, batch: int = BATCH) -> Counts:
    return counts(answered(bagel, Exam(plan=plan, image=image or ImageOptions()), batch=batch))


def counts(shown: Iterable[Shown]) -> Counts:
    return {name: [count.right, count.count] for name, count in counted(each.verdict for each in shown).items()}
