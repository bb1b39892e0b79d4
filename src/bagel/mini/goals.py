"""What `mini` is meant to reach on the held-out split, and tables of what it does reach."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bagel.errors import InputError
from bagel.mini.study.results import TASKS, read

GOALS = {
    "draw/one object": 0.99, "draw/two objects": 0.97, "draw/counting": 0.95, "draw/colours": 0.99,
    "draw/position": 0.95, "draw/binding": 0.95, "ask": 0.97, "edit": 0.95, "reason": 0.85, "frames": 0.90,
    "navigate/one action": 0.90, "navigate/four": 0.75, "turn": 0.85, "think": 0.80,
}  # fmt: skip
"""Share right, by task or category."""
WHAT = {
    "ask": "answers", "draw": "drawing by a prompt", "edit": "basic editing", "reason": "intelligent editing",
    "frames": "next frames", "navigate": "navigation", "turn": "turning the camera", "think": "thought, then picture",
    "all": "all",
}  # fmt: skip
WHAT_ZH = {
    "ask": "问答", "draw": "按描述画图", "edit": "基本改图", "reason": "推理改图", "frames": "预测下一帧",
    "navigate": "导航", "turn": "转动视角", "think": "先思考再画图", "all": "全部",
}  # fmt: skip
HEAD = "| held-out exercises | right | 95 % interval | goal |\n|---|---:|---:|---:|"
HEAD_ZH = "| 未见过的题目 | 答对 | 95 % 区间 | 目标 |\n|---|---:|---:|---:|"
Results = Mapping[str, Mapping[str, Any]]


def results_of(summary: Path) -> Results:
    """Of a `summary.json` that `bagel eval world` wrote. Raises InputError if it is none."""
    found = read(summary)
    if not isinstance(found.get("results"), dict):
        raise InputError(f"{summary} holds no results; give the summary.json of `bagel eval world`.")
    return dict(found["results"])


def short_table(results: Results, chinese: bool = False) -> str:
    """A row a task, in Markdown: for a README."""
    what = WHAT_ZH if chinese else WHAT
    rows = [_row(what[name], name, results, chinese) for name in (*TASKS, "all") if name in results]
    return "\n".join([HEAD_ZH if chinese else HEAD, *rows])


def long_table(results: Results) -> str:
    """A row a task and a row a category."""
    rows = []
    for task in (task for task in TASKS if task in results):
        rows.append(_row(f"**{WHAT[task]}**", task, results))
        rows += [_row(name.partition("/")[2], name, results) for name in results if name.startswith(f"{task}/")]
    if "all" in results:
        rows.append(_row("**all**", "all", results))
    return "\n".join([HEAD, *rows])


def unreached(results: Results) -> list[str]:
    """In words, every goal that was not reached or not measured."""
    said = []
    for name, goal in GOALS.items():
        if name not in results:
            said.append(f"{name}: not measured, goal {100 * goal:.0f} %")
        elif results[name]["share"] < goal:
            said.append(f"{name}: {100 * results[name]['share']:.1f} %, goal {100 * goal:.0f} %")
    return said


def _row(title: str, name: str, results: Results, chinese: bool = False) -> str:
    count = results[name]
    share, low, high = (100 * count[key] for key in ("share", "low", "high"))
    goal = f"{100 * GOALS[name]:.0f} %" if name in GOALS else ""
    if chinese:
        return f"| {title} | {count['count']:,} 道中的 {share:.1f} % | {low:.1f} 至 {high:.1f} | {goal} |"
    return f"| {title} | {share:.1f} % of {count['count']:,} | {low:.1f} to {high:.1f} | {goal} |"


def put(page: Path, name: str, table: str) -> None:
    """Replaces what stands between the marks `table:NAME` of a page. Raises InputError if they or the page are not
    there."""
    if not page.exists():
        raise InputError(f"there is no {page}.")
    begin, end = f"<!-- table:{name} -->\n", f"<!-- /table:{name} -->"
    text = page.read_text(encoding="utf-8")
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise InputError(f"{page} has no marks {begin.strip()} ... {end}; put them where the table belongs.")
    page.write_text(f"{before}{begin}{table}\n{end}{after}", encoding="utf-8")
