"""A quick look during training: a few held-out exercises of every category."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PIL import Image

from bagel.eval.exam import Exam
from bagel.eval.exercises import Plan
from bagel.eval.runner import answered
from bagel.eval.sheet import sheet
from bagel.eval.summary import counted, table
from bagel.infer.pipeline import Bagel
from bagel.options import ImageOptions, make

SHOWN = 40


def probe(
    bagel: Bagel, count: int, options: Mapping[str, Any] | None = None, tasks: tuple[str, ...] = ()
) -> tuple[str, Image.Image]:
    """`count` exercises of each category -> the table, and a sheet of the first ones, right and wrong."""
    image = make(ImageOptions, None, dict(options or {}))
    shown = list(answered(bagel, Exam(plan=Plan(tasks=tasks, count=count), image=image)))
    return table(counted(each.verdict for each in shown)), sheet(shown[:SHOWN])
