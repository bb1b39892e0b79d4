"""A small folder to train and judge: sizes and tokenizer of the toy, a random autoencoder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from bagel import checkpoint as checkpoints
from bagel.mini.folder import new_vae, write_autoencoder, write_start
from bagel.mini.sizes import TOY
from bagel.model.config import ModelConfig
from bagel.train.init import from_folder

SMALL = replace(TOY, llm=replace(TOY.llm, vocab_size=700))


def start_folder(folder: Path) -> Path:
    """What training begins from."""
    write_start(folder, SMALL, texts=12)
    config = ModelConfig.from_folder(folder)
    write_autoencoder(folder, config, dict(new_vae(config).named_parameters()), 1.0, 0.0)
    return folder


def toy_folder(folder: Path) -> Path:
    """A whole model of random weights."""
    start = from_folder(start_folder(folder / "start"), init="scratch")
    checkpoints.save(folder / "model", start.checkpoint("cpu", torch.float32))
    return folder / "model"
