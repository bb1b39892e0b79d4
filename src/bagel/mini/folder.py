"""The folder that training starts from: sizes, tokenizer, autoencoder, in the official layout without `ema.safetensors`
(`model.init: scratch` needs no more)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from bagel.checkpoint import VAE_WEIGHTS, WEIGHTS, build, load, save
from bagel.errors import CheckpointError
from bagel.mini.words import train_tokenizer, wording
from bagel.model.config import ModelConfig
from bagel.model.vae import VAE
from bagel.tensor_files import write_tensors
from bagel.tokens import Tokenizer
from bagel.train.fresh import fresh

BUDGET_BYTES = 28_000_000
TEXTS = 4000
"""Exercises of each task from which the tokenizer is learnt."""


def write_start(out: Path, config: ModelConfig, texts: int = TEXTS) -> None:
    """Configs and tokenizer."""
    tokenizer = train_tokenizer(wording(texts), config.llm.vocab_size)
    rows = max(config.llm.vocab_size, len(tokenizer))
    write_texts(out, replace(config, llm=replace(config.llm, vocab_size=rows)), tokenizer)


def write_texts(out: Path, config: ModelConfig, tokenizer: Tokenizer) -> None:
    """Configs and tokenizer, as `checkpoint.save` writes them."""
    out.mkdir(parents=True, exist_ok=True)
    texts = {name: json.dumps(content, indent=1) for name, content in config.to_json().items()}
    for name, text in {**texts, **tokenizer.files()}.items():
        (out / name).write_text(text, encoding="utf-8")


def write_autoencoder(out: Path, config: ModelConfig, values: dict[str, Tensor], scale: float, shift: float) -> None:
    """`ae.safetensors` and the scale and shift that bring its latents to mean 0 and deviation 1."""
    vae = replace(config.vae, scale_factor=round(scale, 5), shift_factor=round(shift, 5))
    text = json.dumps(replace(config, vae=vae).to_json()["ae_config.json"], indent=1)
    (out / "ae_config.json").write_text(text, encoding="utf-8")
    tensors = {name: value.detach().cpu().contiguous() for name, value in values.items()}
    write_tensors(tensors, out / VAE_WEIGHTS)


def package(source: Path, out: Path, *, weights: bool = True) -> int:
    """A trained folder as it is embedded, or (without its `weights`, or where it has none) one that training starts
    from: every number in bf16, the autoencoder's too; -> its bytes. The autoencoder of both is the same file, byte for
    byte. Raises CheckpointError if it is over the budget."""
    if weights and (source / WEIGHTS).exists():
        save(out, load(source, torch.device("cpu"), torch.bfloat16))
    else:
        write_texts(out, ModelConfig.from_folder(source), Tokenizer.from_folder(source))
    values = load_file(source / VAE_WEIGHTS)
    write_tensors({name: value.bfloat16() for name, value in values.items()}, out / VAE_WEIGHTS)
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
