"""`bagel run --batch`: results equal single runs, a stopped run goes on, errors stay in their line."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from bagel import InputError
from bagel.app import batch, cli

LINES = [
    {"job": "draw", "prompt": "a cube", "id": "first", "height": 32, "width": 32, "num_timesteps": 4, "seed": 1},
    {"job": "chat", "prompt": "hello", "max_tokens": 5},
    {"job": "edit", "prompt": "red", "images": ["tall.png"], "num_timesteps": 4, "seed": 2},
    {"job": "edit", "prompt": "red", "images": ["gone.png"]},
    {"job": "chat", "prompt": "What?", "images": ["tall.png"], "max_tokens": 5},
    {"job": "draw", "prompt": "a cube", "height": 33},
    {"job": "fly"},
]


@pytest.fixture
def source(tmp_path, pictures):
    pictures["tall"].save(tmp_path / "tall.png")
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join([*map(json.dumps, LINES), "no json", ""]) + "\n")
    return path


def results(path):
    return {entry["line"]: entry for entry in map(json.loads, path.read_text().splitlines())}


def quiet(*_):
    pass


def test_each_line_as_alone(bagel, source, tmp_path, pictures):
    path = batch.run_batch(bagel, source, tmp_path / "out", active=3, progress=quiet)
    found = results(path)
    assert sorted(found) == list(range(1, 9))
    assert (found[1]["id"], found[1]["seed"], found[1]["picture"]) == ("first", 1, "000001.png")
    drawn = bagel.draw("a cube", height=32, width=32, num_timesteps=4, seed=1).image
    image = Image.open(tmp_path / "out" / "000001.png")
    assert np.abs(np.array(image).astype(int) - np.array(drawn)).max() <= 1
    assert json.loads(image.text["bagel"])["prompt"] == "a cube"
    assert found[2]["token_ids"] == bagel.chat("hello", max_tokens=5).token_ids
    assert found[5]["token_ids"] == bagel.chat([pictures["tall"], "What?"], max_tokens=5).token_ids
    assert (tmp_path / "out" / "000003.png").exists()
    for number, word in {4: "gone.png", 6: "multiple", 7: "draw, edit, chat", 8: "JSON"}.items():
        assert word in found[number]["error"]


def test_a_stopped_run_goes_on(bagel, source, tmp_path):
    class StopError(Exception):
        pass

    def stop(done, total):
        if done == 5:
            raise StopError

    with pytest.raises(StopError):
        batch.run_batch(bagel, source, tmp_path / "out", progress=stop)
    path = tmp_path / "out" / batch.RESULTS
    before = path.read_text().splitlines()
    path.write_text("\n".join([*before[:3], before[3][:20]]))  # the power went off in the middle of a line
    batch.run_batch(bagel, source, tmp_path / "out", progress=quiet)
    after = path.read_text().splitlines()
    assert after[:3] == before[:3]
    assert sorted(json.loads(line)["line"] for line in after) == list(range(1, 9))
    passes = bagel.runtime.engine.passes
    batch.run_batch(bagel, source, tmp_path / "out", progress=quiet)
    assert bagel.runtime.engine.passes == passes
    source.write_text(json.dumps({**LINES[0], "seed": 9}))
    with pytest.raises(InputError, match="another folder"):
        batch.run_batch(bagel, source, tmp_path / "out", progress=quiet)


def test_a_second_result_of_a_line_is_dropped(source, tmp_path):
    seen = []
    with batch.results_file(source, tmp_path / "out", lambda count, total: seen.append((count, total))) as found:
        for _ in range(2):
            found.add({"line": 3, "digest": found.lines[2].digest})
        assert [line.number for line in found.todo()] == [1, 2, 4, 5, 6, 7, 8]
    assert list(results(tmp_path / "out" / batch.RESULTS)) == [3]
    assert seen == [(1, 8)]


def test_two_runs_do_not_share_a_folder(bagel, source, tmp_path):
    (tmp_path / "out").mkdir()
    with batch._only_writer(tmp_path / "out" / batch.RESULTS), pytest.raises(InputError, match="another run"):
        batch.run_batch(bagel, source, tmp_path / "out", progress=quiet)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ([], 2),
        (["a.json", "--batch", "b.jsonl"], 2),
        (["a.json", "--workers", "2"], 2),
        (["--batch", "no"], 1),
        (["--batch", __file__, "--workers", "0"], 1),
    ],
)
def test_wrong_calls(words, code, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["run", *words])
    assert stop.value.code == code
    assert capsys.readouterr().err.count("\n") == 1


def test_the_command(source, tmp_path, capsys):
    cli.main(["run", "--batch", str(source), "-o", str(tmp_path / "out")])
    assert len(results(tmp_path / "out" / batch.RESULTS)) == 8
    assert capsys.readouterr().out.strip() == str(tmp_path / "out" / batch.RESULTS)
