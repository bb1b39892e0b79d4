"""The benchmark of several GPUs: its tables, and all of it once with tiny sizes in two processes."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import bagel
from bagel.parallel.grid import Grid

ROOT = Path(__file__).parents[2]


def script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def picture(seconds, error=1e-3):
    return {"seconds": seconds, "velocity_error": error, "finite": True, "peak_gib": [29.0, 28.5]}


def test_table():
    answer = {"seconds": 1.0, "finite": True, "tokens": 65, "same_tokens": 60, "peak_gib": [30.0, 29.0]}
    one = {"way": "one GPU", "jobs": {"draw": picture(10.0, 0.0), "answer": answer}}
    two = {"way": "rows=2", "jobs": {"draw": picture(5.0), "answer": {**answer, "seconds": 2.0}}}
    small = {"mfu": 0.5, "peak_gib": [60.0], "trained_parameters": 3_400_000_000}
    results = {
        "gpus": 2,
        "problems": ["multi_gpu_train.py on 2 took too long"],
        "infer": {"links": {}, "rows": [one, two]},
        "train_one": {"ranks": 1, "losses": [[6.0, 1.0]], "small": {**small, "tokens_per_second_per_gpu": 10_000}},
        "train": {"ranks": 2, "losses": [[6.0, 1.0005]], "small": {**small, "tokens_per_second_per_gpu": 9_500}},
    }
    text = script("multi_gpu").table(results)
    drawn = next(line.split() for line in text if line.startswith("rows=2") and "draw" in line)
    assert drawn[1:5] == ["draw", "5.000", "2.00x", "1.75"]
    assert next(line for line in text if line.startswith("rows=2") and "answer" in line).split()[2:4] == [
        "2.000",
        "0.50x",
    ]
    assert any("95.0%" in line for line in text)
    assert any("5.00e-04" in line for line in text)
    assert text[-1] == "! multi_gpu_train.py on 2 took too long"


def test_ways_that_are_measured():
    grids = script("multi_gpu_infer").grids
    assert grids(2, 4) == [Grid(rows=2), Grid(branches=2), Grid(tensor=2)]
    four = grids(4, 4)
    assert {Grid(branches=2, tensor=2), Grid(tensor=4), Grid(rows=4), Grid(rows=2, tensor=2)} <= set(four)
    assert all(grid.size == 8 and grid.tensor <= 4 for grid in grids(8, 4))
    assert [grid.tensor for grid in four] == sorted(grid.tensor for grid in four)


@pytest.mark.slow
def test_a_dry_run(tmp_path):
    """Every part, in two processes; what must hold at any size: results, weights read again, losses."""
    out = tmp_path / "found.json"
    environment = {**os.environ, "PYTHONPATH": str(Path(bagel.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "benchmarks" / "multi_gpu.py"), "--tiny", "--gpus", "2", "--out", str(out)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(out.read_text())["2"]
    ways = {row["way"]: row["jobs"] for row in found["infer"]["rows"]}
    assert set(ways) == {"one GPU", "rows=2", "branches=2", "tensor=2", "layers=2"}
    for jobs in ways.values():
        assert jobs["answer"]["same_tokens"] == jobs["answer"]["tokens"] == 65
        assert all(jobs[job]["velocity_error"] < 1e-5 for job in ("draw", "edit", "small"))
    assert found["train"]["checkpoint"]["same_weights"]
    assert found["train_one"]["checkpoint"]["same_weights"]
    assert script("multi_gpu").loss_difference(found["train"], found["train_one"]) < 1e-5
