"""Each part against the official code, in float32 on the CPU."""

import zlib

import pytest
import torch

from bagel.images import patch_index, patchify, resize, resized_size, to_pixels
from bagel.model.attention import PackAttention
from bagel.model.config import ResizeRule
from bagel.pack import LatentPart, TextPart, VitPart, pack
from bagel.sequence import Kind, Layout, Segment, visible
from bagel.tokens import Tokenizer
from conftest import CHECKPOINT, error

NAMES = ("wide", "tall", "square")


@pytest.fixture(params=["tokenizer.json", "vocab.json"])
def tokenizer(request, tmp_path):
    for path in CHECKPOINT.glob("*.*"):
        if path.suffix in (".json", ".txt") and (path.name != "tokenizer.json" or request.param == "tokenizer.json"):
            (tmp_path / path.name).write_bytes(path.read_bytes())
    return Tokenizer.from_folder(tmp_path)


def test_tokenizer(tokenizer, golden):
    assert [tokenizer.encode(case["text"]) for case in golden["tokenizer"]] == [c["ids"] for c in golden["tokenizer"]]
    ids = golden["special_token_ids"]
    found = (tokenizer.bos, tokenizer.eos, tokenizer.start_of_image, tokenizer.end_of_image)
    assert found == tuple(ids[k] for k in ("bos_token_id", "eos_token_id", "start_of_image", "end_of_image"))


def test_resize_table(golden):
    for case in golden["resize"]:
        longest, shortest, stride, *limit = case["args"]
        rule = ResizeRule(max_size=longest, min_size=shortest, stride=stride)
        assert list(resized_size(*case["size_wh"], rule, case["img_num"], *limit)) == case["out_wh"], case


@pytest.mark.parametrize("interpolate", [False, True])
def test_position_ids(golden, interpolate):
    name = "interpolate" if interpolate else "extrapolate"
    for case in golden["position_ids"]:
        grid = case["h"] // case["patch"], case["w"] // case["patch"]
        ids = patch_index(grid, case["max_side"], interpolate)
        assert ids[:80].tolist() == case[f"{name}_head"][:80]
        assert zlib.crc32(ids.numpy().astype("<i8").tobytes()) == case[f"{name}_crc"]


KIND = {"causal": Kind.TEXT, "full": Kind.VIT, "noise": Kind.NOISED}


def test_masks(golden, tensors):
    for number, case in enumerate(golden["masks"]):
        kinds = zip(case["attn_modes"], case["split_lens"], strict=True)
        layout = Layout.of([[Segment(KIND[mode], length) for mode, length in kinds]])
        assert torch.equal(in_reading_order(layout), tensors[f"mask/{number}"].bool())


def in_reading_order(layout):
    place = layout.order.argsort()
    return visible(layout, layout)[place][:, place]


@pytest.mark.parametrize("name", NAMES)
def test_transforms_are_exact(bagel, tensors, pictures, name):
    for kind in ("vae", "vit"):
        pixels = to_pixels(resize(pictures[name], getattr(bagel.config.images, kind)))
        assert torch.equal(pixels, tensors[f"transform/{name}/{kind}"])


def test_time_embedding(bagel, tensors):
    model = bagel.runtime.checkpoint.model
    assert error(model.time(tensors["time_embedder/in"]), tensors["time_embedder/out"]) < 1e-5


def hidden(model, inputs):
    """Output after the final norms, in reading order."""
    und, gen = model(inputs, PackAttention(inputs.layout))
    stored = torch.cat((model.decoder.und_norm(und), model.decoder.gen_norm(gen)))
    return stored[inputs.layout.order.argsort()]


@pytest.mark.parametrize("number", range(3))
def test_text(bagel, golden, tensors, number):
    model, rules = bagel.runtime.checkpoint.model, bagel.runtime.engine.rules
    ids = bagel.runtime.checkpoint.tokenizer.segment(golden["texts"][number])
    inputs = pack([[TextPart(ids)]], rules)
    assert error(hidden(model, inputs), tensors[f"text/{number}/hidden"]) < 1e-5
    und, _ = model(inputs, PackAttention(inputs.layout))
    assert error(model.logits(und), tensors[f"text/{number}/logits"]) < 1e-5


def vit_part(pixels):
    return VitPart(patchify(pixels, 14), (pixels.shape[1] // 14, pixels.shape[2] // 14))


@pytest.mark.parametrize("name", NAMES)
def test_vit(bagel, tensors, pictures, name):
    model, rules = bagel.runtime.checkpoint.model, bagel.runtime.engine.rules
    inputs = pack([[vit_part(tensors[f"transform/{name}/vit"])]], rules)
    tokens = model.vit(inputs.patches, inputs.vit_index, inputs.vit_lengths)
    assert error(tokens, tensors[f"vit/{name}/tokens"]) < 1e-5
    assert error(model.embed_patches(inputs), tensors[f"vit/{name}/embeds"]) < 1e-5
    image = resize(pictures[name], bagel.config.images.vae)
    inputs = pack([[bagel.runtime.look(image)]], rules)
    assert error(hidden(model, inputs), tensors[f"context_vit/{name}/hidden"]) < 1e-5


def test_vit_packs_pictures_without_mixing_them(bagel, tensors):
    model, rules = bagel.runtime.checkpoint.model, bagel.runtime.engine.rules
    inputs = pack([[vit_part(tensors[f"transform/{name}/vit"]) for name in NAMES]], rules)
    tokens = model.vit(inputs.patches, inputs.vit_index, inputs.vit_lengths).split(inputs.vit_lengths)
    for name, found in zip(NAMES, tokens, strict=True):
        assert error(found, tensors[f"vit/{name}/tokens"]) < 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_vae(bagel, tensors, name):
    model, vae = bagel.runtime.checkpoint.model, bagel.runtime.checkpoint.vae
    latent = vae.encode(tensors[f"transform/{name}/vae"][None])
    assert error(latent, tensors[f"vae/{name}/latent"]) < 2e-5
    assert error(vae.decode(tensors[f"vae/{name}/latent"]), tensors[f"vae/{name}/decoded"]) < 2e-5
    part = LatentPart(patchify(latent[0], 2), (latent.shape[2] // 2, latent.shape[3] // 2))
    inputs = pack([[part]], bagel.runtime.engine.rules)
    assert error(hidden(model, inputs), tensors[f"context_vae/{name}/hidden"]) < 1e-5
