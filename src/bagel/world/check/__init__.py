"""Exact checkers: they read the output alone, never the model."""

import numpy as np

from ..goals import AnswerGoal, Goal, SceneGoal
from ..sample import Sample
from .answer import check_answer
from .scene import check_scene
from .verdict import Verdict, wrong
from .view import check_view

__all__ = ["Verdict", "check_answer", "check_scene", "check_view", "judge", "judge_sample"]


def judge(goal: Goal, output: np.ndarray | str) -> Verdict:
    """Judge one output: a picture as uint8 RGB [128, 128, 3], or a text."""
    if isinstance(goal, AnswerGoal):
        return check_answer(output, goal) if isinstance(output, str) else wrong("a picture instead of an answer")
    if isinstance(output, str):
        return wrong("an answer instead of a picture")
    return check_scene(output, goal) if isinstance(goal, SceneGoal) else check_view(output, goal)


def judge_sample(sample: Sample, outputs: list[np.ndarray | str]) -> list[Verdict]:
    """A verdict for each target of a sample, in order; a missing output is wrong."""
    verdicts = [judge(goal, output) for goal, output in zip(sample.goals, outputs, strict=False)]
    return verdicts + [wrong("there is no output")] * (len(sample.goals) - len(outputs))
