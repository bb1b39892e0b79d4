"""The model card, the tables of scores, the seconds on a CPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bagel import world
from bagel.errors import InputError
from bagel.infer.pipeline import find_model
from bagel.mini.card import sources_of, write_card
from bagel.mini.folder import BUDGET_BYTES
from bagel.mini.goals import GOALS, long_table, put, results_of, short_table, unreached
from bagel.mini.speed import LIMITS, measure
from bagel.train import config as configs

from .test_study import write_log
from .toy import start_folder

ROOT = Path(__file__).parents[2]
MINI = ROOT / "src" / "bagel" / "assets" / "mini"


def result(right: int, count: int = 100) -> dict[str, Any]:
    return {"right": right, "count": count, "share": right / count, "low": right / count, "high": 1.0}


def write_summary(path: Path, **tasks: int) -> Path:
    names = {name.replace("__", "/").replace("_", " "): result(right) for name, right in tasks.items()}
    path.write_text(json.dumps({"results": names}), encoding="utf-8")
    return path


def test_goals_name_tasks_and_categories_that_there_are() -> None:
    known = {*world.TASKS, *(f"{task}/{category}" for task, found in world.TASKS.items() for category in found)}
    assert set(GOALS) <= known


def test_tables_and_what_is_missing(tmp_path: Path) -> None:
    results = results_of(write_summary(tmp_path / "s.json", draw=98, draw__one_object=98, ask=99, ask__count=99))
    short = short_table(results).splitlines()
    assert short[2] == "| answers | 99.0 % of 100 | 99.0 to 100.0 | 97 % |"
    assert len(short) == 4
    assert short_table(results, chinese=True).splitlines()[2] == "| 问答 | 100 道中的 99.0 % | 99.0 至 100.0 | 97 % |"
    assert "| one object | 98.0 % of 100 | 98.0 to 100.0 | 99 % |" in long_table(results)
    said = unreached(results)
    assert "draw/one object: 98.0 %, goal 99 %" in said
    assert "turn: not measured, goal 85 %" in said
    assert not any(line.startswith("ask") for line in said)
    with pytest.raises(InputError, match="holds no results"):
        results_of(tmp_path / "none.json")


def test_a_table_goes_between_its_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- table:scores -->\nold\n<!-- /table:scores -->\nb\n")
    put(page, "scores", "| new |")
    assert page.read_text() == "a\n<!-- table:scores -->\n| new |\n<!-- /table:scores -->\nb\n"
    with pytest.raises(InputError, match="has no marks"):
        put(page, "other", "x")


def test_a_card_says_data_compute_scores_limits(tmp_path: Path) -> None:
    model, run, first = start_folder(tmp_path / "model"), tmp_path / "stage-two", tmp_path / "ae"
    write_log(run, 10)
    mixture = "data.datasets.0.options.tasks={draw: 3, ask: 1, ask/count: 1}"
    resolved = configs.load(ROOT / "configs" / "mini" / "pretrain.yaml", [f"run={run}", mixture])
    (run / configs.RESOLVED).write_text(resolved.to_yaml())
    first.mkdir()
    (first / "config.json").write_text('{"batch": 50}')
    lines = [{"step": 100, "pictures_per_second": 500.0}, {"step": 200, "pictures_per_second": 250.0},
             {"step": 200, "psnr": 33.25}]  # fmt: skip
    (first / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    summary = write_summary(tmp_path / "s.json", think=82, think__sum=82, all=90)
    without = write_summary(tmp_path / "u.json", think=61)
    oracle = write_summary(tmp_path / "o.json", all=100)
    items = [f"summary={summary}", f"oracle={oracle}", f"unthought={without}", f"autoencoder={first}", f"runs={run}",
             "device=one H100", "note=Read an older world."]  # fmt: skip
    text = write_card(model, sources_of(items)).read_text(encoding="utf-8")
    assert "\nRead an older world.\n" in text
    for said in (
        "| autoencoder | 200 | 10,000 pictures | 0.01 |", "33.2 dB", "| stage-two | 10 | 0 M tokens, 1,000 a second |",
        "On one H100", "- `stage-two`: draw 60.0 %, ask 40.0 %;", "35 % in Chinese", "| sum | 82.0 % of 100 |",
        "without: 61.0 %; with: 82.0 %", "100.00 % of 100", "| **all** | 90.0 % of 100 |",
        "draw/one object: not measured",
    ):  # fmt: skip
        assert said in text, said
    stages = ",".join(str(ROOT / "configs" / "mini" / f"{name}.yaml") for name in ("pretrain", "finish"))
    same_name = write_log(tmp_path / "again" / "stage-two", 3)
    items[-2:] = [f"runs={run},{same_name}", f"configs={stages}"]
    text = write_card(model, sources_of(items)).read_text(encoding="utf-8")
    assert "- `pretrain`: draw" in text
    assert "- `finish`: draw" in text
    assert "| again/stage-two | 3 |" in text
    with pytest.raises(InputError, match=r"lacks config\.json or log\.jsonl"):
        write_card(model, sources_of([f"summary={summary}", f"autoencoder={run}"]))
    with pytest.raises(InputError, match="'model=x' is not known"):
        sources_of(["model=x"])
    with pytest.raises(InputError, match="needs summary"):
        sources_of([])


def test_the_embedded_model_is_small_and_has_its_card() -> None:
    assert find_model("mini") == MINI
    assert sum(path.stat().st_size for path in MINI.iterdir()) <= BUDGET_BYTES
    text = (MINI / "README.md").read_text(encoding="utf-8")
    assert all(f"\n## {name}\n" in text for name in ("Data", "Compute", "Scores", "Limits"))


@pytest.mark.slow
def test_seconds_on_a_cpu() -> None:
    found = measure("mini")
    assert {name: seconds for name, seconds in found.items() if seconds > LIMITS[name]} == {}
