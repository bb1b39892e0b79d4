"""Losses and gradients against the official code's, through the real data path."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from bagel import checkpoint as checkpoints
from bagel.checkpoint import Checkpoint, pieces
from bagel.data.packing import TrainPack
from bagel.model.attention import Attend, PackAttention
from bagel.train.config import FreezePart, LatentsPart, LossPart
from bagel.train.freeze import freeze
from bagel.train.loss import Counts, Errors, errors, sums, total
from bagel.train.noise import LatentEncoder, noised
from conftest import CHECKPOINT, GOLDEN

from .packs import pack_of_plans, with_draws

PADDED = LatentsPart(padded=True, sample=False)


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    tensors = load_file(GOLDEN / "golden.safetensors")
    return {name.removeprefix("train/"): t for name, t in tensors.items() if name.startswith("train/")}


@pytest.fixture
def mini() -> Checkpoint:
    loaded = checkpoints.load(CHECKPOINT, torch.device("cpu"), torch.float32)
    freeze(loaded.model, FreezePart())
    return loaded


@pytest.fixture
def pack(tmp_path: Path, golden: dict[str, Tensor], mini: Checkpoint) -> TrainPack:
    plans = json.loads((GOLDEN / "golden.json").read_text(encoding="utf-8"))["train_samples"]
    made = pack_of_plans(plans, GOLDEN / "images", CHECKPOINT, tmp_path)
    return with_draws(made, golden["packed_timesteps"], mini.config.timestep_shift)


def relative(ours: Tensor, theirs: Tensor) -> float:
    return float((ours.detach() - theirs).abs().max() / theirs.abs().max())


def forward(
    loaded: Checkpoint, pack: TrainPack, noise: Tensor, chunk: int = 2048, attend: Attend | None = None
) -> tuple[TrainPack, Errors]:
    clean = LatentEncoder(loaded.vae, PADDED, loaded.config.latent_patch_size)(pack)
    batch, target = noised(pack, clean, noise)
    return batch, errors(loaded.model, batch, target, attend or PackAttention(batch.pack.layout), chunk)


def published_gradient(loaded: Checkpoint, name: str) -> Tensor:
    piece = pieces(loaded.model)[name]
    gradient = dict(loaded.model.named_parameters())[piece.parameter].grad
    assert gradient is not None, name
    return gradient if piece.rows is None else gradient[piece.start : piece.start + piece.rows]


@pytest.mark.parametrize("chunk", [2048, 7])
def test_losses_and_gradients(mini: Checkpoint, pack: TrainPack, golden: dict[str, Tensor], chunk: int) -> None:
    batch, found = forward(mini, pack, golden["noise"], chunk)
    for rows in (batch.ce_rows, batch.mse_rows):  # `model.varlen.take_rows` counts on it
        assert len(rows.unique()) == len(rows) > 0
    assert relative(found.ce, golden["ce"]) < 1e-5
    assert relative(found.mse, golden["mse"]) < 1e-5
    assert found.ce.mean().item() == pytest.approx(6.223775863647461, rel=1e-5)
    assert found.mse.mean().item() == pytest.approx(2.344012975692749, rel=1e-5)
    plain = sums(found, batch)
    ones = Counts(float(len(found.ce)), float(len(found.mse)))
    part = LossPart()
    unweighted = plain._replace(ce=found.ce.sum())
    total(unweighted, ones, part).backward()
    for name, theirs in golden.items():
        if name.startswith("grad/"):
            ours = published_gradient(mini, name.removeprefix("grad/"))
            assert relative(ours[: len(theirs)], theirs) < 2e-5, name


def test_reweighting(mini: Checkpoint, pack: TrainPack, golden: dict[str, Tensor]) -> None:
    batch, found = forward(mini, pack, golden["noise"])
    weights = golden["ce_loss_weights"]
    counts = Counts.of([batch])
    assert counts.ce == pytest.approx(float(weights.sum()), rel=1e-6)
    expected = (golden["ce"] * weights).sum() / weights.sum()
    assert (sums(found, batch).ce / counts.ce).item() == pytest.approx(expected.item(), rel=1e-5)


def test_pictures_alone_are_close_to_padded_and_better(mini: Checkpoint, pack: TrainPack) -> None:
    """Alone, a picture's latents are what inference computes, whatever else is in the pack."""
    alone = LatentEncoder(mini.vae, LatentsPart(sample=False), mini.config.latent_patch_size)(pack)
    for rows, number in zip(pack.latent_rows, pack.picture_of, strict=True):
        from bagel.images import patchify

        latent = mini.vae.encode(pack.picture(number)[None])[0]
        assert relative(alone[rows], patchify(latent, 2)) < 1e-5


def test_latents_are_drawn_from_the_packs_seeds(mini: Checkpoint, pack: TrainPack) -> None:
    encoder = LatentEncoder(mini.vae, LatentsPart(), mini.config.latent_patch_size)
    assert torch.equal(encoder(pack), encoder(pack))
    mean = LatentEncoder(mini.vae, LatentsPart(sample=False), mini.config.latent_patch_size)(pack)
    assert not torch.equal(encoder(pack), mean)


def test_cache_gives_the_same_latents(mini: Checkpoint, pack: TrainPack, tmp_path: Path) -> None:
    plain = LatentEncoder(mini.vae, LatentsPart(), 2)(pack)
    cached = LatentEncoder(mini.vae, LatentsPart(cache=str(tmp_path / "cache")), 2)
    assert torch.equal(cached(pack), plain)
    mini.vae.moments = None  # type: ignore[assignment]  # not needed any more
    assert torch.equal(cached(pack), plain)
