"""Everything once, at toy size: autoencoder, training with a stop on the way, export, packaging, drawing, judging."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from bagel import Bagel
from bagel.data.config import build
from bagel.errors import InputError
from bagel.eval.exam import Exam
from bagel.eval.exercises import Plan
from bagel.eval.runner import evaluate
from bagel.infer.pipeline import find_model
from bagel.mini import autoencoder
from bagel.mini.folder import package, write_start
from bagel.mini.make.plan import read_plan
from bagel.options import ImageOptions, TextOptions
from bagel.train import loop, state
from bagel.train.export_run import export_run

from .toy import SMALL

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_from_nothing_to_a_judged_model(tmp_path: Path) -> None:
    start, run = tmp_path / "start", tmp_path / "run"
    write_start(start, SMALL, texts=12)
    small = [
        "batch=2",
        "workers=0",
        "compile=false",
        "device=cpu",
        f"out={start}",
        f"run={tmp_path / 'ae'}",
        "warmup=1",
        "measured=8",
    ]
    for steps in (2, 3):  # the second goes on
        autoencoder.run(ROOT / "configs" / "mini" / "autoencoder.yaml", [*small, f"steps={steps}"])
    lines = [json.loads(line) for line in (tmp_path / "ae" / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 3
    assert json.loads((start / "ae_config.json").read_text())["scale_factor"] != 1.0

    before = load_file(start / "ae.safetensors")
    again = ["by_clock=true", f"start={start}", f"run={tmp_path / 'more'}", "tasks={navigate: 1}", "steps=99"]
    autoencoder.run(
        ROOT / "configs" / "mini" / "autoencoder.yaml", [*small, *again, "lr=0", "min_lr=0", "max_minutes=0.02"]
    )
    after = load_file(start / "ae.safetensors")
    assert all(torch.equal(after[name], value) for name, value in before.items())
    with pytest.raises(InputError, match="by_clock needs max_minutes"):
        autoencoder.run(ROOT / "configs" / "mini" / "autoencoder.yaml", [*small, *again])

    overrides = [
        f"run={run}", f"model.path={start}", "device=cpu", "data.workers=0", "data.expected_num_tokens=500",
        "data.max_num_tokens=1024", "data.max_num_tokens_per_sample=1024", "data.prefer_buffer_before=200",
        "optim.warmup=1", "parallel.params=fp32",
        "data.datasets.0.options={tasks: {draw: 1, ask: 1}}",
    ]  # fmt: skip
    train = ROOT / "configs" / "mini" / "pretrain.yaml"
    loop.run(train, [*overrides, "steps=4", "max_minutes=0.0001"])
    assert state.newest(run).name == "step-00000001"  # type: ignore[union-attr]
    loop.run(train, [*overrides, "steps=4"])
    losses = [json.loads(line)["loss"] for line in (run / "log.jsonl").read_text().splitlines()]
    assert len(losses) == 4

    export_run(run, tmp_path / "out")
    assert package(tmp_path / "out", tmp_path / "packed") < 5_000_000
    bagel = Bagel.load(tmp_path / "packed", device="cpu")
    assert bagel.draw("Draw a red circle.", seed=0, num_timesteps=3).image.size == (128, 128)  # type: ignore[union-attr]
    plan = Plan(tasks=("draw/colours", "ask/colour", "think/steps"), count=1)
    quick, short = ImageOptions(num_timesteps=2, max_tokens=4), TextOptions(max_tokens=4)
    exam = Exam(plan=plan, image=quick, text=short)
    assert evaluate(bagel, exam, tmp_path / "judged")["all"].count == 3


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "mini").rglob("*.yaml")), ids=lambda path: path.stem)
def test_configs_are_valid(path: Path) -> None:
    if path.stem.startswith("autoencoder"):
        assert build(autoencoder.AutoencoderConfig, loop.configs.read(path), "config").out == "runs/mini-start"
    elif path.stem == "make":
        plan = read_plan(path, [])
        assert all((ROOT / name).exists() for name in (plan.autoencoder, plan.pretrain, plan.finish))
        assert plan.folder == find_model("mini")
    else:
        assert loop.configs.load(path).data.datasets[0].recipe == "world"
