"""GGUF files that its own library writes, read here: every kind of block, the header, and what is wrong with one."""

import struct

import numpy as np
import pytest
import torch

from bagel import Bagel, CheckpointError
from bagel import checkpoint as checkpoints
from bagel.formats.blocks import KINDS
from bagel.formats.gguf import GgufFile
from conftest import CHECKPOINT
from make_checkpoint import copied

gguf = pytest.importorskip("gguf")
CPU = torch.device("cpu")
Q = gguf.GGMLQuantizationType
DRAW = {"height": 64, "width": 64, "num_timesteps": 3, "seed": 1}


def distance(found, wanted):
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())


def random_blocks(kind, count=7):
    """Any bytes are a legal block, but for scales that are no numbers."""
    made = np.random.default_rng(int(kind)).integers(0, 256, (count, KINDS[kind].bytes), dtype=np.uint8)
    halves = {Q.Q2_K: (80, 82), Q.Q3_K: (108,), Q.Q4_K: (0, 2), Q.Q5_K: (0, 2), Q.Q6_K: (208,)}
    for at in halves.get(kind, (0, 2) if kind in (Q.Q4_1, Q.Q5_1) else (0,)):
        made[:, at : at + 2] = np.linspace(-0.5, 0.7, count).astype(np.float16)[:, None].view(np.uint8)
    return made


@pytest.mark.parametrize("kind", [one for one in KINDS if KINDS[one].numbers > 1], ids=lambda one: KINDS[one].name)
def test_a_block_is_decoded_as_its_library_does(kind):
    blocks = random_blocks(Q(kind))
    assert gguf.GGML_QUANT_SIZES[Q(kind)] == (KINDS[kind].numbers, KINDS[kind].bytes)
    assert Q(kind).name == KINDS[kind].name
    wanted = torch.from_numpy(gguf.dequantize(blocks, Q(kind)))
    found = KINDS[kind].decode(torch.from_numpy(blocks))
    assert found.shape == wanted.shape
    assert torch.allclose(found, wanted, rtol=1e-6, atol=1e-7)


def write(path, tensors, kinds, prefix="", facts=()):
    """tensors as published; kinds: by name, else float32."""
    writer = gguf.GGUFWriter(path, "bagel")
    for key, add, value in facts:
        getattr(writer, add)(key, value)
    for name, value in tensors.items():
        kind = kinds.get(name, Q.F32)
        data = gguf.quantize(value.float().numpy(), kind)
        shape = data.shape if kind in (Q.F32, Q.F16) else None
        writer.add_tensor(prefix + name, data, raw_shape=shape, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def published():
    loaded = checkpoints.load(CHECKPOINT, CPU, torch.float32)
    return checkpoints.published_tensors(loaded.model)


def decoder_kinds(published, kind):
    """As community files are: products in blocks, the rest in float32."""
    return {
        name: kind
        for name, value in published.items()
        if ".layers." in name and "language_model" in name and value.ndim == 2 and value.shape[1] % 32 == 0
    }


def community(tmp_path, published, kind, **more):
    folder = copied(tmp_path / "model", without=("ema.safetensors",))
    kinds = decoder_kinds(published, kind)
    assert len(kinds) >= 20
    return write(folder / f"bagel-{kind.name.lower()}.gguf", published, kinds, **more)


@pytest.mark.parametrize(("kind", "most"), [(Q.Q8_0, 0.01), (Q.Q5_1, 0.06), (Q.Q4_0, 0.2), (Q.BF16, 0.004)])
def test_a_file_loads_to_what_it_holds(kind, most, tmp_path, published):
    path = community(tmp_path, published, kind)
    found = dict(checkpoints.load(path, CPU, torch.float32).model.named_parameters())
    wanted = dict(checkpoints.load(CHECKPOINT, CPU, torch.float32).model.named_parameters())
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        if value.any():
            assert distance(found[name], value) <= most, name
    assert any(not torch.equal(found[name], wanted[name]) for name in wanted)


def test_the_file_alone_or_its_folder_may_be_named(tmp_path, published):
    path = community(tmp_path, published, Q.Q8_0, prefix="model.diffusion_model.")
    named, found = Bagel.load(path, device="cpu"), Bagel.load(path.parent, device="cpu")
    plain = Bagel.load(CHECKPOINT, device="cpu").draw("a cube", **DRAW).latent
    assert torch.equal(named.draw("a cube", **DRAW).latent, found.draw("a cube", **DRAW).latent)
    assert 0 < distance(named.draw("a cube", **DRAW).latent, plain) < 0.2


@pytest.mark.parametrize("precision", ["int8", "nf4"])
def test_a_file_is_quantised_again_and_saved(precision, tmp_path, published):
    path = community(tmp_path, published, Q.Q8_0)
    bagel = Bagel.load(path, device="cpu", precision=precision)
    bagel.save(tmp_path / "packed")
    again = Bagel.load(tmp_path / "packed", device="cpu")
    assert torch.equal(bagel.draw("a cube", **DRAW).latent, again.draw("a cube", **DRAW).latent)


def test_an_autoencoder_may_be_gguf_too(tmp_path, published):
    path = community(tmp_path, published, Q.BF16)
    vae = checkpoints.load(CHECKPOINT, CPU, torch.float32).vae
    (path.parent / "ae.safetensors").unlink()
    write(path.parent / "pig_flux_vae.gguf", {name: value.detach() for name, value in vae.named_parameters()}, {})
    found = dict(checkpoints.load(path.parent, CPU, torch.float32).vae.named_parameters())
    assert all(torch.equal(value, found[name]) for name, value in vae.named_parameters())


def test_parts_are_rows(tmp_path, monkeypatch):
    value = torch.randn(50, 96, generator=torch.Generator().manual_seed(0))
    kinds = {"a": Q.Q8_0, "b": Q.F32, "c": Q.F16}
    path = write(tmp_path / "x.gguf", dict.fromkeys(kinds, value), kinds)
    whole = {name: GgufFile(path).read(name) for name in kinds}
    monkeypatch.setattr("bagel.formats.gguf._MOST", 96 * 7)
    for name in kinds:
        parts = list(GgufFile(path).parts(name, CPU))
        assert [len(part) for part in parts] == [7] * 7 + [1]
        assert torch.equal(torch.cat(parts), whole[name])
        assert distance(whole[name], value) < 0.01


def test_rows_that_end_within_a_block(tmp_path, monkeypatch):
    """What was reshaped to fill whole blocks comes back in its own shape, in parts that begin with a block."""
    value = torch.randn(64, 20, generator=torch.Generator().manual_seed(0))
    facts = [("comfy.gguf.orig_shape.a", "add_array", [64, 20])]
    path = write(tmp_path / "x.gguf", {"a": value.view(-1, 32)}, {"a": Q.Q8_0}, facts=facts)
    assert GgufFile(path).shape("a") == (64, 20)
    assert distance(GgufFile(path).read("a"), value) < 0.01
    monkeypatch.setattr("bagel.formats.gguf._MOST", 200)
    assert [len(part) for part in GgufFile(path).parts("a", CPU)] == [8] * 8
    assert distance(GgufFile(path).read("a"), value) < 0.01


def test_facts_of_every_type_are_read(tmp_path):
    facts = [("a", "add_string", "红"), ("b", "add_uint64", 2**40), ("c", "add_float32", 0.5), ("d", "add_bool", True),
             ("e", "add_array", ["x", "y"]), ("f", "add_array", [1, 2, 3])]  # fmt: skip
    about = GgufFile(write(tmp_path / "x.gguf", {"w": torch.zeros(1)}, {}, facts=facts)).about
    assert about["general.architecture"] == "bagel"
    assert [about[key] for key in "abcdef"] == ["红", 2**40, 0.5, True, ["x", "y"], [1, 2, 3]]


# --- what is wrong with a file -----------------------------------------------------------------------------------


def test_every_cut_is_noticed(tmp_path):
    whole = write(tmp_path / "x.gguf", {"w": torch.ones(4, 32)}, {"w": Q.Q8_0}).read_bytes()
    path = tmp_path / "cut.gguf"
    for end in range(0, len(whole) - 32, 5):
        path.write_bytes(whole[:end])
        with pytest.raises(CheckpointError, match="download it again"):
            GgufFile(path)


def test_another_version_type_or_order_is_named(tmp_path):
    path = write(tmp_path / "x.gguf", {"w": torch.ones(4, 32)}, {})
    whole = path.read_bytes()
    for version in (1, struct.unpack("<I", struct.pack(">I", 3))[0]):
        path.write_bytes(whole[:4] + struct.pack("<I", version) + whole[8:])
        with pytest.raises(CheckpointError, match="versions 2 and 3, little-endian"):
            GgufFile(path)
    kind = whole.index(b"w", 24) + 1 + 4 + 16
    path.write_bytes(whole[:kind] + struct.pack("<I", int(Q.IQ2_XS)) + whole[kind + 4 :])
    with pytest.raises(CheckpointError, match=r"stores w as IQ2_XS.*Q4_K.*or the original"):
        GgufFile(path)
    path.write_bytes(b"PK" + whole)
    with pytest.raises(CheckpointError, match="no GGUF file"):
        GgufFile(path)


def test_a_folder_says_what_it_lacks(tmp_path, published):
    path = community(tmp_path, published, Q.BF16)
    (path.parent / "other.gguf").write_bytes(path.read_bytes())
    with pytest.raises(CheckpointError, match=r"several files of weights .*give the path of one"):
        checkpoints.load(path.parent, CPU, torch.float32)
    alone = tmp_path / "alone" / path.name
    alone.parent.mkdir()
    alone.write_bytes(path.read_bytes())
    with pytest.raises(CheckpointError, match=r"holds weights alone; put the original's json files"):
        checkpoints.load(alone, CPU, torch.float32)


def test_a_language_model_of_llama_cpp_is_no_bagel(tmp_path):
    folder = copied(tmp_path / "model", without=("ema.safetensors",))
    path = write(folder / "qwen2.gguf", {"blk.0.attn_q.weight": torch.ones(4, 32)}, {})
    with pytest.raises(CheckpointError, match=r"do not fit the configuration"):
        checkpoints.load(path, CPU, torch.float32)
