"""What pre-training takes from the embedded model's folder: sizes, tokenizer, and the trained autoencoder; no more."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from bagel import Bagel, world
from bagel import checkpoint as checkpoints
from bagel.images import from_levels, patchify
from bagel.infer.pipeline import find_model
from bagel.mini.folder import package
from bagel.mini.sharpness import psnr
from bagel.mini.sizes import MINI
from bagel.model.config import ModelConfig
from bagel.train import config as configs
from bagel.train.config import LatentsPart
from bagel.train.coverage import Origin
from bagel.train.init import VAE_PREFIX, from_folder
from bagel.train.noise import LatentEncoder
from bagel.train.setup import start_of

START = find_model("mini")
PRETRAIN = Path(__file__).parents[2] / "configs" / "mini" / "pretrain.yaml"


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


def test_pretraining_begins_from_random_weights_and_the_embedded_autoencoder() -> None:
    """Its config names the trained model, of which it reads neither weight."""
    start = start_of(configs.load(PRETRAIN).model, seed=0)
    assert all(name.startswith(VAE_PREFIX) for name in start.read)
    ours, embedded = start.checkpoint("cpu"), checkpoints.load(START, torch.device("cpu"), torch.float32)
    trained = dict(embedded.model.named_parameters())
    for name, value in ours.model.named_parameters():
        is_plain = "norm" in name or name.endswith("bias")  # these begin at one and zero, some stay there
        assert is_plain or not torch.equal(value, trained[name]), name
    for name, value in embedded.vae.named_parameters():
        assert torch.equal(ours.vae.get_parameter(name), value), name
    head = "language_model.lm_head.weight"
    assert (start.origin(head), from_folder(START).origin(head)) == (Origin.NEW, Origin.FILE)


def test_what_a_making_begins_from_is_what_is_embedded(tmp_path: Path) -> None:
    """With its weights and without: every file the same bytes, so training's latents are the embedded model's."""
    for weights in (False, True):
        package(START, tmp_path / str(weights), weights=weights)
        made = {path.name: path.read_bytes() for path in (tmp_path / str(weights)).iterdir()}
        assert (checkpoints.WEIGHTS in made) == weights
        assert made == {name: (START / name).read_bytes() for name in made}
