"""What a run leaves in its folder:

verdicts.jsonl   the settings, then a line an exercise, as they are judged
summary.json     counts and 95 % intervals; summary.txt the same as a table
failures.png     the first wrong ones
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bagel.errors import InputError
from bagel.eval.exercises import Verdict
from bagel.eval.sheet import Shown, sheet
from bagel.eval.summary import Count, counted, table

VERDICTS, SUMMARY, TABLE, FAILURES = "verdicts.jsonl", "summary.json", "summary.txt", "failures.png"
SHOWN = 60
"""Failures on the sheet, at most."""


class Record:
    """Begins a folder, or goes on with what it holds; `with` keeps its file open. Raises InputError where the folder
    holds a run with other settings."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder, self.settings = folder, settings
        folder.mkdir(parents=True, exist_ok=True)
        self.verdicts = _resumed(folder / VERDICTS, settings)
        self._failures: list[Shown] = []

    def __enter__(self) -> Record:
        self._file = (self.folder / VERDICTS).open("a", encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def names(self) -> frozenset[str]:
        return frozenset(verdict.name for verdict in self.verdicts)

    def first(self, count: int) -> list[Verdict]:
        """Of the first `count` exercises of each category: an earlier run may have judged more."""
        return [verdict for verdict in self.verdicts if int(verdict.name.rsplit("/", 1)[1]) < count]

    def add(self, shown: Shown) -> None:
        self.verdicts.append(shown.verdict)
        self._file.write(_line(shown.verdict))
        self._file.flush()
        if not shown.verdict.ok and len(self._failures) < SHOWN:
            self._failures.append(shown)

    def summarise(self, count: int) -> dict[str, Count]:
        """Writes what came of the first `count` exercises of each category, and the failures that were added."""
        counts = counted(self.first(count))
        summary = {"settings": self.settings, "results": {name: each.to_json() for name, each in counts.items()}}
        text = json.dumps(summary, indent=1, ensure_ascii=False)
        (self.folder / SUMMARY).write_text(text + "\n", encoding="utf-8")
        (self.folder / TABLE).write_text(table(counts) + "\n", encoding="utf-8")
        if self._failures:
            sheet(self._failures).save(self.folder / FAILURES)
        return counts


def _resumed(path: Path, settings: Mapping[str, Any]) -> list[Verdict]:
    """What was judged already; begins the file if there is none."""
    if not path.exists():
        path.write_text(json.dumps({"settings": settings}) + "\n", encoding="utf-8")
        return []
    first, *lines = path.read_text(encoding="utf-8").splitlines()
    before = json.loads(first).get("settings")
    if before != settings:
        changed = [key for key in settings if not before or before.get(key) != settings[key]]
        raise InputError(f"{path.parent} holds a run with other settings ({', '.join(changed)}); give another folder.")
    kept = [Verdict(**json.loads(line)) for line in lines if line.endswith("}")]  # the last may be cut short
    path.write_text(f"{first}\n{''.join(map(_line, kept))}", encoding="utf-8")
    return kept


def _line(verdict: Verdict) -> str:
    return json.dumps(verdict._asdict(), ensure_ascii=False) + "\n"
