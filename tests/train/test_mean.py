"""The running mean of the weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bagel.train.optim import Ema


@pytest.mark.parametrize(("warmup", "left"), [(False, 0.999**100), (True, 0.0)])
def test_random_first_weights_are_soon_forgotten(warmup: bool, left: float) -> None:
    weight = nn.Parameter(torch.ones(3))
    mean = Ema({"w": weight}, 0.999, warmup)
    weight.data.zero_()
    for step in range(1, 101):
        mean.update(step)
    assert mean.mean["w"].tolist() == pytest.approx([left] * 3, abs=1e-6)


def test_the_decay_grows_to_what_was_asked() -> None:
    weight = nn.Parameter(torch.zeros(1))
    mean = Ema({"w": weight}, 0.9, warmup=True)
    weight.data.fill_(1.0)
    mean.update(1)
    assert mean.mean["w"].item() == pytest.approx(1 - 2 / 11)
    mean.update(1000)
    assert mean.mean["w"].item() == pytest.approx(1 - 2 / 11 * 0.9)
