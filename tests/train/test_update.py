"""The update of a step, launch by launch and as a captured graph."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bagel.errors import InputError
from bagel.train import optim, update
from bagel.train.config import OptimPart
from bagel.train.master import joined
from bagel.train.update import CapturedUpdate, Update

SHAPES = {
    "decoder.layers.0.o.weight": (64, 32), "decoder.layers.1.o.weight": (64, 32), "vit.layers.0.o.weight": (32, 32),
    "vit.layers.0.norm1.weight": (32,), "embed.weight": (50, 32),
}  # fmt: skip


def setup(name: str, captured: str, device: str, dtype: torch.dtype = torch.bfloat16) -> Any:
    generator = torch.Generator().manual_seed(0)
    made = {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
    parameters = {name: nn.Parameter(value.to(device, dtype)) for name, value in made.items()}
    part = OptimPart(name=name, lr=1e-2, ema=0.9, ema_warmup=True, captured=captured, weight_decay=0.1)
    return SimpleNamespace(
        config=SimpleNamespace(optim=part),
        world=SimpleNamespace(device=torch.device(device), mesh=None),
        parameters=parameters,
        optimizer=optim.make(parameters, part),
        ema=optim.Ema(parameters, 0.9, warmup=True),
    )


def steps(made: Any, call: Update, count: int, without: dict[int, str]) -> Iterator[Tensor]:
    """Gradients from seeds, at rates that fall. without: which parameter has no gradient in which step."""
    generator = torch.Generator().manual_seed(1)
    for step in range(1, count + 1):
        for name, value in made.parameters.items():
            grad = torch.randn(value.shape, generator=generator).to(value)
            value.grad = None if without.get(step) == name else grad
        yield call(1e-2 / step, step)
        assert all(value.grad is None for value in made.parameters.values())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("name", ["muon", "adamw"])
@pytest.mark.parametrize("without", [{}, {6: "embed.weight"}, {1: "embed.weight"}])
def test_captured_equals_launched(name: str, without: dict[int, str]) -> None:
    launched, captured = setup(name, "off", "cuda"), setup(name, "on", "cuda")
    calls = update.make(launched), update.make(captured)
    assert isinstance(calls[1], CapturedUpdate)
    pairs = zip(steps(launched, calls[0], 9, without), steps(captured, calls[1], 9, without), strict=True)
    for number, (wanted, found) in enumerate(pairs, 1):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=0)
        assert bool(calls[1]._graph) == (number > update.WARM_UP and (not without or number < min(without)))
    for key, value in launched.parameters.items():
        other = captured.parameters[key]
        lows = (made.optimizer.state[p]["low"] for made, p in ((launched, value), (captured, other)))
        torch.testing.assert_close(*(joined(p.detach(), low) for p, low in zip((value, other), lows, strict=True)))
        torch.testing.assert_close(captured.ema.mean[key], launched.ema.mean[key], rtol=1e-5, atol=1e-6)


def test_where_it_cannot_be_captured() -> None:
    assert type(update.make(setup("muon", "auto", "cpu"))) is Update
    with pytest.raises(InputError, match="there is no GPU"):
        update.make(setup("muon", "on", "cpu"))
    made = setup("adamw", "on", "cpu", torch.float32)
    made.world.device = torch.device("cuda")
    with pytest.raises(InputError, match="bf16 weights"):
        update.make(made)
    made.world.mesh = object()
    with pytest.raises(InputError, match="sharded"):
        update.make(made)


def test_the_hosts_part_and_the_devices_make_a_step() -> None:
    """The device's part reads nothing that the host's part did not put into a tensor."""
    whole, parts = setup("muon", "off", "cpu"), setup("muon", "off", "cpu")
    list(steps(whole, update.make(whole), 5, {}))

    class InParts(Update):
        def __call__(self, rate: float, step: int) -> Tensor:
            optim.set_rate(self.optimizer, rate)
            self.optimizer.count()
            optim.set_rate(self.optimizer, 1e9)
            norm = optim.clip(self.parameters, self.limit, self.optimizer)
            self.optimizer.move()
            self.optimizer.zero_grad()
            self.ema.move(torch.tensor(self.ema.share(step)))
            return norm

    list(steps(parts, InParts(parts), 5, {}))
    for key, value in whole.parameters.items():
        assert torch.equal(value, parts.parameters[key]), key
        torch.testing.assert_close(whole.ema.mean[key], parts.ema.mean[key])
