"""What must not cost a run: a stop, a full disk, a loss that is no number, wrong weights."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bagel.data.packing import TrainPack
from bagel.errors import CheckpointError, InputError
from bagel.images import from_levels
from bagel.train import state
from bagel.train.config import TrainConfig
from bagel.train.errors import TrainError
from bagel.train.folder import LOCK
from bagel.train.loop import train
from conftest import CHECKPOINT

from .packs import SharedPacks, losses, run_config
from .ranks import finish, kill, start, until_step


def run(folder: Path, **changes: Any) -> Path:
    train(TrainConfig.from_dict(run_config(folder, **changes)))
    return folder / "run"


def test_stop_and_resume_to_the_bit(tmp_path: Path) -> None:
    """Stopping after two steps and going on gives the losses of the run that was not stopped."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    settings = {"optim": {"lr": 1e-3, "ema": 0.9, "schedule": "constant"}}
    whole = run(tmp_path / "a", steps=4, **settings)
    run(tmp_path / "b", steps=2, **settings)
    parts = run(tmp_path / "b", steps=4, **settings)
    assert losses(parts) == losses(whole)
    first, second = (state.read(state.newest(path)) for path in (whole, parts))  # type: ignore[arg-type]
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
def test_kill_and_resume_one_process(tmp_path: Path) -> None:
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    finish(start(run_config(tmp_path / "whole", steps=30, save={"every": 5, "keep": 2})))
    config = run_config(tmp_path / "killed", steps=30, save={"every": 5, "keep": 2})
    processes = start(config)
    until_step(tmp_path / "killed" / "run", 12, processes)
    kill(processes)
    finish(start(config))
    assert losses(tmp_path / "killed" / "run") == losses(tmp_path / "whole" / "run")


@pytest.mark.slow
def test_sigterm_saves_and_exits_cleanly(tmp_path: Path) -> None:
    config = run_config(tmp_path, steps=5000, save={"every": 0, "keep": 1})
    processes = start(config, 2)
    until_step(tmp_path / "run", 3, processes)
    processes[1].send_signal(signal.SIGTERM)  # one rank alone is told
    said = finish(processes)
    newest = state.newest(tmp_path / "run")
    assert newest is not None
    assert max(losses(tmp_path / "run")) == int(newest.name[5:])
    assert "the same command goes on from there" in said


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the worker by /proc")
def test_a_killed_data_worker_is_one_sentence(tmp_path: Path) -> None:
    config = run_config(tmp_path, steps=5000)
    config["data"]["workers"] = 1
    (process,) = start(config)
    until_step(tmp_path / "run", 3, [process])
    (worker,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(worker), signal.SIGKILL)
    said = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 1
    assert "InputError: a worker that reads the data has died" in said
    assert "lower data.workers" in said


def test_keeps_the_last_checkpoints(tmp_path: Path) -> None:
    folder = run(tmp_path, steps=4, save={"every": 1, "keep": 2})
    assert sorted(path.name for path in (folder / state.FOLDER).iterdir()) == ["step-00000003", "step-00000004"]


def test_full_disk_leaves_the_previous_checkpoint_whole(tmp_path: Path) -> None:
    folder = run(tmp_path, steps=2)
    before = {path.name: path.read_bytes() for path in (folder / state.FOLDER / "step-00000002").iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))  # a write beyond fails as on a full disk
    try:
        with pytest.raises(TrainError, match=r"could not be written .*step-00000002 is the last whole checkpoint"):
            run(tmp_path, steps=4, save={"every": 1, "keep": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in (folder / state.FOLDER).iterdir()] == ["step-00000002"]
    assert {path.name: path.read_bytes() for path in (folder / state.FOLDER / "step-00000002").iterdir()} == before
    run(tmp_path, steps=4)
    assert sorted(losses(folder)) == [1, 2, 3, 4]


class Spoilt(SharedPacks):
    """The third pack has a patch that is no number."""

    def __iter__(self) -> Iterator[TrainPack]:
        for number, pack in enumerate(super().__iter__()):
            if number == 2:
                assert pack.pack.patches is not None
                patches = from_levels(pack.pack.patches)
                patches[0] = torch.nan
                pack = replace(pack, pack=replace(pack.pack, patches=patches))
            yield pack


def test_nan_stops_names_the_batch_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    config = run_config(tmp_path, steps=6, save={"every": 2, "keep": 2})
    with pytest.raises(TrainError) as error:
        train(TrainConfig.from_dict(config), Spoilt(config["data"], 0, 1))
    assert "step 3: cross-entropy nan" in str(error.value)
    assert "rows" in str(error.value)
    assert "step-00000002 is the last whole checkpoint" in str(error.value)
    named = json.loads((tmp_path / "run" / "bad-batch-step-00000003.json").read_text())
    assert named["samples"][0]
    assert state.newest(tmp_path / "run").name == "step-00000002"  # type: ignore[union-attr]


def test_a_first_loss_out_of_range_stops(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match=r"first squared error is .*above loss.mse_limit 1.5"):
        run(tmp_path, loss={"ce_limit": None})
    (tmp_path / "new").mkdir()
    with pytest.raises(TrainError, match="of the base weights came from files"):
        run(tmp_path / "new", loss={"mse_limit": None}, model={"path": str(CHECKPOINT), "init": "scratch"})


def test_resume_with_other_settings_is_refused(tmp_path: Path) -> None:
    run(tmp_path, steps=1)
    with pytest.raises(CheckpointError, match="saved with other settings"):
        run(tmp_path, steps=2, freeze={"vit": True})


def test_other_adapters_are_refused_and_other_settings_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = {"rank": 2, "alpha": 4}
    run(tmp_path, steps=1, lora=own)
    with pytest.raises(CheckpointError, match=r"other sizes \(lora.rank.* is \[2, \d+\] there and \[4, \d+\] here"):
        run(tmp_path, steps=2, lora={**own, "rank": 4})
    with pytest.raises(CheckpointError, match=r"lora.alpha was 4.0 when the run was saved and is 8.0 now"):
        run(tmp_path, steps=2, lora={**own, "alpha": 8})
    capsys.readouterr()
    run(tmp_path, steps=2, lora={**own, "alpha": 4.0}, optim={"lr": 1e-4})
    assert "changed since the last start: optim.lr 0.001 -> 0.0001, steps 1 -> 2\n" in capsys.readouterr().err


def test_a_folder_that_another_run_writes_is_refused(tmp_path: Path) -> None:
    """The lock goes with its process, whose children do not hold it."""
    (tmp_path / "run").mkdir()
    hold = "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.lockf(f, fcntl.LOCK_EX); print(1, flush=True); input()"
    other = subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path / "run" / LOCK)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout
    other.stdout.readline()
    try:
        with pytest.raises(InputError, match=r"another run is writing .*run=FOLDER"):
            run(tmp_path, steps=1)
    finally:
        other.kill()
        other.communicate()
    run(tmp_path, steps=1)


def test_a_folder_that_cannot_be_written_ends_the_run_before_a_device_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bagel.train.parallel.start", None)
    (tmp_path / "run").write_text("a file")
    with pytest.raises(InputError, match=r"run folder .*run cannot be written .*run=FOLDER"):
        run(tmp_path)


def test_a_first_checkpoint_that_is_lost_is_not_said_to_follow_one(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with pytest.raises(TrainError, match=r"step-00000001 could not be written .*There is no whole checkpoint yet"):
            run(tmp_path, steps=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
