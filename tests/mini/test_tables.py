"""The script that fills the tables of what faster modes and fewer bits do (benchmarks/mini_tables.py)."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest

from conftest import CHECKPOINT

ROOT = Path(__file__).parents[2]
NUMBER = re.compile(r"[\d.]+")


@pytest.fixture(scope="module")
def tables():
    spec = importlib.util.spec_from_file_location("mini_tables", ROOT / "benchmarks" / "mini_tables.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def page(folder, kind):
    path = folder / "page.md"
    path.write_text(f"before\n<!-- table:{kind} -->\nold\n<!-- /table:{kind} -->\nafter\n")
    return path


def test_precisions(tables, tmp_path, capsys):
    written, out = page(tmp_path, "precisions"), tmp_path / "out"
    words = [
        "precisions",
        "-m",
        str(CHECKPOINT),
        "--tasks",
        "ask/count,draw/colours",
        "--count",
        "1",
        "--device",
        "cpu",
    ]
    chinese = written.with_name("page.zh.md")
    chinese.write_text(written.read_text())
    words += ["--precisions", "fp32,nf4", "-o", str(out), "--write", str(written), str(chinese)]
    tables.main(words)
    text = written.read_text()
    assert text.startswith("before\n<!-- table:precisions -->\n| precision | weights, MB | right |")
    assert "old" not in text
    assert "| `fp32` |" in text
    assert "Of 2 held-out exercises." in text
    other = chinese.read_text()
    assert other.startswith("before\n<!-- table:precisions -->\n| 精度 | 权重，MB | 答对 |")
    assert "| 按描述画图 | 问答 |" in other
    assert "共 2 道" in other
    assert NUMBER.findall(text.partition("Of 2")[0]) == NUMBER.findall(other.partition("共 2")[0])
    assert tables.read(out / "nf4").megabytes < tables.read(out / "fp32").megabytes / 2
    tables.main(words)  # nothing is judged again
    assert len((out / "nf4" / "verdicts.jsonl").read_text().splitlines()) == 3


def test_a_table_of_verdicts(tables):
    found = {
        "fp32": tables.Judged(
            50.0, 1.0, {"ask/count/0": (True, "Two."), "draw/colours/0": (True, None), "x/y/0": (1, "")}
        ),
        "nf4": tables.Judged(9.0, 1.0, {"ask/count/0": (False, "Three."), "draw/colours/0": (True, None)}),
    }
    *_, whole, packed, _, said = tables.precision_table(found).splitlines()
    assert whole == "| `fp32` | 50.0 | 100.0% | 34.2% to 100.0% | 0 | 0 | 100.0% | 100% | 100% |"
    assert packed == "| `nf4` | 9.0 | 50.0% | 9.5% to 90.5% | 1 | 0 | 0.0% | 0% | 100% |"
    assert said.startswith("Of 2 held-out exercises. lost: right in fp32")


def test_modes(tables, tmp_path, capsys):
    pytest.importorskip("skimage")
    pytest.importorskip("flip_evaluator")
    written = page(tmp_path, "modes")
    words = ["modes", "-m", str(CHECKPOINT), "--tasks", "draw/colours", "--count", "1", "--device", "cpu"]
    tables.main([*words, "--exact", "fp32", "-o", str(tmp_path / "modes.json"), "--write", str(written)])
    assert "| `fp8+forecast5` |" in written.read_text()
    assert "exact pictures in fp32." in written.read_text()
    assert json.loads((tmp_path / "modes.json").read_text())[0]["requests"] == 1


def test_a_page_without_marks(tables, tmp_path):
    (tmp_path / "page.md").write_text("nothing")
    words = ["precisions", "-m", str(CHECKPOINT), "--tasks", "ask/count", "--count", "1", "--precisions", "fp32"]
    with pytest.raises(SystemExit, match="no marks"):
        tables.main([*words, "--device", "cpu", "-o", str(tmp_path / "out"), "--write", str(tmp_path / "page.md")])
