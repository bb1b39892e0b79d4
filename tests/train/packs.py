"""Packs through the real data path: plans of the golden files, and a small stream for runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bagel.data.config import DataConfig
from bagel.data.loader import open_datasets
from bagel.data.packing import TrainPack, assemble, times_of
from bagel.data.stream import Packer
from bagel.model.config import ModelConfig
from bagel.tokens import Tokenizer
from conftest import CHECKPOINT, GOLDEN

ROOT = Path(__file__).parents[2]
BUDGET = {"expected_num_tokens": 500, "max_num_tokens": 600, "max_num_tokens_per_sample": 600, "workers": 0}
USES = {("vit_image", 0): "look", ("vae_image", 0): "context", ("vae_image", 1): "target"}
THEN = {"start_of_image": "image", "eos_token_id": "end", "bos_token_id": "text"}


def document(plan: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A plan of the golden file as parts of the `document` recipe."""
    parts: list[dict[str, Any]] = []
    for item in plan:
        loss, then = item.get("loss", 0), THEN.get(item.get("special_token_label", ""))
        file = f"{item.get('image')}.png"
        if item["type"] == "text":
            parts.append({"text": item["text"], "loss": bool(loss), "drop": False, "then": then})
        elif "split_start" not in item:
            parts.append({"image": file, "use": USES[item["type"], loss], "drop": False, "then": then})
        else:
            if item["split_start"]:
                parts.append({"frames": [], "deltas": [], "loss": bool(loss), "drop": False})
            parts[-1]["frames"].append(file)
            parts[-1]["deltas"].append(item.get("frame_delta"))
    return parts


def pack_of_plans(
    plans: Sequence[Sequence[Mapping[str, Any]]], images: Path, checkpoint: Path, folder: Path
) -> TrainPack:
    """The samples of the plans, in order, in one pack, labels reweighted."""
    model, tokenizer = ModelConfig.from_folder(checkpoint), Tokenizer.from_folder(checkpoint)
    path = folder / "plans.jsonl"
    path.write_text("".join(json.dumps({"parts": document(plan)}) + "\n" for plan in plans), encoding="utf-8")
    own = {"name": "plans", "recipe": "document", "path": str(path), "root": str(images), "shuffle": False}
    config = DataConfig.from_dict({**BUDGET, "datasets": [own]})
    (dataset,) = open_datasets(config, model, tokenizer)
    samples = [dataset.encoded(0, place) for place in range(len(plans))]
    return assemble(samples, dataset.encoder.rules, model.timestep_shift, reweight=True)


def with_draws(pack: TrainPack, draws: Tensor, shift: float) -> TrainPack:
    """The pack with the golden file's time draws, one per latent token."""
    normals = torch.stack([draws[rows.start] for rows in pack.latent_rows])
    return replace(pack, pack=replace(pack.pack, times=times_of(normals, shift)), normals=normals)


def rows_for_runs() -> list[dict[str, Any]]:
    """All kinds of samples: drawing, questions, edits, text alone."""

    def text(words: str, loss: bool = False) -> dict[str, Any]:
        return {"text": words, "loss": loss, "drop": False}

    def image(name: str, use: str) -> dict[str, Any]:
        return {"image": f"{name}.png", "use": use, "drop": False}

    plans = []
    for number in range(24):
        name = ("wide", "tall", "square")[number % 3]
        plans += [
            [text(f"a red cube {number}"), image(name, "target")],
            [image(name, "look"), text(f"what is {number}"), text("red and blue", loss=True)],
            [image(name, "context"), image(name, "look"), text("remove it"), image("square", "target")],
            [text(f"say {number}"), text(f"the number {number}", loss=True)],
        ]
    return [{"parts": plan} for plan in plans]


def write_rows(folder: Path, rows: Sequence[Mapping[str, Any]] | None = None) -> dict[str, Any]:
    """A data section that reads them."""
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows or rows_for_runs()), encoding="utf-8")
    dataset = {"name": "rows", "recipe": "document", "path": str(path), "root": str(GOLDEN / "images")}
    return {**BUDGET, "datasets": [dataset]}


def run_config(folder: Path, **changes: Any) -> dict[str, Any]:
    """A config of a short run of the golden checkpoint."""
    return {
        "run": str(folder / "run"),
        "model": {"path": str(CHECKPOINT)},
        "data": write_rows(folder),
        "device": "cpu",
        "steps": 4,
        "loss": {"ce_limit": None, "mse_limit": None},
        "optim": {"lr": 1e-3},
        "log": {"tensorboard": False},
        **changes,
    }


class SharedPacks:
    """One stream that all ranks share out: with `world_size` x `accumulate` constant, every step sees the same
    packs whatever the number of ranks."""

    def __init__(self, config: Mapping[str, Any], rank: int, world_size: int) -> None:
        self.config, self.rank, self.world_size, self.taken = DataConfig.from_dict(config), rank, world_size, 0

    def __iter__(self) -> Iterator[TrainPack]:
        model, tokenizer = ModelConfig.from_folder(CHECKPOINT), Tokenizer.from_folder(CHECKPOINT)
        datasets = open_datasets(self.config, model, tokenizer)
        for number, pack in enumerate(Packer(datasets, self.config, model.timestep_shift)):
            if number % self.world_size == self.rank and number // self.world_size >= self.taken:
                self.taken += 1
                yield pack

    def state_dict(self) -> dict[str, Any]:
        return {"packs": self.taken * self.world_size}

    def load_state_dict(self, states: Sequence[Mapping[str, Any]]) -> None:
        self.taken = states[0]["packs"] // self.world_size


def losses(run: Path) -> dict[int, tuple[float, float, float]]:
    """step -> cross-entropy, squared error, gradient norm."""
    lines = (run / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return {line["step"]: (line["ce"], line["mse"], line["grad_norm"]) for line in map(json.loads, lines)}
