"""bf16 weights with an exact float32 master: the same path as float32 AdamW."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bagel.errors import InputError
from bagel.train import master
from bagel.train.master import MasterAdamW


def test_master_and_weight_go_round_exactly():
    values = torch.cat((torch.randn(10_000), torch.tensor([0.0, -0.0, 1.0, -1.0, 1e-38, 3e38, 1 + 2**-8, 1 + 2**-9])))
    weight, low = torch.empty(len(values), dtype=torch.bfloat16), torch.empty(len(values), dtype=torch.int16)
    master.split(values, weight, low)
    assert torch.equal(master.joined(weight, low), values)
    error, step = (weight.float() - values).abs(), (values.bfloat16().float() - values).abs()
    assert torch.equal(error, step)  # nearest


def gradients(shape: tuple[int, ...], count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) for _ in range(count)]


def test_equals_adamw_in_float32():
    start = torch.randn(64, 32, generator=torch.Generator().manual_seed(1)).bfloat16()
    ours = {f"layers.{i}.w": nn.Parameter(start.clone()) for i in range(2)} | {"head": nn.Parameter(start[0].clone())}
    theirs = nn.Parameter(start.float())
    settings = {"lr": 1e-3, "betas": (0.9, 0.95), "eps": 1e-15, "weight_decay": 0.1}
    mine = MasterAdamW(ours, **settings, moments=torch.float32)
    reference = torch.optim.AdamW([theirs], **settings)
    for grad in gradients((64, 32), 20):
        for value in ours.values():
            value.grad = grad[: len(value)].bfloat16() if value.ndim == 2 else grad[0].bfloat16()
        theirs.grad = grad.bfloat16().float()
        mine.step()
        reference.step()
    kept = mine.master(ours["layers.1.w"])
    torch.testing.assert_close(kept, theirs.detach(), rtol=1e-5, atol=1e-6)
    assert torch.equal(ours["head"], ours["layers.0.w"][0])
    assert (kept - start.float()).abs().max() > 1e-4
    assert mine.state[ours["head"]]["exp_avg"].dtype is torch.float32


def test_small_steps_are_not_lost():
    """Twenty steps of 1e-5 from 1.0: bf16 alone stays where it was."""
    value = nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    optimizer = MasterAdamW({"w": value}, lr=1e-4)
    for _ in range(60):
        value.grad = torch.ones_like(value)
        optimizer.step()
    torch.testing.assert_close(optimizer.master(value), torch.full((4,), 1 - 60e-4), rtol=1e-4, atol=0)
    assert value[0] < 1
    plain = nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    other = torch.optim.AdamW([plain], lr=1e-4, weight_decay=0)
    for _ in range(60):
        plain.grad = torch.ones_like(plain)
        other.step()
    assert plain[0] == 1


def test_gradients_are_scaled_and_bad_ones_change_nothing():
    start = torch.randn(8, 4, generator=torch.Generator().manual_seed(2)).bfloat16()
    one, two, bad = (nn.Parameter(start.clone()) for _ in range(3))
    for value, factor in ((one, 1.0), (two, 4.0), (bad, torch.nan)):
        optimizer = MasterAdamW({"w": value}, lr=1e-2)
        for grad in gradients((8, 4), 3):
            value.grad = (grad.bfloat16().float() * factor).bfloat16()
            optimizer.grad_scale = torch.tensor(factor)
            optimizer.found_inf = torch.tensor(float(factor != factor))
            optimizer.step()
    assert torch.equal(one, two)
    assert not torch.equal(one, start)
    assert torch.equal(bad, start)


def test_float32_weights_are_refused():
    with pytest.raises(InputError, match="bf16"):
        MasterAdamW({"w": nn.Parameter(torch.ones(2))})
