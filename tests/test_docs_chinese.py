"""Tables of Chinese pages, cell by cell, hold the numbers and names of the English ones, which other tests compare
with the code."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
WRITTEN = re.compile(r"^<!-- table:precisions -->.*?^<!-- /table:precisions -->$", re.MULTILINE | re.DOTALL)
"""What benchmarks/mini_tables.py writes to both pages, with words of its own."""
FACT = re.compile(r"`[^`]+`|\d[\d.,]*\d|\d")


def tables(page: str) -> list[list[Counter[str]]]:
    """Of each cell of each row its `names` and numbers, in whatever order the language has them."""
    lines = WRITTEN.sub("", (DOCS / page).read_text(encoding="utf-8")).splitlines()
    rows = [line.strip("|").split("|") for line in lines if line.startswith("|")]
    return [[Counter(FACT.findall(cell)) for cell in row] for row in rows]


@pytest.mark.parametrize("name", ["memory", "train", "troubleshooting"])
def test_tables_say_the_same(name: str) -> None:
    english, chinese = tables(f"{name}.md"), tables(f"{name}.zh.md")
    assert len(english) == len(chinese) > 0
    for ours, theirs in zip(chinese, english, strict=True):
        assert ours == theirs
