"""A model's folder: its configuration, its tokenizer, and a model of that size without memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from bagel.errors import CheckpointError
from bagel.formats.source import home
from bagel.model.bagel import BagelModel
from bagel.model.config import ModelConfig
from bagel.model.vae import VAE
from bagel.tokens import Tokenizer

WEIGHTS, VAE_WEIGHTS = "ema.safetensors", "ae.safetensors"


@dataclass
class Checkpoint:
    """A folder, loaded."""

    config: ModelConfig
    model: BagelModel
    vae: VAE
    tokenizer: Tokenizer


def read_tokenizer(path: Path) -> Tokenizer:
    """Of a folder, or of the one that a file of weights lies in. Raises CheckpointError where it has ids that the
    model has no rows for."""
    folder = home(path)
    config, tokenizer = read_config(folder), Tokenizer.from_folder(folder)
    if tokenizer.num_stored > config.llm.vocab_size:
        raise CheckpointError(
            f"the tokenizer in {folder} has ids up to {tokenizer.num_stored - 1}, but vocab_size in llm_config.json is "
            f"{config.llm.vocab_size}: one of them belongs to another model; copy it from the original."
        )
    return tokenizer


def grown(config: ModelConfig, model: BagelModel) -> ModelConfig:
    """The configuration with the embedding table's true size, which new tokens may have made larger."""
    return replace(config, llm=replace(config.llm, vocab_size=len(model.embed.weight)))


def read_config(path: Path) -> ModelConfig:
    """Of a folder, or of the one that a file of weights lies in. Raises CheckpointError."""
    folder = home(path)
    if not folder.is_dir():
        raise CheckpointError(
            f"there is no model folder {str(folder)!r}; give the path of a BAGEL folder, or fetch one with "
            "`bagel download`."
        )
    if path != folder and not (folder / "llm_config.json").exists():
        raise CheckpointError(
            f"{path} holds weights alone; put the original's json files, tokenizer and ae.safetensors beside it."
        )
    return ModelConfig.from_folder(folder)


def build(config: ModelConfig, num_tokens: int = 0) -> tuple[BagelModel, VAE]:
    """Model and autoencoder without memory, on the meta device. A tokenizer with more ids than the embedding
    table has rows makes the table grow."""
    with torch.device("meta"):
        model, vae = BagelModel(config), VAE(config.vae)
        if num_tokens > config.llm.vocab_size:
            width = config.llm.hidden_size
            model.embed = nn.Embedding(num_tokens, width)
            model.lm_head = nn.Linear(width, num_tokens, bias=False)
    return model.requires_grad_(False).eval(), vae.requires_grad_(False).eval()
