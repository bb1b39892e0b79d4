"""Triton kernels for packed weights in its interpreter, on the CPU: the numbers, not the speed."""

import subprocess
import sys

import pytest

pytest.importorskip("triton")

INT8 = """
import torch, torch.nn.functional as F
from bagel.model import triton_int8 as int8
from bagel.model.packed import quantise_int8

def distance(found, wanted):
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())

torch.manual_seed(0)
rows, inputs, outputs = 70, 384, 200
x = torch.randn(rows, inputs)
x[3, 7] = 300.0
weight, norm = quantise_int8(torch.randn(outputs, inputs) * 0.02), (torch.rand(inputs) + 0.5, 1e-6)
wide = weight.wide(torch.float32)
assert torch.equal(int8.widen(weight, torch.float32), wide)
bias, add = torch.randn(outputs), torch.randn(rows, outputs)
found, wanted = int8.product(int8.quantise(x), weight, torch.float32, bias, add), x @ wide.t() + bias + add
others = [row for row in range(rows) if row != 3]
assert distance(found[others], wanted[others]) < 0.01
assert distance(found[3], wanted[3]) < 0.05  # the outlier leaves nothing of the 127 beside it
found = int8.product(int8.quantise(x, norm), weight, torch.float32)
assert distance(found, F.rms_norm(x, (inputs,), *norm) @ wide.t()) < 0.01
gate, up = torch.randn(rows, 2 * inputs).chunk(2, dim=1)
values, scale = int8.swiglu(torch.cat((gate, up), dim=1))
assert distance(values.view(rows, -1, 128) * scale[..., None], (F.silu(gate) * up).view(rows, -1, 128)) < 0.015
"""

BF11 = """
import torch
from bagel.model import triton_bf11
from bagel.model.bf11 import quantise_bf11

torch.manual_seed(0)
for outputs, inputs in ((9, 70), (16, 640)):
    weight = quantise_bf11(torch.randn(outputs, inputs) * 0.02)
    wide = weight.wide(torch.float32)
    assert torch.equal(triton_bf11.widen(weight, torch.float32), wide)
    for rows in (1, 3, 16):
        x, bias, add = torch.randn(rows, inputs), torch.randn(outputs), torch.randn(rows, outputs)
        found = triton_bf11.product(x, weight, bias, add)
        assert torch.allclose(found, x @ wide.t() + bias + add, atol=1e-5), (rows, outputs)
"""


@pytest.mark.parametrize("code", [INT8, BF11], ids=["int8", "bf11"])
def test_numbers(code, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")  # read when the kernels are defined: a process of its own
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
