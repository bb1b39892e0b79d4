"""Every mixture of tasks, and what a run leaves behind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bagel.data.packing import TrainPack
from bagel.train import loop, optim, stop
from bagel.train.config import OptimPart, TrainConfig
from bagel.train.loop import run, train

from .packs import GOLDEN, SharedPacks, losses, run_config, write_rows

TEXT = [{"text": "count", "loss": False, "drop": False}, {"text": "one two three", "loss": True, "drop": False}]
LOOK = [{"image": "wide.png", "use": "look", "drop": False}, *TEXT]
DRAW = [TEXT[0], {"image": "tall.png", "use": "target", "drop": False}]


@pytest.mark.parametrize(("name", "plan"), [("text", TEXT), ("understand", LOOK), ("generate", DRAW)])
def test_one_task_alone(tmp_path: Path, name: str, plan: list[dict[str, Any]]) -> None:
    config = run_config(tmp_path, steps=2)
    config["data"] = write_rows(tmp_path, [{"parts": plan}] * 8)
    config["data"] |= {"expected_num_tokens": 60, "max_num_tokens": 200, "max_num_tokens_per_sample": 200}
    train(TrainConfig.from_dict(config))
    line = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])
    assert ("mse" in line, "ce" in line) == (name == "generate", name != "generate")


def test_samples_are_made_without_disturbing_the_run(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    settings = {"steps": 3, "optim": {"lr": 1e-3, "ema": 0.5}}
    asked = {
        "every": 1,
        "draw": ["a red cube"],
        "chat": ["hello"],
        "ask": {str(GOLDEN / "images" / "wide.png"): "what is it"},
        "edit": {str(GOLDEN / "images" / "wide.png"): "make it blue"},
        "image_options": {"height": 64, "width": 64, "num_timesteps": 3},
        "text_options": {"max_tokens": 4},
    }
    train(TrainConfig.from_dict(run_config(tmp_path / "a", **settings)))
    train(TrainConfig.from_dict(run_config(tmp_path / "b", samples=asked, **settings)))
    assert losses(tmp_path / "a" / "run") == losses(tmp_path / "b" / "run")
    made = {path.name for path in (tmp_path / "b" / "run" / "samples" / "step-00000002").iterdir()}
    assert made == {"draw-0.png", "draw-0.txt", "chat-0.txt", "ask-0.txt", "edit-0.png", "edit-0.txt"}


def test_lora_trains_its_adapters_alone(tmp_path: Path) -> None:
    from bagel.train import state

    settings = {"optim": {"lr": 1e-2}, "lora": {"rank": 4, "experts": ["gen"]}}
    train(TrainConfig.from_dict(run_config(tmp_path, steps=2, **settings)))
    saved = state.read(state.newest(tmp_path / "run"))  # type: ignore[arg-type]
    assert saved
    assert all(".adapters." in name for name in saved)
    assert any(value.abs().max() > 0 for name, value in saved.items() if name.endswith(".B"))


@pytest.mark.parametrize("recompute", ["mlp", "products", pytest.param("full", marks=pytest.mark.slow)])
def test_recomputing_changes_nothing(tmp_path: Path, recompute: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    train(TrainConfig.from_dict(run_config(tmp_path / "a", steps=2)))
    train(TrainConfig.from_dict(run_config(tmp_path / "b", steps=2, parallel={"recompute": recompute})))
    for step, found in losses(tmp_path / "a" / "run").items():
        assert losses(tmp_path / "b" / "run")[step] == pytest.approx(found, rel=1e-6)


def test_rates() -> None:
    constant = OptimPart(lr=1.0, warmup=4)
    assert [optim.rate(constant, step, 10) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    cosine = OptimPart(lr=1.0, warmup=1, schedule="cosine", min_lr=0.0)
    rates = [optim.rate(cosine, step, 5) for step in range(5)]
    assert rates == pytest.approx([1.0, 1.0, 0.75, 0.25, 0.0])


def test_rates_that_fall_at_the_end() -> None:
    """By the steps, by the clock, and by whichever is lower; 1 minus a root."""
    part = OptimPart(lr=1.0, min_lr=0.1, schedule="wsd", warmup=2, decay_steps=4)
    rates = [optim.rate(part, step, 9) for step in range(9)]
    falling = [0.1 + 0.9 * (1 - (done / 4) ** 0.5) for done in range(5)]
    assert rates == pytest.approx([0.5, 1.0, 1.0, 1.0, *falling])
    clock = replace(part, decay_steps=0, decay_minutes=2.0)
    assert optim.rate(clock, 0, 9, 0.0) == 0.5
    found = [optim.rate(clock, 5, 9, left) for left in (500.0, 120.0, 90.0, 0.0, -3.0)]
    assert found == pytest.approx([1.0, 1.0, 0.55, 0.1, 0.1])
    both = replace(part, decay_minutes=2.0)
    assert optim.rate(both, 5, 9, 500.0) == falling[1]
    assert optim.rate(both, 4, 9, 90.0) == pytest.approx(0.55)


class Clock(SharedPacks):
    """Time that passes by a second with every pack."""

    now = 0.0

    def __iter__(self) -> Iterator[TrainPack]:
        for pack in super().__iter__():
            self.now += 1
            yield pack

    def monotonic(self) -> float:
        return self.now


def test_a_run_by_the_clock_ends_at_its_least_rate_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    schedule = {"lr": 1.0e-3, "min_lr": 0.0, "schedule": "wsd", "decay_minutes": 4 / 60}
    settings = run_config(tmp_path, steps=100, max_minutes=7 / 60, optim=schedule)
    config = TrainConfig.from_dict(settings | {"save": {"every": 0, "minutes": 3 / 60, "keep": 9}})
    for began in (0, 8):
        clock = Clock(settings["data"], 0, 1)
        for module in (loop, stop):
            monkeypatch.setattr(module, "time", clock)
        train(config, clock)
        lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()][began:]
        assert [line["step"] for line in lines] == list(range(began + 1, began + 9))
        shares = [line["lr"] / 1e-3 for line in lines]
        assert shares == pytest.approx([1, 1, 1, 0.5, 1 - 0.5**0.5, 1 - 0.75**0.5, 0, 0])
    saved = [int(path.name[5:]) for path in sorted((tmp_path / "run" / "checkpoints").iterdir())]
    assert saved == [4, 8, 12, 16]


def test_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(TrainConfig.from_dict(run_config(tmp_path)).to_yaml(), encoding="utf-8")
    run(path, ["steps=1"])
    assert sorted(losses(tmp_path / "run")) == [1]
    assert "steps: 1" in (tmp_path / "run" / "config.yaml").read_text()
