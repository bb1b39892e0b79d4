"""Small checkpoints of any shape, made from the golden one or from random numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bagel import checkpoint as checkpoints
from bagel.checkpoint import Checkpoint
from bagel.model.config import ImageRules, LLMConfig, ModelConfig, ResizeRule, VAEConfig, ViTConfig
from bagel.tokens import Tokenizer
from conftest import CHECKPOINT

SIZES: dict[str, dict[str, Any]] = {
    "llm": {
        "hidden_size": 32,
        "intermediate_size": 40,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "vocab_size": 448,
    },
    "vit": {"hidden_size": 24, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2},
    "vae": {"ch": 32, "ch_mult": (1, 1), "num_res_blocks": 1, "z_channels": 4},
}


def copied(folder: Path, *, without: tuple[str, ...] = ()) -> Path:
    """A copy of the golden checkpoint that may be spoilt."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in CHECKPOINT.iterdir():
        if path.name not in without:
            (folder / path.name).write_bytes(path.read_bytes())
    return folder


def change_json(path: Path, **values: Any) -> None:
    data = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps({**data, **values}), encoding="utf-8")


def change_tensors(path: Path, change: Callable[[dict[str, Tensor]], None]) -> None:
    tensors = {name: value.clone() for name, value in load_file(path).items()}
    change(tensors)
    save_file(tensors, path)


def config(*, llm: dict[str, Any] | None = None, vit: dict[str, Any] | None = None, **own: Any) -> ModelConfig:
    """Sizes as small as they go, but for what is given. `vae`: sizes too."""
    vae = own.pop("vae", None)
    own.setdefault("images", ImageRules(vae=_rule(64, 32, 16), vit=_rule(56, 28, 14)))
    return ModelConfig(
        llm=LLMConfig(**{**SIZES["llm"], **(llm or {})}),
        vit=ViTConfig(**{**SIZES["vit"], **(vit or {})}),
        vae=VAEConfig(**{**SIZES["vae"], **(vae or {})}),
        **own,
    )


def _rule(largest: int, smallest: int, stride: int) -> ResizeRule:
    return ResizeRule(max_size=largest, min_size=smallest, stride=stride)


def made(sizes: ModelConfig, dtype: torch.dtype = torch.float32, seed: int | None = 0) -> Checkpoint:
    """Random weights of these sizes (without a seed all the same), with the golden checkpoint's tokenizer."""
    tokenizer = Tokenizer.from_folder(CHECKPOINT)
    model, vae = checkpoints.build(sizes, len(tokenizer))
    generator = torch.Generator().manual_seed(seed or 0)
    for module, kind in ((model, dtype), (vae, torch.float32)):
        module.to_empty(device="cpu").to(kind)
        for name, value in module.named_parameters():
            noise = 0.01 if seed is None else torch.randn(value.shape, generator=generator) * 0.05
            with torch.no_grad():
                value.fill_(float(value.ndim == 1 and "norm" in name)).add_(noise)
    return Checkpoint(sizes, model, vae, tokenizer)
