"""What a run tells: on the screen, in the log, TensorBoard and Weights & Biases, and before it begins."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bagel.data.loader import PackLoader
from bagel.data.packing import TrainPack
from bagel.errors import InputError
from bagel.train import loop
from bagel.train.config import TrainConfig
from bagel.train.errors import TrainError
from bagel.train.log import Pace
from bagel.train.loop import train

from .packs import GOLDEN, run_config, write_rows

PICTURE = str(GOLDEN / "images" / "wide.png")
ROW = {"parts": [{"text": "a red cube"}, {"image": PICTURE, "use": "target"}]}


def rows_at(folder: Path, rows: list[Any]) -> dict[str, Any]:
    """A data section of these rows alone."""
    folder.mkdir()
    return write_rows(folder, rows)


def go(folder: Path, **changes: Any) -> Path:
    train(TrainConfig.from_dict(run_config(folder, **changes)))
    return folder / "run"


def test_tensorboard_is_written_by_default(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Stopped and gone on with: no step twice; pictures and answers lie beside the numbers."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    samples = {
        "every": 2,
        "draw": ["a red cube"],
        "chat": ["hello"],
        "image_options": {"height": 64, "width": 64, "num_timesteps": 3},
        "text_options": {"max_tokens": 4},
    }
    run = go(tmp_path, steps=2, log={}, samples=samples)
    go(tmp_path, steps=4, log={}, samples=samples)
    events = accumulator.EventAccumulator(str(run / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("ce")] == [1, 2, 3, 4]
    tags = set(events.Tags()["scalars"])
    assert {"loss", "mse", "grad_norm", "lr", "tokens_per_second", "memory_gib", "data_wait", "skipped"} <= tags
    assert [event.step for event in events.Images("samples/draw-0")] == [2, 4]
    assert (run / "samples" / "step-00000004" / "chat-0.txt").read_text().startswith("hello\n")
    said = capsys.readouterr().err
    assert "base weights" in said
    assert "Trained parameters" in said


def test_a_wait_for_data_is_told_for_the_seconds_it_fell_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = PackLoader.__iter__

    def late(self: PackLoader) -> Iterator[TrainPack]:
        for number, pack in enumerate(given(self)):
            time.sleep(0.6 * (number == 5))
            yield pack

    monkeypatch.setattr(PackLoader, "__iter__", late)
    lines = (go(tmp_path, steps=8) / "log.jsonl").read_text(encoding="utf-8").splitlines()
    steps = [step for step in map(json.loads, lines) if "data_wait" in step]
    waited = [step["data_wait"] * step["tokens"] / step["tokens_per_second"] for step in steps]
    assert sum(seconds > 0.5 for seconds in waited) == 1
    assert all(step["data_wait"] < 1 for step in steps)


def test_a_start_that_fails_leaves_no_file_for_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    with pytest.raises(TrainError, match=r"loss\.ce_limit"):  # the first step's loss says that the weights do not fit
        go(tmp_path, log={}, loss={"ce_limit": 0.01})
    with pytest.raises(InputError, match="gone"):
        go(tmp_path, log={}, data=rows_at(tmp_path / "data", [{"parts": [{"image": "gone.png", "use": "target"}]}]))
    assert not (tmp_path / "run" / "tensorboard").exists()


def test_a_run_that_has_ended_says_how_to_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tensorboard")
    run = go(tmp_path, steps=2, log={})
    written = sorted((run / "tensorboard").iterdir())
    capsys.readouterr()
    for steps in (2, 1):
        go(tmp_path, steps=steps, log={})
        said = " ".join(capsys.readouterr().err.split())
        assert f"2 steps are done, and steps is {steps}. To go on, give more: steps=4." in said
        assert "going on after" not in said
    assert sorted((run / "tensorboard").iterdir()) == written
    go(tmp_path, steps=3, log={})
    assert "going on after step 2" in capsys.readouterr().err


def test_steps_that_are_done_again_are_told_once(tmp_path: Path) -> None:
    run = go(tmp_path, steps=2)
    with (run / "log.jsonl").open("a") as log:  # a killed run got as far as the middle of a line
        log.write('{"step": 3, "ce": 1.0}\n{"step": 4, "ce"')
    go(tmp_path, steps=4)
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert lines[2]["ce"] != 1.0


def test_weights_and_biases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the package: one run, however often it is stopped; and a sentence where it is not installed."""
    fake, calls = ModuleType("wandb"), []
    fake.init = lambda **given: calls.append(("init", given))  # type: ignore[attr-defined]
    fake.log = lambda values, step: calls.append(("log", step, sorted(values)))  # type: ignore[attr-defined]
    fake.finish = lambda exit_code: calls.append(("finish", exit_code))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", fake)
    settings = {"log": {"tensorboard": False, "wandb": "mine"}}
    go(tmp_path, steps=1, **settings)
    go(tmp_path, steps=2, **settings)
    assert [call[0] for call in calls] == ["init", "log", "finish"] * 2
    first, second = (call[1] for call in calls if call[0] == "init")
    assert (first["project"], first["name"], first["resume"]) == ("mine", "run", "allow")
    assert first["id"] == second["id"]
    assert [call[1] for call in calls if call[0] == "log"] == [1, 2]
    assert calls[-1] == ("finish", 0)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match="pip install wandb"):
        go(tmp_path, steps=3, **settings)


def test_time_left() -> None:
    """The first step compiles and does not count; max_minutes may end the run earlier."""
    pace = Pace(steps=100, end=1000.0)
    assert pace.left(11, 300.0) == ""
    assert pace.left(12, 302.0) == "0:02:56 left"
    assert pace.left(21, 310.0) == "0:01:19 left"
    pace = Pace(steps=100_000, end=1000.0)
    pace.left(1, 100.0)
    assert pace.left(101, 300.0) == "0:11:40 left by max_minutes, to about step 451"
    assert pace.left(460, 1018.0).startswith("0:00:00 left by max_minutes, to about step 460")


def test_max_minutes_ends_and_the_same_command_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = go(tmp_path, steps=100_000, max_minutes=0.02)
    done = max(json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines())
    assert 1 <= done < 1000
    said = capsys.readouterr().err
    assert f"stopped after step {done}; the same command goes on from there." in " ".join(said.split())
    if done > 2:
        assert "left by max_minutes, to about step" in " ".join(said.split())
    go(tmp_path, steps=done + 1)
    assert f"going on after step {done}" in capsys.readouterr().err


def test_bad_rows_are_told_and_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [ROW, {"parts": [{"text": "x"}, {"image": "gone.png", "use": "target"}]}] * 8
    data = rows_at(tmp_path / "data", rows)
    run = go(tmp_path, steps=2, data=data)
    said = " ".join(capsys.readouterr().err.split())
    assert "WARNING: data set 'rows'" in said
    assert "skipped: data set 'rows'" in said
    named = (run / "skipped-rank-0.txt").read_text().splitlines()
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert sum(line["skipped"] for line in lines) <= len(named)
    assert all("gone.png cannot be opened" in line for line in named)


@pytest.mark.parametrize(
    ("change", "rows", "words"),
    [
        ({}, [{"parts": [{"image": "gone.png", "use": "target"}]}], "gone.png cannot be opened"),
        ({}, [{"part": []}], "rows.jsonl.*has the columns part, but parts is needed"),
        ({"bad_rows": "stop"}, [ROW, {"parts": [{"image": "gone.png"}]}], "line 2: .*gone.png cannot be opened"),
        ({"datasets": {"vae": {"max_size": 4096}}}, [ROW], r"vae.max_size 4096 is beyond .* = 1024 pixels"),
        ({"datasets": {"max_rows": 0}}, [ROW], "max_rows is 0"),
    ],
)
def test_bad_data_ends_a_run_before_a_device_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], rows: list[Any], words: str
) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("a device was taken")

    monkeypatch.setattr(loop.parallel, "start", never)
    data = rows_at(tmp_path / "data", rows)
    own = change.pop("datasets", {})
    data |= {**change, "datasets": [{**data["datasets"][0], **own}]}
    with pytest.raises(InputError, match=words):
        go(tmp_path, data=data)


def test_a_broken_line_names_its_place(tmp_path: Path) -> None:
    data = rows_at(tmp_path / "data", [ROW])
    with (tmp_path / "data" / "rows.jsonl").open("a") as file:
        file.write('{"parts": [\n')
    with pytest.raises(InputError, match=r"data set 'rows', .*rows\.jsonl, line 2: .*broken JSON"):
        go(tmp_path, data={**data, "bad_rows": "stop"})


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        (
            {"draw": ["a cat"], "image_options": {"heigth": 64}},
            "samples: there is no option 'heigth'; did you mean height",
        ),
        ({"chat": ["hello"], "text_options": {"temperature": "hot"}}, "samples: temperature is 'hot'"),
        ({"edit": {"gone.png": "make it red"}}, "samples: .*gone.png"),
    ],
)
def test_samples_that_cannot_be_made_are_told_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, samples: dict[str, Any], words: str
) -> None:
    monkeypatch.setattr(loop.parallel, "start", None)
    with pytest.raises(InputError, match=words):
        go(tmp_path, samples={"every": 2, **samples})


def test_a_sample_that_fails_later_costs_no_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples = {"every": 1, "draw": ["a cat"], "image_options": {"height": 8192, "width": 64}}
    run = go(tmp_path, steps=2, samples=samples)
    assert len((run / "log.jsonl").read_text().splitlines()) == 2
    assert "WARNING: the samples of step 1 were not made: height is 8192" in capsys.readouterr().err


def test_a_file_gets_every_step_as_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    go(tmp_path, steps=3)
    lines = [line for line in capsys.readouterr().err.splitlines() if "tokens/s" in line]
    assert len(lines) == 3
    assert all(line.startswith("step ") and "data wait" in line for line in lines)
    assert lines[2].endswith(" left")


def test_a_run_that_learns_nothing_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Text alone with the language model frozen: what is left to train has no part in it."""
    data = rows_at(tmp_path / "data", [{"parts": [{"text": "say"}, {"text": "a word", "loss": True}]}] * 40)
    go(tmp_path, steps=1, data=data, freeze={"llm": True})
    assert "WARNING: the gradient of the first step is zero" in capsys.readouterr().err
