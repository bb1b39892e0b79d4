"""Verdicts counted: by category, by task, in all, with 95 % intervals."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from bagel.eval.exercises import Verdict
from bagel.eval.intervals import wilson


@dataclass
class Count:
    right: int = 0
    count: int = 0

    def add(self, ok: bool) -> None:
        self.right += ok
        self.count += 1

    @property
    def share(self) -> float:
        return self.right / self.count if self.count else 0.0

    def to_json(self) -> dict[str, Any]:
        low, high = wilson(self.right, self.count)
        return {"right": self.right, "count": self.count, "share": round(self.share, 4),
                "low": round(low, 4), "high": round(high, 4)}  # fmt: skip


def counted(verdicts: Iterable[Verdict]) -> dict[str, Count]:
    """By `task/category`, by `task`, of `all`, and of those by wording and language (`all/new wording`, `all/zh`); in
    the order in which they first came."""
    found: dict[str, Count] = {}
    for verdict in verdicts:
        task, category, _ = verdict.name.split("/")
        parts = [f"{verdict.wording} wording"] if verdict.wording else []
        parts += [verdict.language] if verdict.language else []
        for name in ("all", *(f"all/{part}" for part in parts), task, f"{task}/{category}"):
            found.setdefault(name, Count()).add(verdict.ok)
    return found


def table(counts: dict[str, Count]) -> str:
    """Tasks with their categories below them, then all, by wording and by language."""
    lines = [f"{'':<26}{'right':>10}  {'share':>7}  95 % interval"]
    for name in _ordered(counts):
        count, title = counts[name], f"  {name.partition('/')[2]}" if "/" in name else name
        low, high = wilson(count.right, count.count)
        right = f"{count.right}/{count.count}"
        lines.append(f"{title:<26}{right:>10}  {count.share:>7.1%}  {low:.1%} to {high:.1%}")
    return "\n".join(lines)


def _ordered(counts: dict[str, Count]) -> list[str]:
    tasks = sorted((name for name in counts if "/" not in name), key=lambda name: name == "all")
    return [name for task in tasks for name in counts if name.partition("/")[0] == task]
