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
}  # fmt: skip
Results = Mapping[str, Mapping[str, Any]]


def results_of(summary: Path) -> Results:
    """Of a `summary.json` that `bagel eval world` wrote. Raises InputError if it is none."""
    found = read(summary)
    if not isinstance(found.get("results"), dict):
        raise InputError(f"{summary} holds no results; give the summary.json of `bagel eval world`.")
    return dict(found["results"])


def short_table(results: Results) -> str:
    """A row a task, in Markdown: for a README."""
    rows = [_row(WHAT[task], task, results) for task in TASKS if task in results]
    return "\n".join(["| held-out exercises | right | 95 % interval | goal |", "|---|---:|---:|---:|", *rows])


def long_table(results: Results) -> str:
    """A row a task and a row a category."""
    rows = []
    for task in (task for task in TASKS if task in results):
        rows.append(_row(f"**{WHAT[task]}**", task, results))
        rows += [_row(name.partition("/")[2], name, results) for name in results if name.startswith(f"{task}/")]
    return "\n".join(["| held-out exercises | right | 95 % interval | goal |", "|---|---:|---:|---:|", *rows])


def unreached(results: Results) -> list[str]:
    """In words, every goal that was not reached or not measured."""
    said = []
    for name, goal in GOALS.items():
        if name not in results:
            said.append(f"{name}: not measured, goal {goal:.0%}")
        elif results[name]["share"] < goal:
            said.append(f"{name}: {results[name]['share']:.1%}, goal {goal:.0%}")
    return said


def _row(title: str, name: str, results: Results) -> str:
    count = results[name]
    share, low, high = (100 * count[key] for key in ("share", "low", "high"))
    goal = f"{GOALS[name]:.0%}" if name in GOALS else ""
    return f"| {title} | {share:.1f} % of {count['count']:,} | {low:.1f} to {high:.1f} | {goal} |"


def put(page: Path, name: str, table: str) -> None:
    """Replaces what stands between the marks `table:NAME` of a page. Raises InputError if they are not there."""
    begin, end = f"<!-- table:{name} -->\n", f"<!-- /table:{name} -->"
    text = page.read_text(encoding="utf-8")
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise InputError(f"{page} has no marks {begin.strip()} ... {end}; put them where the table belongs.")
    page.write_text(f"{before}{begin}{table}\n{end}{after}", encoding="utf-8")
