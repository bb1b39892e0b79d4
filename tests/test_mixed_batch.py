"""The benchmark of mixed requests, with the small random model: all of it, a part of it, and a run that fails."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

PATH = Path(__file__).parents[1] / "benchmarks" / "mixed_batch.py"
WORDS = ["--random", "tiny", "--device", "cpu", "--timesteps", "4", "--tokens", "3"]


@pytest.fixture
def benchmark(monkeypatch):
    spec = importlib.util.spec_from_file_location("mixed_batch", PATH)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "mixed_batch", module)  # where its dataclasses look for their names
    spec.loader.exec_module(module)
    return module


def test_every_part_is_measured(benchmark, tmp_path, capsys):
    benchmark.main([*WORDS, "--repeat", "1", "--out", str(tmp_path / "found.json")])
    found = json.loads((tmp_path / "found.json").read_text())
    ways = [*benchmark.KINDS, benchmark.TOGETHER, benchmark.ALONE]
    assert list(found["seconds"]) == ways
    apart = sum(found["seconds"][name] for name in benchmark.KINDS)
    assert found["share"] == pytest.approx(apart / found["seconds"][benchmark.TOGETHER], rel=0.05)
    assert found["against_one_at_a_time"] > 0
    assert not found["not_run"]
    said = capsys.readouterr().out
    assert all(f"round 1 of 1: {name}" in said for name in ways)
    assert "4 timesteps where 50 are usual" in said
    assert "Not run" not in said


def test_time_that_is_over(benchmark, tmp_path, capsys):
    benchmark.main([*WORDS, "--seconds", "0", "--out", str(tmp_path / "found.json")])
    found = json.loads((tmp_path / "found.json").read_text())
    assert not found["seconds"]
    assert len(found["not_run"]) == 6
    assert "Stopped after 0 s. Not run: two drawings (3 of 3); " in capsys.readouterr().out


def test_what_was_known_before_a_failure_is_kept(benchmark, tmp_path, monkeypatch):
    run, parts = benchmark.run, []

    def failing(*way):
        parts.append(way)
        if len(parts) == 4:
            raise RuntimeError("no memory")
        return run(*way)

    monkeypatch.setattr(benchmark, "run", failing)
    with pytest.raises(RuntimeError, match="no memory"):
        benchmark.main([*WORDS, "--repeat", "1", "--out", str(tmp_path / "found.json")])
    found = json.loads((tmp_path / "found.json").read_text())
    assert list(found["seconds"]) == list(benchmark.KINDS[:2])
    assert found["not_run"][0] == "two edits (1 of 1)"
    assert "share" not in found
