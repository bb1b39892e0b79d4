"""How many graphs the compiler makes of the blocks over packs that differ in everything: as few as there are kinds, and
none for lengths, numbers of runs or pictures."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from bagel.data.encode import pack_rules
from bagel.data.packing import TrainPack, assemble
from bagel.model import attention, vit
from bagel.model.bagel import BagelModel
from bagel.model.config import ModelConfig
from bagel.tokens import Tokenizer
from bagel.train import parallel
from bagel.train.bench.shapes import Mix, _Maker
from bagel.train.config import LossPart, ParallelPart
from bagel.train.feed import Feed
from bagel.train.loss import Counts, errors, sums, total
from conftest import CHECKPOINT

CPU = torch.device("cpu")
PACKS = "draw ask draw", "edit draw ask say", "ask ask", "draw", "say", "say say", "edit edit", "ask", "draw draw edit"
"""The first has as many full runs as causal ones, and noise in all its latents: equal lengths by chance."""


class ByRuns(attention.PictureAttention):
    """As on a GPU."""

    def __init__(self, lengths: tuple[int, ...], like: Tensor) -> None:
        super().__init__(lengths, like, flex=False)
        self.groups = attention._picture_runs(lengths, like.device) if lengths else None


def pack(config: ModelConfig, kinds: str, number: int) -> TrainPack:
    rng, samples = random.Random(number), []
    for kind in kinds.split():
        sides = [side * rng.randint(2, 4) for side in (16, 14, 14)]
        mix = Mix(0, 0, 0, *sides, *(rng.randint(1, 9) for _ in range(4)))
        maker = _Maker(config, mix, number)
        if kind == "say":
            samples.append(maker._sample([maker._text(mix.question), maker._text(mix.answer, loss=True)], pictures=0))
        else:
            samples.append(getattr(maker, kind)())
    return assemble(samples, pack_rules(config, Tokenizer.from_folder(CHECKPOINT)), config.timestep_shift, False)


def gradients(model: BagelModel, ready: Any) -> dict[str, Tensor]:
    model.zero_grad()
    found = sums(errors(model, ready.batch, ready.target, ready.attend, 1000), ready.batch)
    total(found, Counts.of([ready.batch]), LossPart()).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.fixture
def dynamo():
    """The compiler without graphs, and afterwards with its settings of before."""
    import torch._dynamo.config
    import torch.fx.experimental._config as symbols

    limit = torch._dynamo.config.recompile_limit
    with torch._dynamo.config.patch(recompile_limit=limit), symbols.patch(use_duck_shape=symbols.use_duck_shape):
        torch._dynamo.reset()
        counters.clear()
        yield torch._dynamo
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("recompute", "backend"),
    [("none", "eager"), *(pytest.param(name, "aot_eager", marks=pytest.mark.slow) for name in ("none", "mlp", "full"))],
)
def test_few_graphs_for_all_packs(recompute, backend, dynamo, monkeypatch):
    monkeypatch.setattr(vit, "PictureAttention", ByRuns)
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    config = ModelConfig.from_folder(CHECKPOINT)
    torch.manual_seed(0)
    model = BagelModel(config).train()
    parallel.apply(model, ParallelPart(compile="on", recompute=recompute), parallel.World(0, 1, CPU))
    plain = BagelModel(config).train()
    plain.load_state_dict(model.state_dict())
    packs = [pack(config, kinds, number) for number, kinds in enumerate(PACKS)]
    feed = Feed(iter(packs), lambda batch: torch.zeros(batch.noise.shape), CPU, runs=True)  # type: ignore[arg-type]
    for ready in feed.take(len(packs)):
        ours, wanted = gradients(model, ready), gradients(plain, ready)
        assert ours.keys() == wanted.keys()
        for name, gradient in ours.items():
            torch.testing.assert_close(gradient, wanted[name], rtol=1e-4, atol=1e-6)
    # Four of the decoder, with latents and without, the last layer apart; two of the ViT, with pictures and without.
    assert counters["stats"]["unique_graphs"] == 6
    assert not counters["graph_break"]
    # The decoder's once more for a first layer without a gradient, and all of them for two ways of recomputation.
    assert dynamo.config.recompile_limit >= 2 * (4 + 2)
