"""The examples of docs/data.md are rows and configs that work."""

from __future__ import annotations

import json
import re
from pathlib import Path
from random import Random

import pytest

from bagel.data.config import DataConfig, DatasetConfig
from bagel.data.recipes import RECIPES, Cook

from .make import ROOT, png

GUIDE = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
ROWS = [
    (recipe, line)
    for recipe, block in re.findall(r"```json (\w+)\n(.*?)```", GUIDE, re.DOTALL)
    for line in block.strip().splitlines()
]


@pytest.mark.parametrize(("recipe", "line"), ROWS)
def test_rows(tmp_path: Path, recipe: str, line: str) -> None:
    for name in re.findall(r"\w+\.png", line):
        (tmp_path / name).write_bytes(png(len(name)))
    cook = Cook(DatasetConfig(name="d", recipe=recipe, path=("-",)))
    assert cook.sample(json.loads(line), str(tmp_path), "row", Random(0)).parts


def test_every_recipe_has_rows_and_a_heading() -> None:
    assert {recipe for recipe, _ in ROWS} | {"video"} == set(RECIPES)
    assert all(f"### {recipe}: " in GUIDE for recipe in RECIPES)


@pytest.mark.parametrize("guide", ["data.md", "data.zh.md"])
def test_config(guide: str) -> None:
    yaml = pytest.importorskip("yaml")
    text = (ROOT / "docs" / guide).read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    config = DataConfig.from_dict(yaml.safe_load(block)["data"])
    assert config.datasets[0].mandatory
