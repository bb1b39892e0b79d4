from __future__ import annotations

from typing import Any

import pytest
import torch

from bagel.checkpoint import build, read_config
from bagel.errors import InputError
from bagel.model.bagel import BagelModel
from bagel.train.config import FreezePart, TrainConfig
from bagel.train.freeze import freeze, table
from bagel.train.parallel import start
from bagel.train.setup import prepare
from conftest import CHECKPOINT

from .packs import run_config


def model() -> BagelModel:
    return build(read_config(CHECKPOINT))[0]


def trained_parts(part: FreezePart) -> set[str]:
    made = model()
    freeze(made, part)
    return {name for name, trained, _ in table(made) if trained}


ALL = {"embed", "vit", "connector", "latent_in", "time", "decoder und", "decoder gen", "lm_head", "latent_out"}


def test_what_each_flag_freezes() -> None:
    assert trained_parts(FreezePart()) == ALL
    assert trained_parts(FreezePart(vit=True)) == ALL - {"vit"}
    assert trained_parts(FreezePart(llm=True)) == ALL - {"embed", "decoder und", "decoder gen", "lm_head"}
    assert trained_parts(FreezePart(und=True)) == ALL - {"embed", "vit", "connector", "decoder und"}
    assert trained_parts(FreezePart(gen=True)) == ALL - {"decoder gen", "latent_in", "latent_out", "time"}
    assert trained_parts(FreezePart(llm=True, vit=True, gen=True)) == {"connector"}


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"und": True, "vit": True}, "freeze.vit does nothing beside freeze.und"),
        ({"und": True, "connector": True}, "freeze.connector does nothing beside freeze.und"),
        ({"llm": True, "vit": True, "gen": True, "connector": True}, "nothing is left to train"),
    ],
)
def test_flags_that_do_nothing_are_refused(flags: dict[str, bool], said: str) -> None:
    with pytest.raises(InputError, match=said):
        freeze(model(), FreezePart(**flags))


@pytest.mark.parametrize("flags", [{"und": True}, {"llm": True, "vit": True, "gen": True}])
def test_frozen_weights_stay_and_the_others_move(tmp_path: Any, flags: dict[str, bool]) -> None:
    from bagel.train.log import Reporter
    from bagel.train.loop import Trainer
    from bagel.train.stop import Stop

    torch.manual_seed(0)
    config = TrainConfig.from_dict(run_config(tmp_path, freeze=flags, steps=1))
    setup = prepare(config, start(config.parallel, "cpu"))
    before = {name: value.detach().clone() for name, value in setup.checkpoint.model.named_parameters()}
    with Reporter(config, True, 0) as reporter:
        Trainer(setup, reporter, Stop(), 0).run()
    for name, value in setup.checkpoint.model.named_parameters():
        assert torch.equal(value, before[name]) != value.requires_grad, name
