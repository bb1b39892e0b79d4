"""What of memory runs on a GPU alone: kernels for packed weights, streams with copies in flight, recovery from a
real shortage, and a request that is refused by what is really free."""

import pytest
import torch

from bagel import Bagel, MemoryPlanError
from bagel.memory.cards import Card, free_bytes
from bagel.memory.sizes import GIB
from bagel.model.bf11 import quantise_bf11
from bagel.model.packed import quantise_int8, quantise_nf4
from conftest import CHECKPOINT

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
CUDA = torch.device("cuda")
SMALL = {"height": 64, "width": 64, "num_timesteps": 6, "seed": 1}


def distance(found, wanted):
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())


@pytest.mark.parametrize(("outputs", "inputs"), [(5, 70), (4608, 3584), (3584, 18944)])
def test_nf4_is_widened_as_it_is_meant(outputs, inputs):
    from bagel.model.triton_nf4 import widen

    weight = quantise_nf4(torch.randn(outputs, inputs, device=CUDA) * 0.02)
    assert torch.equal(widen(weight, torch.float32), weight.wide(torch.float32))
    assert distance(widen(weight, torch.bfloat16), weight.wide(torch.float32)) < 3e-3


def test_int8_is_widened_as_it_is_meant():
    from bagel.model.triton_int8 import widen

    weight = quantise_int8(torch.randn(77, 3584, device=CUDA) * 0.02)
    assert torch.equal(widen(weight, torch.float32), weight.wide(torch.float32))
    assert distance(widen(weight, torch.bfloat16), weight.wide(torch.float32)) < 3e-3


@pytest.mark.parametrize("rows", [17, 64, 300])
@pytest.mark.parametrize(("outputs", "inputs"), [(200, 384), (768, 3584)])
def test_many_rows_meet_int8_weights_in_int8(rows, outputs, inputs):
    """Outliers in one group of inputs leave the others as they are."""
    from bagel.model.kernels import linear, mlp, norm_linear

    x = torch.randn(rows, inputs, device=CUDA).bfloat16()
    x[3, 7] = 500.0
    norm = torch.rand(inputs, device=CUDA).bfloat16(), 1e-6
    weight, down = (
        quantise_int8(torch.randn(*shape, device=CUDA) * 0.02) for shape in ((outputs, inputs), (inputs, outputs // 2))
    )
    bias, add = torch.randn(outputs, device=CUDA).bfloat16(), torch.randn(rows, outputs, device=CUDA).bfloat16()
    whole, narrow = weight.wide(torch.float64), down.wide(torch.float64)
    normed = torch.nn.functional.rms_norm(x.double(), (inputs,), norm[0].double(), 1e-6)
    gate, up = (normed @ whole.t()).chunk(2, dim=1)
    with torch.inference_mode():
        found, wanted = linear(x, weight, bias, add), x.double() @ whole.t() + bias + add
        assert distance(found[4:], wanted[4:]) < 1.5e-2
        assert distance(found, wanted) < 4e-2
        assert distance(norm_linear(x, norm, weight, bias), normed @ whole.t() + bias) < 1.5e-2
        wanted = x.double() + (torch.nn.functional.silu(gate) * up) @ narrow.t()
        assert distance(mlp(x, norm, weight, down), wanted) < 2e-2


@pytest.mark.parametrize(("outputs", "inputs"), [(5, 70), (4608, 3584), (3584, 18944)])
def test_bf11_is_widened_as_it_is_meant(outputs, inputs):
    from bagel.model.triton_bf11 import widen

    weight = quantise_bf11(torch.randn(outputs, inputs, device=CUDA) * 0.02)
    assert torch.equal(widen(weight, torch.bfloat16), weight.wide(torch.bfloat16))


@pytest.mark.parametrize("rows", [1, 2, 5, 16])
@pytest.mark.parametrize("pack", [quantise_bf11, quantise_int8, quantise_nf4])
def test_few_rows_meet_packed_weights(rows, pack):
    from bagel.model.kernels import linear, mlp, norm_linear

    x = torch.randn(rows, 256, device=CUDA).bfloat16()
    norm = torch.rand(256, device=CUDA).bfloat16(), 1e-6
    weight, down = (pack(torch.randn(*shape, device=CUDA) * 0.05) for shape in ((640, 256), (256, 320)))
    bias, add = torch.randn(640, device=CUDA).bfloat16(), torch.randn(rows, 640, device=CUDA).bfloat16()
    whole, narrow = weight.wide(torch.float64), down.wide(torch.float64)
    normed = torch.nn.functional.rms_norm(x.double(), (256,), norm[0].double(), 1e-6)
    gate, up = (normed @ whole.t()).chunk(2, dim=1)
    with torch.inference_mode():
        assert distance(linear(x, weight, bias, add), x.double() @ whole.t() + bias + add) < 5e-3
        assert distance(norm_linear(x, norm, weight, bias), normed @ whole.t() + bias) < 5e-3
        wanted = x.double() + (torch.nn.functional.silu(gate) * up) @ narrow.t()
        assert distance(mlp(x, norm, weight, down), wanted) < 1e-2


@pytest.mark.parametrize("precision", ["bf16", "bf11", "fp8", "nf4"])
def test_streamed_layers_give_the_same_picture(precision):
    plain = Bagel.load(CHECKPOINT, device="cuda", precision=precision)
    moved = Bagel.load(CHECKPOINT, device="cuda", precision=precision, offload="und,gen,vit,vae,embed,head")
    for _ in range(2):
        wanted, found = (model.draw("a cube", **SMALL).latent for model in (plain, moved))
        assert distance(found, wanted) < 1e-2
        assert plain.chat("hello", max_tokens=6).token_ids == moved.chat("hello", max_tokens=6).token_ids


@pytest.mark.parametrize("precision", ["fp16", "bf11", "int8", "nf4"])
def test_fp16_draws_as_bf16_does(precision):
    """As on cards without bf16: the autoencoder in float32, the rest in float16."""
    half = Bagel.load(CHECKPOINT, device="cuda", dtype="fp16", precision=precision)
    other = Bagel.load(CHECKPOINT, device="cuda", precision="bf16" if precision == "fp16" else precision)
    assert half.runtime.checkpoint.model.dtype is torch.float16
    assert half.runtime.checkpoint.vae.decoder.conv_out.weight.dtype is torch.float32
    found, wanted = half.draw("a cube", **SMALL), other.draw("a cube", **SMALL)
    assert distance(found.latent, wanted.latent) < 0.05
    assert half.chat("hello", max_tokens=4).token_ids


def test_fp8_without_fp8_units_is_widened(monkeypatch):
    wanted = Bagel.load(CHECKPOINT, device="cuda", precision="bf16").draw("a cube", **SMALL).latent
    monkeypatch.setattr("bagel.model.kernels.can_multiply", lambda device: False)
    older = Bagel.load(CHECKPOINT, device="cuda", precision="fp8")
    assert distance(older.draw("a cube", **SMALL).latent, wanted) < 0.2
    assert older.chat("hello", max_tokens=4).token_ids


def test_what_is_free_refuses_and_serves():
    model = Bagel.load(CHECKPOINT, device="cuda", precision="bf16")
    assert model.draw("a cube", **SMALL).image
    model.runtime.room.free = lambda: int(0.31 * GIB)
    with pytest.raises(MemoryPlanError, match="are free"):
        model.draw("a cube", **SMALL)
    assert Card.of(CUDA).free == pytest.approx(free_bytes(CUDA), rel=0.05)


def test_a_real_shortage_is_survived():
    model = Bagel.load(CHECKPOINT, device="cuda", precision="bf16")
    wanted = model.draw("a cube", **SMALL).latent
    model.runtime.room.free = None  # nobody looks ahead
    taken = [torch.empty(free_bytes(CUDA) - 2**26, dtype=torch.uint8, device=CUDA)]
    with pytest.raises(MemoryPlanError, match="ran out of memory"):
        model.draw("a cube", **{**SMALL, "height": 512, "width": 512})
    taken.clear()
    torch.cuda.empty_cache()
    assert distance(model.draw("a cube", **SMALL).latent, wanted) < 1e-2
