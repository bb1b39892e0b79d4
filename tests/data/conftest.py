"""The golden model's sizes and tokenizer; data sets and packs by their config."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from bagel.data.config import DataConfig
from bagel.data.loader import open_datasets
from bagel.data.packing import TrainPack
from bagel.data.stream import Dataset, Packer
from bagel.model.config import ModelConfig
from bagel.tokens import Tokenizer

from .make import CHECKPOINT, data_config


@pytest.fixture(scope="session")
def model() -> ModelConfig:
    return ModelConfig.from_folder(CHECKPOINT)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_folder(CHECKPOINT)


@pytest.fixture
def opened(model: ModelConfig, tokenizer: Tokenizer) -> Callable[..., Dataset]:
    """A data set, by its config."""

    def make(own: Mapping[str, Any], **settings: Any) -> Dataset:
        return open_datasets(data_config({"name": "rows", **own}, **settings), model, tokenizer)[0]

    return make


@pytest.fixture
def first_packs(model: ModelConfig, tokenizer: Tokenizer) -> Callable[..., list[TrainPack]]:
    """The first packs of a config."""

    def make(config: DataConfig, count: int = 1) -> list[TrainPack]:
        packs = iter(Packer(open_datasets(config, model, tokenizer), config, model.timestep_shift))
        return [next(packs) for _ in range(count)]

    return make
