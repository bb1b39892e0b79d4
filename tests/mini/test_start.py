"""The tracked folder that pre-training starts from: sizes, tokenizer, and the trained autoencoder as it is embedded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bagel import Bagel, world
from bagel import checkpoint as checkpoints
from bagel.images import from_levels, patchify
from bagel.infer.pipeline import find_model, is_random
from bagel.mini.folder import package
from bagel.mini.sharpness import psnr
from bagel.mini.sizes import MINI
from bagel.model.config import ModelConfig
from bagel.train.config import LatentsPart
from bagel.train.init import VAE_PREFIX, from_folder
from bagel.train.noise import LatentEncoder

START = Path(__file__).parents[2] / "configs" / "mini" / "start"


def pictures(*categories: str) -> torch.Tensor:
    """uint8 [B, 3, 128, 128]: the last picture of an exercise of each."""
    found = []
    for name in categories:
        sample = world.make(*name.split("/"), 7, 0, "heldout")
        shown = [part for part in sample.parts if isinstance(part, world.Picture)]
        found.append(shown[-1].pixels())
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).contiguous()


def test_its_sizes_are_those_of_mini() -> None:
    config = ModelConfig.from_folder(START)
    assert replace(config, vae=MINI.vae) == MINI
    assert replace(config.vae, scale_factor=1.0, shift_factor=0.0) == MINI.vae
    assert config.vae.scale_factor != 1.0


def test_training_learns_the_latents_that_the_packaged_model_reads(tmp_path: Path) -> None:
    start = from_folder(START, init="scratch")
    checkpoints.save(tmp_path / "trained", start.checkpoint("cpu", torch.bfloat16, vae_dtype=None))
    package(tmp_path / "trained", tmp_path / "packed")
    stored = START / checkpoints.VAE_WEIGHTS
    assert (tmp_path / "packed" / stored.name).read_bytes() == stored.read_bytes()

    levels = pictures("draw/binding", "navigate/one action")
    _, vae = checkpoints.build(start.config)
    vae.to_empty(device="cpu")
    start.fill(vae, VAE_PREFIX)
    encoder = LatentEncoder(vae, LatentsPart(sample=False), start.config.latent_patch_size)
    bagel = Bagel.load(tmp_path / "packed", device="cpu", dtype="float32")
    for one in levels:
        trained = patchify(encoder.vae.draw(encoder.vae.moments(from_levels(one[None])))[0], 2)
        read = bagel.runtime.encode(Image.fromarray(one.permute(1, 2, 0).numpy()))
        assert torch.equal(trained, read.latents)


def test_its_autoencoder_is_sharp_and_forgives_noise() -> None:
    """Deviation 1, above 36 dB in rooms and 40 on the plane, and little is lost to noise of a tenth."""
    vae = from_folder(START, init="scratch").checkpoint("cpu", torch.float32).vae.float()
    noise = torch.Generator().manual_seed(0)
    for least, levels in (
        (40.0, pictures("draw/binding", "draw/colours", "edit/add")),
        (34.0, pictures("navigate/one action", "turn/90 left")),
    ):
        pixels = from_levels(levels)
        with torch.inference_mode():
            latents = vae.encode(pixels)
            clean = psnr(vae.decode(latents), pixels)
            shaken = psnr(vae.decode(latents + 0.1 * torch.randn(latents.shape, generator=noise)), pixels)
        assert 0.7 < float(latents.std()) < 1.4
        assert clean > least
        assert shaken > clean - 1.5


@pytest.mark.skipif(is_random(find_model("mini")), reason="no trained mini is embedded")
def test_the_embedded_model_has_this_autoencoder() -> None:
    embedded = find_model("mini")
    for name in (checkpoints.VAE_WEIGHTS, "ae_config.json", "tokenizer.json", "vocab.json", "merges.txt"):
        assert (embedded / name).read_bytes() == (START / name).read_bytes()
