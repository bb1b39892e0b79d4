"""Products of many rows on the CPU: the numbers of the plain form, from few compiled sizes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from bagel.model import host_float
from bagel.model.kernels import forms, linear

pytestmark = pytest.mark.skipif(not host_float._available(), reason="this processor's products are left to PyTorch")


@pytest.mark.parametrize("rows", [16, 17, 64, 65, 200])
@pytest.mark.parametrize("biased", [True, False])
@torch.inference_mode()
def test_the_product_is_the_plain_one(rows, biased):
    x, weight, add = torch.randn(rows, 48), torch.randn(40, 48), torch.randn(rows, 40)
    bias = torch.randn(40) if biased else None
    assert host_float.fits(x, weight)
    for summand in (None, add):
        with forms(False):
            wanted = linear(x, weight, bias, summand)
        torch.testing.assert_close(linear(x, weight, bias, summand), wanted, rtol=1e-5, atol=1e-4)
    with forms(False):
        wanted = linear(x, weight, bias, add)
    assert linear(x, weight, bias, add, into=True) is add
    torch.testing.assert_close(add, wanted, rtol=1e-5, atol=1e-4)


@torch.inference_mode()
def test_a_bias_may_lie_anyhow():
    x, weight = torch.randn(16, 48), torch.randn(40, 48)
    for bias in (torch.randn(80)[::2], torch.randn(1), torch.randn(40).expand(40)):
        torch.testing.assert_close(host_float.product(x, weight, bias), F.linear(x, weight, bias), rtol=1e-5, atol=1e-4)


def test_few_rows_other_numbers_and_views_are_left_to_pytorch():
    x, weight = torch.randn(16, 48), torch.randn(40, 48)
    assert not host_float.fits(x[:15], weight)
    assert not host_float.fits(x.bfloat16(), weight.bfloat16())
    assert not host_float.fits(x[:, :24], weight[:, :24])
    assert not host_float.fits(x, weight.bfloat16())
    assert not host_float.fits(torch.randn(16, 2, 48), weight)


def test_a_gradient_goes_through_the_plain_form():
    x, weight = torch.randn(16, 48, requires_grad=True), torch.randn(40, 48)
    linear(x, weight).sum().backward()
    wanted = torch.autograd.grad(F.linear(x, weight).sum(), x)[0]
    torch.testing.assert_close(x.grad, wanted)


def test_few_sizes_are_compiled_and_little_is_wasted():
    filled = {rows: rows + -rows % host_float._grain(rows) for rows in range(16, 1025)}
    assert len(set(filled.values())) < 30
    assert max(size / rows for rows, size in filled.items() if rows > 32) <= 1.25
