"""What there is to see while the model is made."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from bagel.eval.record import SUMMARY
from bagel.mini.make.state import EVAL, PROBES, TRAIN, State, started
from bagel.mini.study.results import TASKS, read
from bagel.train.log import LINES

RECENT = 200
"""Steps over which speeds and losses are means."""


def status(work: Path) -> str:
    """Time, stages, the last steps, scores on the way and at the end; in a dozen lines."""
    state = State(work)
    alive = sum(started(int(pid)) == at for pid, at in state.children.items())
    word = "ended" if state.ended else f"{alive} processes under way"
    lines = [f"{(time.time() - state.began) / 60:.1f} of {state.plan.get('minutes')} min, {word}"]
    lines += [f"  {note}" for note in state.notes[-12:]]
    lines += [f"  {recent}"] if (recent := recent_steps(work / TRAIN / LINES)) else []
    for name, found in scores(work).items():
        lines.append(f"  {name}: " + "  ".join(f"{task} {share:.0%}" for task, share in found.items()))
    return "\n".join(lines)


def recent_steps(path: Path) -> str:
    """Means of the last steps of a log."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 400 * RECENT))
        texts = file.read().decode().splitlines()[-RECENT:]
    lines = [json.loads(text) for text in texts if text.startswith("{") and text.endswith("}")]
    if not lines:
        return ""
    said = [f"step {lines[-1]['step']:,}"]
    for name, form in (("ce", ".4f"), ("mse", ".4f"), ("grad_norm", ".3g"), ("tokens_per_second", ",.0f"),
                       ("mfu", ".1%"), ("data_wait", ".1%"), ("memory_gib", ".1f")):  # fmt: skip
        values = [line[name] for line in lines if name in line]
        if values:
            said.append(f"{name} {sum(values) / len(values):{form}}")
    seconds = sum(line["tokens"] / line["tokens_per_second"] for line in lines)
    return "  ".join([*said, f"lr {lines[-1]['lr']:.2e}", f"{len(lines) / max(seconds, 1e-9):.1f} steps/s"])


def scores(work: Path) -> dict[str, dict[str, float]]:
    """Of each look and of the end: task -> share right."""
    files = [(path.parent.name, path) for path in sorted((work / PROBES).glob(f"*/{SUMMARY}"))]
    found = {name: read(path) for name, path in [*files, ("at the end", work / EVAL / SUMMARY)]}
    return {name: _shares(summary["results"]) for name, summary in found.items() if summary}


def _shares(results: dict[str, Any]) -> dict[str, float]:
    return {task: results[task]["share"] for task in (*TASKS, "all") if task in results}
