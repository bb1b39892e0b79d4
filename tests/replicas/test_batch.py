"""`bagel run --batch --workers 2` through Ray Data: each line once, as alone, whoever is killed."""

from __future__ import annotations

import json
import time
from collections import Counter

import numpy as np
import pytest
from PIL import Image

ray = pytest.importorskip("ray", reason="several workers need Ray: pip install 'bagel-mot[ray]'")
pytest.importorskip("ray.data")
pytest.importorskip("fastapi")

from bagel import BagelError, InputError  # noqa: E402
from bagel.app.batch import RESULTS, results_file  # noqa: E402
from bagel.app.replicas import batch  # noqa: E402
from replicas.processes import Command  # noqa: E402

WORKER = "MapWorker"
DRAW = {"job": "draw", "height": 64, "width": 64, "num_timesteps": 60}


def line_of(number):
    if number % 10 == 9:
        return {"job": "draw", "prompt": "x", "height": 33}
    if number % 2:
        return {"job": "chat", "prompt": f"question {number}", "max_tokens": 8}
    return {**DRAW, "prompt": f"cube {number}", "seed": number}


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(line_of(number)) + "\n" for number in range(1, 161)))
    return path


def lines_in(folder):
    path = folder / RESULTS
    return [json.loads(text) for text in path.read_text().splitlines()] if path.exists() else []


def after(command, folder, count, act):
    """`act` once there are `count` results more."""
    wanted, end = len(lines_in(folder)) + count, time.monotonic() + 120
    while len(lines_in(folder)) < wanted:
        assert time.monotonic() < end, command.log.read_text()
        assert command.process.poll() is None, command.log.read_text()
        time.sleep(0.02)
    act()


@pytest.mark.slow
def test_every_line_once_whoever_is_killed(source, tmp_path, bagel):
    folder = tmp_path / "out"
    words = ["run", "--batch", str(source), "-o", str(folder), "--workers", "2", "--active", "4"]
    first = Command(tmp_path / "first.log", *words)
    after(first, folder, 15, lambda: first.children(WORKER)[0].kill())
    after(first, folder, 20, first.kill)
    begun = lines_in(folder)
    assert 35 <= len(begun) < 160
    second = Command(tmp_path / "second.log", *words)
    after(second, folder, 15, lambda: second.children(WORKER)[0].kill())
    after(second, folder, 30, lambda: second.children(WORKER)[0].kill())
    printed, _ = second.process.communicate(timeout=200)
    assert second.process.returncode == 0, second.log.read_text()
    assert printed.strip() == str(folder / RESULTS)
    assert "workers died" in second.log.read_text()
    found = lines_in(folder)
    assert found[: len(begun)] == begun
    assert Counter(entry["line"] for entry in found) == Counter(range(1, 161))
    for entry in found:
        asked = line_of(entry["line"])
        if entry["line"] % 10 == 9:
            assert "multiple" in entry["error"]
        elif asked["job"] == "chat":
            assert entry["text"] == bagel.chat(asked["prompt"], max_tokens=8).text
        else:
            with Image.open(folder / entry["picture"]) as image:
                assert json.loads(image.text["bagel"])["seed"] == entry["line"]
                if entry["line"] <= 20:
                    fields = {name: value for name, value in asked.items() if name not in ("job", "prompt")}
                    alone = np.array(bagel.draw(asked["prompt"], **fields).image)
                    assert np.abs(np.array(image).astype(int) - alone).max() <= 1
    assert len(list(folder.glob("*.png"))) == 80


class Rounds:
    """Rounds as Ray would run them: `deadly` lines kill their worker, before or after those beside them are done."""

    def __init__(self, *deadly, last=False):
        self.deadly, self.last, self.given = set(deadly), last, []

    def __call__(self, pieces, arguments, gpus, workers, folder, results):
        for piece in pieces:
            numbers = [line.number for line in piece]
            self.given.append(numbers)
            dies = self.deadly & set(numbers)
            for line in piece:
                if line.number not in self.deadly and (self.last or not dies):
                    results.add({"line": line.number, "digest": line.digest})
        return {number for numbers in self.given for number in numbers}


def run(source, folder, monkeypatch, rounds, progress=lambda count, total: None):
    monkeypatch.setattr(batch, "_round", rounds)
    monkeypatch.setattr(batch, "gpus_each", lambda device, copies: 0)
    with results_file(source, folder, progress) as results:
        workers = batch.Workers(count=2, active=2, threads=1)
        batch._run({"model": "mini", "device": "cpu"}, source.parent, folder, workers, results)
    return {entry["line"]: entry for entry in lines_in(folder)}


@pytest.mark.parametrize("last", [False, True])
def test_a_line_that_kills_its_worker_is_given_up_alone(source, tmp_path, monkeypatch, last):
    rounds = Rounds(7, 100, last=last)
    found = run(source, tmp_path / "out", monkeypatch, rounds)
    assert sorted(found) == list(range(1, 161))
    assert {line for line, entry in found.items() if "died" in entry.get("error", "")} == {7, 100}
    assert Counter(map(tuple, rounds.given))[7,] >= batch.ROUNDS
    assert len(lines_in(tmp_path / "out")) == 160
    done_once = [number for numbers in rounds.given for number in numbers if number not in range(1, 9)]
    assert Counter(done_once)[160] == 1, "what is done is not given again"


def test_no_worker_at_all_ends_the_run_and_keeps_the_rest(source, tmp_path, monkeypatch):
    with pytest.raises(BagelError, match="no worker began"):
        run(source, tmp_path / "out", monkeypatch, lambda *a: set())
    assert lines_in(tmp_path / "out") == []
    assert sorted(run(source, tmp_path / "out", monkeypatch, Rounds())) == list(range(1, 161))


def test_pieces_keep_workers_full_and_all_of_them_busy(source, tmp_path):
    with results_file(source, tmp_path / "out", lambda *a: None) as results:
        lines = results.todo()
    for workers, most in ((1, 64), (2, 16), (8, 64), (500, 64)):
        pieces = batch._pieces(lines, workers, most)
        assert [line for piece in pieces for line in piece] == lines
        assert max(map(len, pieces)) <= most
        assert len(pieces) >= min(workers, len(lines))


@pytest.mark.slow
def test_a_model_that_cannot_be_loaded_is_one_sentence(source, tmp_path, capsys):
    from bagel.app import cli
    from conftest import CHECKPOINT

    broken = tmp_path / "broken"
    broken.mkdir()
    for path in CHECKPOINT.iterdir():
        (broken / path.name).write_bytes(path.read_bytes()[: 2000 if path.suffix == ".safetensors" else None])
    words = ["run", "--batch", str(source), "-o", str(tmp_path / "out"), "--workers", "1", "-m", str(broken)]
    with pytest.raises(SystemExit) as stop:
        cli.main([*words, "--device", "cpu"])
    assert stop.value.code == 1
    assert "truncated" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("device", "copies", "gpus", "wanted"),
    [("auto", 2, 0, 0), ("auto", 2, 2, 1), ("cpu", 9, 2, 0), ("cuda", 2, 2, 1), ("cuda:0,cuda:1", 2, 4, 2)],
)
def test_gpus_of_each_copy(monkeypatch, device, copies, gpus, wanted):
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"GPU": float(gpus)})
    assert batch.gpus_each(device, copies) == wanted


@pytest.mark.parametrize(("device", "word"), [("cuda", "need 2 GPUs"), ("cuda:1", "numbered from 0")])
def test_gpus_that_are_not_there(monkeypatch, device, word):
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"GPU": 1.0})
    with pytest.raises(InputError, match=word):
        batch.gpus_each(device, 2)
