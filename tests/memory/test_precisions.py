"""Weights in fewer bits: their layout, how far the model moves, and that loading never holds two whole ones."""

import json
import struct
import weakref

import pytest
import torch
from safetensors.torch import load_file, save_file

from bagel import Bagel, CheckpointError, InputError
from bagel import checkpoint as checkpoints
from bagel.checkpoint import fill
from bagel.infer.conversation import Runtime
from bagel.infer.engine import Engine, Read
from bagel.model.bf11 import quantise_bf11
from bagel.model.packed import GROUP, LEVELS, quantise_int8, quantise_nf4
from bagel.model.quantise import precision_of, quantise
from bagel.pack import LatentPart, TextPart
from bagel.packed_files import packed_metadata
from conftest import CHECKPOINT
from make_checkpoint import config, made

CPU = torch.device("cpu")


def distance(found, wanted):
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 0.02


@pytest.mark.parametrize(("pack", "most"), [(quantise_bf11, 0.003), (quantise_int8, 0.01), (quantise_nf4, 0.1)])
@pytest.mark.parametrize("shape", [(8, 64), (5, 200), (3, 40)])
def test_a_weight_comes_back_nearly(pack, most, shape):
    weight = normal(*shape)
    packed = pack(weight)
    assert len(packed) == shape[0]
    assert packed.wide(torch.float32).shape == shape
    assert distance(packed.wide(torch.float32), weight) < most


@pytest.mark.parametrize("shape", [(8, 64), (5, 203), (3, 40)])
def test_bf11_is_bf16_but_for_the_smallest(shape):
    weight = normal(*shape).bfloat16()
    weight[0, 3], weight[1], weight[2, 1] = 1.5, 0.0, 1e-30  # an outlier, a row of zeros, a number near none
    packed = quantise_bf11(weight)
    found, largest = packed.wide(torch.bfloat16), weight.abs().amax(1, keepdim=True)
    near = weight.abs() >= largest * 2.0**-6
    assert torch.equal(found[near], weight[near])
    assert ((found.double() - weight.double()).abs() <= largest.double() * 2.0**-14).all()
    bits = sum(x.numel() * x.element_size() for x in (packed.low, packed.high)) * 8
    assert bits == 11 * shape[0] * (-(-shape[1] // 8) * 8)


def test_bf11_loses_little_of_normal_weights():
    weight = normal(64, 3584)
    rounded, found = weight.bfloat16().float(), quantise_bf11(weight).wide(torch.float32)
    assert (found == rounded).float().mean() > 0.96
    assert distance(found, rounded) < distance(rounded, weight) / 50
    assert torch.equal(quantise_bf11(found).wide(torch.float32), found)


def test_bf11_is_laid_out_as_documented():
    packed = quantise_bf11(normal(2, 20).bfloat16())
    assert (packed.low.shape, packed.high.shape) == ((2, 24), (2, 9))
    for k in range(20):
        code = int(packed.high[1, k // 4]) >> 2 * (k % 4) & 3 | (int(packed.high[1, 6 + k // 8]) >> k % 8 & 1) << 2
        low = int(packed.low[1, k])
        size = (128 + low % 128) * 2 ** (code - 1) if code else low % 128
        assert float(packed.wide(torch.float32)[1, k]) == (-size if low > 127 else size) * float(packed.scale[1])


def test_nf4_is_laid_out_as_documented():
    weight = normal(2, 70)
    packed = quantise_nf4(weight)
    assert packed.codes.shape == (2, GROUP)  # 70 inputs, filled up to 128, two in a byte
    assert packed.scale.shape == (2, 2)
    byte = int(packed.codes[1, 3])
    scale = float(packed.scale[1, 0])
    assert packed.wide(torch.float32)[1, 6] == pytest.approx(LEVELS[byte & 15] * scale)
    assert packed.wide(torch.float32)[1, 7] == pytest.approx(LEVELS[byte >> 4] * scale)


@pytest.mark.parametrize("pack", [quantise_bf11, quantise_int8, quantise_nf4])
def test_rows_of_zeros_and_of_large_numbers_are_finite(pack):
    weight = torch.zeros(3, 64)
    weight[1], weight[2] = 1e4, -1e-9
    wide = pack(weight).wide(torch.float32)
    assert wide.isfinite().all()
    assert not wide[0].any()
    assert wide[1] == pytest.approx(torch.full((64,), 1e4), rel=1e-2)


@pytest.mark.parametrize("pack", [quantise_bf11, quantise_int8, quantise_nf4])
def test_slices_of_rows_change_nothing(pack, monkeypatch):
    weight = normal(50, 64)
    whole = pack(weight)
    monkeypatch.setattr("bagel.model.packed._SLICE", 64 * 7)
    sliced = pack(weight)
    assert all(torch.equal(a, b) for a, b in zip(whole[:2], sliced[:2], strict=True))
    assert torch.equal(whole.wide(torch.bfloat16), sliced.wide(torch.bfloat16))


# --- quality -------------------------------------------------------------------------------------------------


def velocity(checkpoint):
    """Of a noised picture behind a few words."""
    runtime = Runtime.of(checkpoint)
    engine, tokenizer = Engine(checkpoint.model, runtime.engine.rules), checkpoint.tokenizer
    context = engine.new_context()
    noise = torch.randn(16, checkpoint.config.latent_width, generator=torch.Generator().manual_seed(1))
    engine.forward([Read(context, TextPart(tokenizer.segment("a red cube on a table")))])
    with torch.inference_mode():
        seen = engine.forward([Read(context, LatentPart(noise, (4, 4), 0.7, noised=True), keep=False)])
        return checkpoint.model.velocity(seen[0].latents)


WIDE = config(llm={"hidden_size": 128, "intermediate_size": 320, "num_hidden_layers": 4, "num_attention_heads": 4,
                   "num_key_value_heads": 2})  # fmt: skip
QUALITY = {"bf16": 0.02, "fp16": 0.003, "bf11": 0.01, "fp8": 0.06, "int8": 0.02, "nf4": 0.2}
"""Most relative error of the velocity against float32, small random weights; measured: see docs/memory.md."""


@pytest.mark.parametrize("precision", QUALITY)
def test_velocity_stays_near(precision):
    exact, other = velocity(made(WIDE)), made(WIDE)
    if precision in ("bf16", "fp16"):
        other.model.to(torch.bfloat16 if precision == "bf16" else torch.float16)
    else:
        quantise(other.model, precision)
        assert precision_of(other.model) == precision
    found = velocity(other)
    assert found.isfinite().all()
    assert 0 < distance(found, exact) < QUALITY[precision]


@pytest.mark.parametrize("layers", ["dense", "moe"])
@pytest.mark.parametrize("precision", ["bf11", "fp8", "int8", "nf4"])
def test_experts_that_share_go_on_sharing(layers, precision):
    from bagel.model.config import Layers

    small = made(config(llm={"layers": Layers(layers)}))
    quantise(small.model, precision)
    block = small.model.decoder.layers[0]
    assert block.gen.qkv is block.und.qkv
    assert (block.gen.mlp.down is block.und.mlp.down) == (layers == "dense")


# --- loading and saving ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["bf11", "fp8", "int8", "nf4"])
def test_loading_holds_one_whole_weight_at_a_time(precision, monkeypatch):
    alive, most, pack = [], [], fill.quantised

    def watched(model, owner, kind):
        found = pack(model, owner, kind)
        if found is not None:
            alive.append(weakref.ref(owner.weight))
            most.append(sum(one() is not None for one in alive))
        return found

    monkeypatch.setattr(fill, "quantised", watched)
    loaded = checkpoints.load(CHECKPOINT, CPU, torch.float32, precision=precision)
    assert precision_of(loaded.model) == precision
    assert len(most) >= 4 * 2 * loaded.config.llm.num_hidden_layers
    assert max(most) == 1


@pytest.mark.parametrize("precision", ["bf11", "fp8", "int8", "nf4"])
def test_a_packed_folder_loads_without_the_original(precision, tmp_path):
    bagel = Bagel.load(CHECKPOINT, device="cpu", precision=precision)
    bagel.save(tmp_path / "packed")
    again = Bagel.load(tmp_path / "packed", device="cpu")
    assert precision_of(again.runtime.checkpoint.model) == precision
    before, after = bagel.runtime.checkpoint.model.state_dict(), again.runtime.checkpoint.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    options = {"height": 64, "width": 64, "num_timesteps": 3, "seed": 1}
    assert torch.equal(bagel.draw("a cube", **options).latent, again.draw("a cube", **options).latent)


@pytest.fixture
def packed(tmp_path):
    checkpoints.save(tmp_path, checkpoints.load(CHECKPOINT, CPU, torch.float32, precision="int8"))
    return tmp_path


def test_a_packed_folder_says_what_it_cannot(packed):
    with pytest.raises(InputError, match="packed in int8"):
        Bagel.load(packed, device="cpu", precision="nf4")
    with pytest.raises(InputError, match="adapter"):
        Bagel.load(packed, device="cpu", lora="somewhere")
    file = packed / checkpoints.PACKED
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="truncated"):
        Bagel.load(packed, device="cpu")
    size = struct.unpack("<Q", whole[:8])[0]
    header = json.loads(whole[8 : 8 + size])
    header["__metadata__"]["bagel_packed"] = "7"
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + whole[8 + size :])
    with pytest.raises(CheckpointError, match="bagel_packed '7'"):
        Bagel.load(packed, device="cpu")
    del header["lm_head.scale"]
    header["__metadata__"]["bagel_packed"] = "1"
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + whole[8 + size :])
    with pytest.raises(CheckpointError):
        Bagel.load(packed, device="cpu")


def test_packed_numbers_of_another_kind_are_refused(packed):
    """A tool that casts a whole file keeps every name and shape, and what the numbers mean is lost."""
    file = packed / checkpoints.PACKED
    cast = {name: value.half() for name, value in load_file(file).items()}
    save_file(cast, file, packed_metadata("int8"))
    with pytest.raises(CheckpointError, match=r"another shape or kind: decoder\."):
        Bagel.load(packed, device="cpu")


def test_whole_and_packed_weights_do_not_share_a_folder(packed, tmp_path, monkeypatch, capsys):
    """Packed ones are what is loaded, so that others beside them would be passed over without a word."""
    from bagel.app import cli

    whole = Bagel.load(CHECKPOINT, device="cpu")
    with pytest.raises(CheckpointError, match=r"holds packed\.safetensors, .* give another folder"):
        whole.save(packed)
    assert not (packed / "ema.safetensors").exists()
    Bagel.load(packed, device="cpu").save(packed)  # of one kind: written anew
    whole.save(tmp_path / "whole")
    words = ["bagel", "pack", str(tmp_path / "whole"), "-m", str(tmp_path / "whole"), "--precision", "nf4"]
    monkeypatch.setattr("sys.argv", words)
    monkeypatch.setattr(Bagel, "load", None)  # it is said before that
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 1
    assert "holds ema.safetensors" in capsys.readouterr().err


@pytest.mark.parametrize("offload", [None, "und,gen,vit,vae,embed,head"])
def test_an_adapter_is_merged_before_quantising(offload, monkeypatch):
    """The whole weights lie on the host then, and are quantised one by one."""
    merged = []
    monkeypatch.setattr("bagel.infer.loading.apply", lambda model, lora: merged.append((precision_of(model), lora)))
    plain = Bagel.load(CHECKPOINT, device="cpu", precision="nf4")
    other = Bagel.load(CHECKPOINT, device="cpu", precision="nf4", lora="ink", offload=offload)
    assert merged == [(None, "ink")]
    options = {"height": 64, "width": 64, "num_timesteps": 3, "seed": 1}
    assert torch.equal(plain.draw("a cube", **options).latent, other.draw("a cube", **options).latent)


def test_the_pack_command(tmp_path, monkeypatch, capsys):
    from bagel.app import cli

    monkeypatch.setattr(
        "sys.argv", ["bagel", "pack", str(tmp_path / "small"), "--precision", "int8", "--device", "cpu"]
    )
    cli.main()
    assert capsys.readouterr().out.strip() == str(tmp_path / "small")
    assert precision_of(Bagel.load(tmp_path / "small", device="cpu").runtime.checkpoint.model) == "int8"


@pytest.mark.parametrize("rows", [1, 4, 5, 40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_int8_products_on_the_cpu(rows, dtype, monkeypatch):
    from bagel.model.kernels import linear, mlp, norm_linear

    monkeypatch.setattr("bagel.model.packed._SLICE", 96 * 50)  # several slices
    x, norm = normal(rows, 96, seed=1).to(dtype) * 50, ((normal(96, seed=2) + 1).to(dtype), 1e-6)
    weight, down = quantise_int8(normal(160, 96)), quantise_int8(normal(96, 80))
    bias, add = normal(160, seed=3).to(dtype), normal(rows, 160, seed=4).to(dtype)
    whole, narrow = weight.wide(torch.float64), down.wide(torch.float64)
    normed = torch.nn.functional.rms_norm(x.double(), (96,), norm[0].double(), 1e-6)
    gate, up = (normed @ whole.t()).chunk(2, dim=1)
    near = 1e-5 if dtype is torch.float32 else 8e-3
    with torch.inference_mode():
        assert distance(linear(x, weight, bias, add), x.double() @ whole.t() + bias + add) < near
        assert distance(norm_linear(x, norm, weight, bias), normed @ whole.t() + bias) < near
        wanted = x.double() + (torch.nn.functional.silu(gate) * up) @ narrow.t()
        assert distance(mlp(x, norm, weight, down), wanted) < near
