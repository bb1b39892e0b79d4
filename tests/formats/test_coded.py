"""Safetensors with codes beside their tensors, written here as ComfyUI and bitsandbytes write them."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from bagel import Bagel, CheckpointError
from bagel import checkpoint as checkpoints
from bagel.formats.coded import CodedFiles
from bagel.model.packed import LEVELS
from bagel.tensor_files import TensorFiles
from conftest import CHECKPOINT
from make_checkpoint import copied

CPU = torch.device("cpu")
DRAW = {"height": 64, "width": 64, "num_timesteps": 3, "seed": 1}


def distance(found, wanted):
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())


def as_bytes(**words):
    return torch.tensor(list(json.dumps(words).encode()), dtype=torch.uint8)


def is_product(name, value):
    return "language_model" in name and ".layers." in name and value.ndim == 2


def changed(tmp_path, change, name="bagel-coded.safetensors", about=None):
    """A folder whose products `change` replaces by what it returns for (name without .weight, weight)."""
    folder, tensors = copied(tmp_path / "model", without=("ema.safetensors",)), {}
    for key, value in load_file(CHECKPOINT / "ema.safetensors").items():
        coded = is_product(key, value)
        tensors.update(change(key.removesuffix(".weight"), value.float()) if coded else {key: value})
    save_file(tensors, folder / name, about)
    return folder / name


def fp8(owner, weight, dtype=torch.float8_e4m3fn, largest=448.0, rows=False):
    scale = (weight.abs().amax(1, keepdim=True) if rows else weight.abs().max()) / largest
    return (weight / scale).to(dtype), scale


def comfy(owner, weight):
    value, scale = fp8(owner, weight)
    return {f"{owner}.weight": value, f"{owner}.weight_scale": scale, f"{owner}.input_scale": torch.ones(()),
            f"{owner}.comfy_quant": as_bytes(format="float8_e4m3fn")}  # fmt: skip


def comfy_rows(owner, weight):
    value, scale = fp8(owner, weight, rows=True)
    return {f"{owner}.weight": value, f"{owner}.weight_scale": scale}


def comfy_older(owner, weight):
    value, scale = fp8(owner, weight, torch.float8_e5m2, 57344.0)
    return {f"{owner}.weight": value, f"{owner}.scale_weight": scale, "scaled_fp8": torch.zeros(2).to(value.dtype)}


def plain_fp8(owner, weight):
    return {f"{owner}.weight": weight.to(torch.float8_e4m3fn)}


def int8(owner, weight):
    scb = weight.abs().amax(1)
    value = (weight / scb[:, None] * 127).round().to(torch.int8)
    return {f"{owner}.weight": value, f"{owner}.SCB": scb, f"{owner}.weight_format": torch.zeros((), dtype=torch.uint8)}


def nf4(owner, weight, block=64, nested=False):
    """As bitsandbytes: blocks run over the rows' ends, the first of two codes in the upper half of a byte."""
    flat = torch.nn.functional.pad(weight.flatten(), (0, -weight.numel() % block)).view(-1, block)
    scale = flat.abs().amax(1)
    codes = ((flat / scale[:, None])[..., None] - torch.tensor(LEVELS)).abs().argmin(-1).to(torch.uint8).flatten()
    codes = codes[: weight.numel() + weight.numel() % 2]
    name, state = f"{owner}.weight", {"quant_type": "nf4", "blocksize": block, "dtype": "float32"}
    state |= {"shape": list(weight.shape)}
    out = {name: (codes[::2] << 4 | codes[1::2])[:, None], f"{name}.quant_map": torch.tensor(LEVELS)}
    if nested:
        offset = scale.mean()
        outer = (scale - offset).abs().view(-1, 1).max().repeat(-(-len(scale) // 256))
        table = torch.linspace(-1, 1, 256)
        out[f"{name}.absmax"] = (((scale - offset) / outer[0] + 1) * 127.5).round().to(torch.uint8)
        out |= {f"{name}.nested_absmax": outer, f"{name}.nested_quant_map": table}
        state |= {"nested_blocksize": 256, "nested_offset": float(offset), "nested_dtype": "float32"}
    else:
        out[f"{name}.absmax"] = scale
    return out | {f"{name}.quant_state.bitsandbytes__nf4": as_bytes(**state)}


def nf4_nested(owner, weight):
    return nf4(owner, weight, nested=True)


@pytest.mark.parametrize(
    ("change", "most"),
    [(comfy, 0.05), (comfy_rows, 0.05), (comfy_older, 0.1), (plain_fp8, 0.12), (int8, 0.01), (nf4, 0.13),
     (nf4_nested, 0.13)],
)  # fmt: skip
def test_a_file_loads_to_what_it_means(change, most, tmp_path):
    path = changed(tmp_path, change)
    found = dict(checkpoints.load(path.parent, CPU, torch.float32).model.named_parameters())
    wanted = dict(checkpoints.load(CHECKPOINT, CPU, torch.float32).model.named_parameters())
    assert found.keys() == wanted.keys()
    far = {name: distance(found[name], value) for name, value in wanted.items() if value.any()}
    assert max(far.values()) < most, max(far, key=far.get)
    assert sum(value > 1e-6 for value in far.values()) >= 8
    assert Bagel.load(path, device="cpu").draw("a cube", **DRAW).latent.isfinite().all()


def test_the_official_name_may_hold_codes(tmp_path):
    path = changed(tmp_path, comfy, "ema.safetensors")
    model = checkpoints.load(path.parent, CPU, torch.bfloat16).model
    exact = checkpoints.load(CHECKPOINT, CPU, torch.bfloat16).model
    weight = "decoder.layers.0.und.o.weight"
    assert 0 < distance(model.get_parameter(weight), exact.get_parameter(weight)) < 0.05


@pytest.mark.parametrize("change", [comfy_rows, nf4, int8])
def test_parts_change_nothing(change, tmp_path, monkeypatch):
    weight = torch.randn(37, 50, generator=torch.Generator().manual_seed(0))
    save_file(change("w", weight), tmp_path / "x.safetensors")

    def files():
        return CodedFiles(TensorFiles([tmp_path / "x.safetensors"]), tmp_path / "x.safetensors")

    whole = files().read("w.weight")
    monkeypatch.setattr("bagel.formats.coded._MOST", 330)
    parts = list(files().parts("w.weight", CPU))
    assert len(parts) > 1
    assert torch.equal(torch.cat(parts), whole)
    assert distance(whole, weight) < 0.13


def nvfp4(owner, weight):
    return {f"{owner}.weight": torch.zeros(len(weight), weight.shape[1] // 2, dtype=torch.uint8),
            f"{owner}.weight_scale": torch.ones(len(weight), 4).to(torch.float8_e4m3fn),
            f"{owner}.comfy_quant": as_bytes(format="nvfp4")}  # fmt: skip


def blockwise(owner, weight):
    return {f"{owner}.weight": weight.to(torch.float8_e4m3fn), f"{owner}.weight_scale": torch.ones(len(weight), 2)}


def turned(owner, weight):
    return int8(owner, weight) | {f"{owner}.weight_format": torch.ones((), dtype=torch.uint8)}


@pytest.mark.parametrize(
    ("change", "says"),
    [(nvfp4, "is in nvfp4, which is not read here"), (blockwise, r"as F8_E4M3 with .*weight_scale of shape"),
     (turned, "layout for one GPU")],
)  # fmt: skip
def test_other_codes_are_named(change, says, tmp_path):
    path = changed(tmp_path, change)
    with pytest.raises(CheckpointError, match=says) as caught:
        checkpoints.load(path, CPU, torch.float32)
    assert "use the original" in str(caught.value)


@pytest.mark.parametrize(
    ("end", "value"),
    [("absmax", None), ("quant_map", None), ("nested_absmax", None), ("nested_quant_map", None),
     ("absmax", torch.zeros(7, dtype=torch.uint8)), ("quant_map", torch.zeros(7)), ("nested_quant_map", torch.zeros(7)),
     ("quant_state.bitsandbytes__nf4", as_bytes(quant_type="nf4")),
     ("quant_state.bitsandbytes__nf4", as_bytes(shape=[64, 160], blocksize=0))],
)  # fmt: skip
def test_what_a_weight_of_four_bits_lacks_is_named(end, value, tmp_path):
    path = changed(tmp_path, nf4_nested)
    tensors = load_file(path)
    name = next(key for key in sorted(tensors) if key.endswith(f".{end}"))
    del tensors[name]
    save_file(tensors | ({} if value is None else {name: value}), path)
    with pytest.raises(CheckpointError, match=f"{path.name} (lacks|has|does not say) .*use the original") as caught:
        checkpoints.load(path, CPU, torch.float32)
    assert name.removesuffix(f".{end}") in str(caught.value)


def test_the_headers_word_counts_too(tmp_path):
    layers = {"x": {"format": "mxfp8"}}
    path = changed(tmp_path, comfy_rows, about={"_quantization_metadata": json.dumps({"layers": layers})})
    with pytest.raises(CheckpointError, match="is in mxfp8"):
        checkpoints.load(path, CPU, torch.float32)
