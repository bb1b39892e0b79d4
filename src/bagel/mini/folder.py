"""The folder that training starts from: sizes, tokenizer, autoencoder, in the official layout without `ema.safetensors`
(`model.init: scratch` needs no more)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from bagel.checkpoint import VAE_WEIGHTS, build, load, save
from bagel.errors import CheckpointError
from bagel.mini.words import train_tokenizer, wording
from bagel.model.config import ModelConfig
from bagel.model.vae import VAE
from bagel.train.fresh import fresh

BUDGET_BYTES = 28_000_000
TEXTS = 4000
"""Exercises of each task from which the tokenizer is learnt."""


def write_start(out: Path, config: ModelConfig, texts: int = TEXTS) -> None:
    """Configs and tokenizer."""
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(wording(texts), config.llm.vocab_size)
    config = replace(config, llm=replace(config.llm, vocab_size=max(config.llm.vocab_size, len(tokenizer))))
    for name, content in config.to_json().items():
        (out / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    for name, text in tokenizer.files().items():
        (out / name).write_text(text, encoding="utf-8")


def write_autoencoder(out: Path, config: ModelConfig, values: dict[str, Tensor], scale: float, shift: float) -> None:
    """`ae.safetensors` and the scale and shift that bring its latents to mean 0 and deviation 1."""
    vae = replace(config.vae, scale_factor=round(scale, 5), shift_factor=round(shift, 5))
    text = json.dumps(replace(config, vae=vae).to_json()["ae_config.json"], indent=2) + "\n"
    (out / "ae_config.json").write_text(text, encoding="utf-8")
    tensors = {name: value.detach().cpu().contiguous() for name, value in values.items()}
    save_file(tensors, out / VAE_WEIGHTS, metadata={"format": "pt"})


def package(source: Path, out: Path) -> int:
    """A trained folder as it is embedded: every number in bf16, the autoencoder's too; -> its bytes. Raises
    CheckpointError if it is over the budget."""
    checkpoint = load(source, torch.device("cpu"), torch.bfloat16)
    save(out, checkpoint)
    tensors = {name: value.detach().bfloat16().contiguous() for name, value in checkpoint.vae.named_parameters()}
    save_file(tensors, out / VAE_WEIGHTS, metadata={"format": "pt"})
    size = sum(path.stat().st_size for path in out.iterdir() if path.is_file())
    if size > BUDGET_BYTES:
        raise CheckpointError(f"{out} holds {size:,} bytes, more than {BUDGET_BYTES:,}; make the model smaller.")
    return size


def new_vae(config: ModelConfig, seed: int = 0) -> VAE:
    """Random weights, the same for the same seed; the last layer of each residual block begins at zero."""
    _, vae = build(config)
    vae.to_empty(device="cpu")
    with torch.no_grad():
        for name, value in vae.named_parameters():
            value.copy_(fresh(name, tuple(value.shape), seed))
            if name.endswith("conv2.weight"):
                value.zero_()
    return vae.requires_grad_(True).train()
