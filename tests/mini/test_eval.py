"""Judging: intervals, exercises as requests, resuming, oracles."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bagel import Bagel, world
from bagel.errors import InputError
from bagel.eval.exam import Exam
from bagel.eval.exercises import Plan, Verdict, judged
from bagel.eval.intervals import wilson
from bagel.eval.probe import probe
from bagel.eval.record import FAILURES, SUMMARY, VERDICTS
from bagel.eval.runner import evaluate
from bagel.eval.summary import counted, table
from bagel.options import ImageOptions, TextOptions

from .toy import toy_folder

QUICK = ImageOptions(num_timesteps=2, cfg_text_scale=1.0, max_tokens=4)


def exam(plan: Plan, oracle: str | None = None) -> Exam:
    return Exam(plan=plan, image=QUICK, text=TextOptions(max_tokens=4), oracle=oracle)


@pytest.fixture(scope="module")
def bagel(tmp_path_factory: pytest.TempPathFactory) -> Bagel:
    return Bagel.load(toy_folder(tmp_path_factory.mktemp("toy")), device="cpu")


@pytest.mark.parametrize(
    ("right", "count", "interval"),
    [(0, 0, (0.0, 1.0)), (50, 50, (0.9287, 1.0)), (0, 50, (0.0, 0.0713)), (45, 50, (0.7864, 0.9565))],
)
def test_wilson(right: int, count: int, interval: tuple[float, float]) -> None:
    assert wilson(right, count) == pytest.approx(interval, abs=1e-3)


def test_the_truth_is_right_and_a_blank_wrong() -> None:
    for exercise in Plan(count=1).exercises():
        assert judged(exercise, exercise.truth()).ok, exercise.name
        blank = ["" if isinstance(output, str) else np.zeros_like(output) for output in exercise.truth()]
        assert not judged(exercise, blank).ok, exercise.name
        assert not judged(exercise, []).ok


def test_exercises_are_heldout_and_the_same_every_time() -> None:
    plan = Plan(tasks=("ask", "draw/counting"), count=2)
    first, again = list(plan.exercises()), list(plan.exercises())
    assert [e.name for e in first] == [e.name for e in again]
    assert first == again
    assert {e.sample.split for e in first} == {"heldout"}
    assert len(plan.categories) == len(world.TASKS["ask"]) + 1


def test_thoughts_can_be_left_out() -> None:
    for think, wanted in ((True, ["text", "image"]), (False, ["image"])):
        (exercise,) = Plan(tasks=("think/riddle",), count=1, think=think).exercises()
        assert exercise.wanted == wanted


def test_every_task_is_put_and_judged(bagel: Bagel) -> None:
    text, sheet = probe(bagel, 1, {"num_timesteps": 2, "cfg_text_scale": 1.0, "max_tokens": 3}, ("frames", "think"))
    assert "all" in text
    assert sheet.width > 1000


def test_random_weights_know_nothing_and_a_run_goes_on(bagel: Bagel, tmp_path: Path) -> None:
    few, more = (exam(Plan(tasks=("draw/colours", "ask/colour"), count=n)) for n in (1, 3))
    evaluate(bagel, few, tmp_path, batch=2)
    before = (tmp_path / VERDICTS).read_text(encoding="utf-8")
    counts = evaluate(bagel, more, tmp_path, batch=2)
    assert (tmp_path / VERDICTS).read_text(encoding="utf-8").startswith(before)
    assert counts["all"].count == 6
    assert counts["all"].right <= 1
    assert (tmp_path / FAILURES).exists()
    results = json.loads((tmp_path / SUMMARY).read_text(encoding="utf-8"))["results"]
    assert {name for name in results if not name.startswith("all/")} == {
        "all", "draw", "ask", "draw/colours", "ask/colour",
    }  # fmt: skip
    with pytest.raises(InputError, match="other settings"):
        evaluate(bagel, replace(few, image=ImageOptions(num_timesteps=3)), tmp_path)


def test_a_line_cut_short_is_judged_again(bagel: Bagel, tmp_path: Path) -> None:
    true = exam(Plan(tasks=("draw/colours",), count=2), oracle="truth")
    whole = evaluate(bagel, true, tmp_path)
    path = tmp_path / VERDICTS
    path.write_text(path.read_text(encoding="utf-8")[:-9], encoding="utf-8")
    assert evaluate(bagel, true, tmp_path) == whole
    assert whole["all"].right == 2


def test_batches_change_nothing(bagel: Bagel, tmp_path: Path) -> None:
    asked = exam(Plan(tasks=("ask/count", "ask/shape"), count=2))
    for batch in (1, 4):
        evaluate(bagel, asked, tmp_path / str(batch), batch=batch)
    said = [sorted((tmp_path / str(b) / VERDICTS).read_text(encoding="utf-8").splitlines()[1:]) for b in (1, 4)]
    assert said[0] == said[1]


def test_table_has_tasks_above_their_categories() -> None:
    counts = counted([Verdict("draw/colours/0", True, [], None), Verdict("ask/count/0", False, ["no"], None)])
    names = [line.split("  ")[0] or line.strip().split("  ")[0] for line in table(counts).splitlines()[1:]]
    assert names == ["draw", "colours", "ask", "count", "all"]


def test_all_is_told_by_wording_and_by_language() -> None:
    counts = counted(
        [
            Verdict("draw/colours/0", True, [], None, "known", "en"),
            Verdict("draw/colours/1", False, ["no"], None, "new", "zh"),
            Verdict("ask/count/0", True, [], None, None, "en"),
        ]
    )
    assert {name: (c.right, c.count) for name, c in counts.items() if name.startswith("all")} == {
        "all": (2, 3), "all/known wording": (1, 1), "all/new wording": (0, 1), "all/en": (2, 2), "all/zh": (0, 1),
    }  # fmt: skip
    (exercise,) = Plan(tasks=("draw/colours",), count=1).exercises()
    new = any(combo[0] == "wording" and combo[-1] == "new" for combo in exercise.sample.combos)
    verdict = judged(exercise, exercise.truth())
    assert verdict.ok
    assert verdict.wording == ("new" if new else "known")
    (trained,) = Plan(tasks=("draw/colours",), count=1, split="train").exercises()
    assert judged(trained, trained.truth()).wording is None
