"""Several processes with gloo against one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from bagel.train import state
from bagel.train.config import TrainConfig
from bagel.train.loop import train

from .packs import SharedPacks, losses, run_config
from .ranks import finish, kill, start, until_step


def folder_of(tmp_path: Path, name: str) -> Path:
    (tmp_path / name).mkdir()
    return tmp_path / name


def assert_close(ours: Path, theirs: Path, steps: int, tolerance: float = 1e-5) -> None:
    a, b = losses(ours / "run"), losses(theirs / "run")
    assert sorted(a) == sorted(b) == list(range(1, steps + 1))
    for step in a:
        assert a[step] == pytest.approx(b[step], rel=tolerance), step


@pytest.mark.slow
def test_two_and_four_ranks_equal_one(tmp_path: Path) -> None:
    """20 steps of four packs each; also hybrid sharding and every way of recomputing."""
    runs: dict[str, tuple[int, dict[str, Any]]] = {
        "one": (1, {}),
        "two": (2, {"parallel": {"recompute": "full"}}),
        "four": (4, {"parallel": {"shard": 2, "recompute": "mlp", "recompute_every": 2}}),
    }
    for name, (ranks, changes) in runs.items():
        folder = folder_of(tmp_path, name)
        settings = {"lr": 1e-3, "ema": 0.9, "warmup": 5, "schedule": "cosine"}
        config = run_config(folder, steps=20, accumulate=4 // ranks, optim=settings, **changes)
        finish(start(config, ranks, "shared"))
    assert_close(tmp_path / "two", tmp_path / "one", 20)
    assert_close(tmp_path / "four", tmp_path / "one", 20)
    one, four = (state.read(state.newest(tmp_path / name / "run")) for name in ("one", "four"))  # type: ignore[arg-type]
    assert one.keys() == four.keys()
    for name, value in one.items():
        if name.endswith("qkv.bias"):  # the gradient of a key's bias is rounding alone
            continue
        torch.testing.assert_close(four[name], value, rtol=1e-3, atol=1e-4)


def test_two_ranks_equal_one(tmp_path: Path) -> None:
    """Text alone on one rank and pictures on the other: both must gather and reduce the same."""
    for name, ranks in (("one", 1), ("two", 2)):
        config = run_config(folder_of(tmp_path, name), steps=2, accumulate=2 // ranks)
        config["data"] |= {"expected_num_tokens": 20, "max_num_tokens": 160, "max_num_tokens_per_sample": 160}
        if ranks == 1:
            train(TrainConfig.from_dict(config), SharedPacks(config["data"], 0, 1))
        else:
            finish(start(config, ranks, "shared"))
    assert_close(tmp_path / "two", tmp_path / "one", 2)


@pytest.mark.slow
def test_killed_run_goes_on_to_the_bit(tmp_path: Path) -> None:
    whole = run_config(folder_of(tmp_path, "whole"), steps=12, save={"every": 4, "keep": 2})
    finish(start(whole, 2))
    killed = run_config(folder_of(tmp_path, "killed"), steps=12, save={"every": 4, "keep": 2})
    processes = start(killed, 2)
    until_step(tmp_path / "killed" / "run", 6, processes)
    kill(processes)
    at = state.newest(tmp_path / "killed" / "run")
    assert at is not None
    said = finish(start(killed, 2))
    assert f"going on after step {int(at.name[5:])}" in said
    assert losses(tmp_path / "killed" / "run") == losses(tmp_path / "whole" / "run")


@pytest.mark.slow
def test_four_ranks_go_on_as_two(tmp_path: Path) -> None:
    """With a shared stream the losses go on as if nothing had happened."""
    one = run_config(folder_of(tmp_path, "one"), steps=8, accumulate=4)
    finish(start(one, 1, "shared"))
    four = run_config(folder_of(tmp_path, "four"), steps=4, accumulate=1)
    finish(start(four, 4, "shared"))
    finish(start({**four, "steps": 8, "accumulate": 2}, 2, "shared"))
    assert_close(tmp_path / "four", tmp_path / "one", 8)


@pytest.mark.slow
def test_data_of_four_ranks_is_dealt_to_two(tmp_path: Path) -> None:
    """With the real loader every row of the first epoch is read once."""
    config = run_config(folder_of(tmp_path, "run"), steps=1)
    config["data"] |= {"expected_num_tokens": 60, "max_num_tokens": 160, "max_num_tokens_per_sample": 160}
    finish(start(config, 4))
    finish(start({**config, "steps": 2}, 2))
    progress = json.loads((state.newest(tmp_path / "run" / "run") / state.PROGRESS).read_text())  # type: ignore[operator]
    assert progress["step"] == 2
    assert len(progress["data"]) == 2


@pytest.mark.slow
@pytest.mark.parametrize(("who", "number"), [(0, signal.SIGKILL), (1, signal.SIGKILL), (1, signal.SIGSTOP)])
def test_a_lost_rank_ends_the_others_with_a_sentence(tmp_path: Path, who: int, number: signal.Signals) -> None:
    """Killed, or hanging for longer than the time-out."""
    parallel = {"timeout_minutes": 0.2}
    config = run_config(tmp_path, steps=5000, save={"every": 2, "keep": 2}, parallel=parallel)
    processes = start(config, 2)
    try:
        until_step(tmp_path / "run", 5, processes)
        processes[who].send_signal(number)
        said = processes[1 - who].communicate(timeout=60)[1].decode()
    finally:
        kill([process for process in processes if process.poll() is None])
    assert processes[1 - who].returncode == 1
    (sentence,) = [line for line in said.splitlines() if "TrainError: " in line]
    newest = state.newest(tmp_path / "run")
    assert newest is not None
    assert f"rank {1 - who}: another rank has ended or hangs" in sentence
    assert f"{newest.name} is the last whole checkpoint" in sentence


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the ranks by /proc")
def test_torchrun_starts_again_after_a_kill(tmp_path: Path) -> None:
    """One command, one rank killed: the losses are those of the run that was left alone."""
    whole = run_config(folder_of(tmp_path, "whole"), steps=16, save={"every": 4, "keep": 2})
    finish(start(whole, 2))
    config = run_config(folder_of(tmp_path, "killed"), steps=16, save={"every": 4, "keep": 2})
    path = tmp_path / "config.yaml"
    path.write_text(TrainConfig.from_dict(config).to_yaml(), encoding="utf-8")
    ours = "--nproc-per-node 2 --max-restarts 1 --standalone -m bagel train"
    command = [sys.executable, "-m", "torch.distributed.run", *ours.split(), str(path)]
    # Else the ranks of the second attempt may meet addresses that those of the first left in torchrun's store.
    env = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE)
    try:
        until_step(tmp_path / "killed" / "run", 6, [process])
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(children[-1]), signal.SIGKILL)
    except AssertionError:
        kill([process])
        raise
    assert "going on after step" in finish([process])
    assert losses(tmp_path / "killed" / "run") == losses(tmp_path / "whole" / "run")
