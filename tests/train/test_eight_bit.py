"""States of the 8-bit optimiser: exact on the same number of ranks, and usable on another."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp

from bagel.train import eight_bit, state
from bagel.train.config import TrainConfig
from bagel.train.loop import train

from .packs import SharedPacks, losses, run_config
from .ranks import finish, start

EIGHT = {"optim": {"name": "adamw8bit", "lr": 1e-3}}


def test_names() -> None:
    names = {"codes.0of2": "optim.a.exp_avg", "qmap": "optim.a.exp_avg", "scale.1of16": "optim.a.exp_avg"}
    assert all(eight_bit.state_of(f"{of}.{end}") == of for end, of in names.items())
    assert eight_bit.state_of("model.block.scales") == "model.block.scales"


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_values_of_all_shards(tmp_path: Path) -> None:
    """Rows of three shards, the last one too small to be quantised, read as one."""
    qmap = torch.linspace(-1, 1, 256)
    codes = torch.arange(8 * 4, dtype=torch.uint8).view(8, 4)
    floats = torch.zeros(8, 4)
    floats[6:] = torch.arange(8.0).view(2, 4)  # rows 6 and 7 are the third shard's
    saved = {"optim.w.exp_avg": floats, "optim.w.step": torch.tensor(3.0)}
    for rank in (0, 1):
        saved |= {
            f"optim.w.exp_avg.codes.{rank}of3": codes[3 * rank : 3 * rank + 3],
            f"optim.w.exp_avg.scale.{rank}of3": torch.tensor([1.0, 2.0, 3.0]) + rank,
            f"optim.w.exp_avg.qmap.{rank}of3": qmap,
        }
    dcp.save(saved, checkpoint_id=tmp_path / "saved", no_dist=True)
    value = torch.empty(8, 4)
    eight_bit.refill(value, "optim.w.exp_avg", tmp_path / "saved", state.sizes(tmp_path / "saved"))
    scales = torch.tensor([[1.0], [2.0], [3.0], [2.0], [3.0], [4.0]])
    assert torch.equal(value[:6], qmap[codes[:6].int()] * scales)
    assert torch.equal(value[6:], floats[6:])


@pytest.mark.slow  # compiles its kernel
def test_eight_bit_optimiser(tmp_path: Path) -> None:
    pytest.importorskip("torchao")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    train(TrainConfig.from_dict(run_config(tmp_path / "a", steps=4, **EIGHT)))
    train(TrainConfig.from_dict(run_config(tmp_path / "b", steps=2, **EIGHT)))
    train(TrainConfig.from_dict(run_config(tmp_path / "b", steps=4, **EIGHT)))
    found = losses(tmp_path / "a" / "run")
    assert found[4][0] < found[1][0]
    assert losses(tmp_path / "b" / "run") == found


@pytest.mark.slow  # compiles its kernel, in two processes
def test_eight_bit_states_move_to_other_ranks(tmp_path: Path) -> None:
    """Two ranks go on as two to the bit, and as one with the losses of the run that stayed on two."""
    pytest.importorskip("torchao")
    for name in ("whole", "two", "one"):
        (tmp_path / name).mkdir()
        stop = 4 if name == "whole" else 2
        config = run_config(tmp_path / name, steps=stop, accumulate=1, **EIGHT)
        finish(start(config, 2, "shared"))
    saved = state.sizes(state.newest(tmp_path / "two" / "run"))  # type: ignore[arg-type]
    assert any(name.endswith(".codes.1of2") for name in saved)
    finish(start({**config, "run": str(tmp_path / "two" / "run"), "steps": 4}, 2, "shared"))
    config |= {"steps": 4, "accumulate": 2}
    train(TrainConfig.from_dict(config), SharedPacks(config["data"], 0, 1))
    whole, two, one = (losses(tmp_path / name / "run") for name in ("whole", "two", "one"))
    assert two == whole
    assert sorted(one) == [1, 2, 3, 4]
    assert one[3] == pytest.approx(whole[3], rel=1e-5)  # the weights are those of two ranks
    assert one[4] == pytest.approx(whole[4], rel=2e-3)  # one step with states quantised anew
