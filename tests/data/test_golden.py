"""The pack of the golden files, built from a JSONL file through recipe, encoder and packing: equal to what
the official code made of the same samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from bagel.data.encode import CLEAN
from bagel.data.packing import TrainPack, assemble, times_of
from bagel.images import from_levels
from bagel.sequence import visible

from .make import GOLDEN, data_config, write_jsonl

THEN = {"start_of_image": "image", "eos_token_id": "end"}
USE = {("vit_image", 0): "look", ("vae_image", 0): "context", ("vae_image", 1): "target"}


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    tensors = load_file(GOLDEN / "golden.safetensors")
    return {name.removeprefix("train/"): t for name, t in tensors.items() if name.startswith("train/")}


def as_parts(plan: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A plan of the golden file in the words of the `document` recipe."""
    parts: list[dict[str, Any]] = []
    for item in plan:
        then = THEN.get(item.get("special_token_label"))
        loss = item.get("loss", 0)
        if item["type"] == "text":
            parts.append({"text": item["text"], "loss": bool(loss), "drop": False, "then": then})
            continue
        file = f"{item['image']}.png"
        if item.get("split_start") is not None:
            if item["split_start"]:
                parts.append({"frames": [], "deltas": [], "loss": True, "drop": False})
            parts[-1]["frames"].append(file)
            parts[-1]["deltas"].append(item.get("frame_delta"))
        else:
            parts.append({"image": file, "use": USE[item["type"], loss], "drop": False, "then": then})
    return parts


@pytest.fixture
def made(tmp_path: Path, opened: Any, model: Any) -> TrainPack:
    plans = json.loads((GOLDEN / "golden.json").read_text(encoding="utf-8"))["train_samples"]
    path = write_jsonl(tmp_path / "golden.jsonl", [{"parts": as_parts(plan)} for plan in plans])
    own = {"recipe": "document", "path": str(path), "root": str(GOLDEN / "images"), "shuffle": False}
    dataset = opened(own)
    samples = [dataset.encoded(0, place) for place in range(len(plans))]
    return assemble(samples, dataset.encoder.rules, model.timestep_shift, reweight=True)


def test_text_and_places(made: TrainPack, golden: dict[str, Tensor]) -> None:
    layout = made.pack.layout
    assert len(made) == 512
    assert list(made.sample_lengths) == [48, 56, 266, 84, 58]
    assert torch.equal(made.pack.text_ids, golden["packed_text_ids"])
    assert torch.equal(layout.order[layout.text_rows], golden["packed_text_indexes"])
    assert torch.equal(layout.order[layout.vit_rows], golden["packed_vit_token_indexes"])
    assert torch.equal(layout.order[layout.num_und :], golden["packed_vae_token_indexes"])
    position = torch.empty_like(layout.position)
    position[layout.order] = layout.position
    assert torch.equal(position, golden["packed_position_ids"])


def test_pictures(made: TrainPack, golden: dict[str, Tensor]) -> None:
    assert torch.equal(from_levels(made.pack.patches), golden["packed_vit_tokens"])
    assert torch.equal(made.pack.vit_index, golden["packed_vit_position_ids"])
    assert list(made.pack.vit_lengths) == golden["vit_token_seqlens"].tolist()
    assert torch.equal(made.pack.latent_index, golden["packed_latent_position_ids"])
    assert torch.equal(made.padded_pictures(), golden["padded_images"])
    assert list(made.grids) == [(6, 6), (5, 8), (5, 8), (5, 8), (6, 4), (6, 6), (6, 4), (6, 4), (6, 4)]


def test_labels(made: TrainPack, golden: dict[str, Tensor]) -> None:
    order, und = made.pack.layout.order, made.pack.layout.num_und
    assert torch.equal(order[made.ce_rows], golden["ce_loss_indexes"])
    assert torch.equal(made.ce_labels, golden["packed_label_ids"])
    assert torch.equal(made.ce_weights, golden["ce_loss_weights"])
    assert torch.equal(order[und + made.mse_rows], golden["mse_loss_indexes"])


def test_masks(made: TrainPack, golden: dict[str, Tensor]) -> None:
    layout = made.pack.layout
    mask = torch.empty(len(made), len(made), dtype=torch.bool)
    mask[layout.order[:, None], layout.order[None, :]] = visible(layout, layout)
    start = 0
    for number, length in enumerate(made.sample_lengths):
        inside = slice(start, start + length)
        assert torch.equal(mask[inside, inside], golden[f"mask/{number}"].bool())
        assert mask[inside].sum() == mask[inside, inside].sum()
        start += length


def test_noise_levels(made: TrainPack, golden: dict[str, Tensor], model: Any) -> None:
    """The draws are our own; which are clean, and which share one, is not."""
    theirs, ours = golden["packed_timesteps"], made.normals[made.pack.image_of]
    assert torch.equal(theirs == CLEAN, ours == CLEAN)
    first = [int(rows.start) for rows in made.latent_rows]
    same = [(i, j) for i in first for j in first if theirs[i] == theirs[j]]
    assert same == [(i, j) for i in first for j in first if ours[i] == ours[j]]
    times = times_of(theirs, model.timestep_shift)
    noised = theirs != CLEAN
    plain = torch.sigmoid(theirs[noised])
    assert torch.equal(times[noised], 2 * plain / (1 + (2 - 1) * plain))
    assert not times[~noised].any()
    assert torch.equal(made.pack.times > 0, made.normals != CLEAN)


def test_through_packer(tmp_path: Path, first_packs: Any, golden: dict[str, Tensor]) -> None:
    """The same samples through the stream, in one pack of the budget's making."""
    plans = json.loads((GOLDEN / "golden.json").read_text(encoding="utf-8"))["train_samples"]
    path = write_jsonl(tmp_path / "golden.jsonl", [{"parts": as_parts(plan)} for plan in plans])
    own = {"name": "g", "recipe": "document", "path": str(path), "root": str(GOLDEN / "images")}
    config = data_config({**own, "shuffle": False}, expected_num_tokens=512, ce_loss_reweighting=True)
    (pack,) = first_packs(config)
    assert torch.equal(pack.pack.text_ids, golden["packed_text_ids"])
    assert torch.equal(pack.ce_weights, golden["ce_loss_weights"])
