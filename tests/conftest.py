"""What the tests share: the official code's outputs, and the small checkpoint that made them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from bagel import Bagel
from bagel.images import open_image

GOLDEN = Path(__file__).parent / "golden"
CHECKPOINT = GOLDEN / "checkpoint"
torch.set_num_threads(1)  # the models are tiny, and test processes share the cores


@pytest.fixture(scope="session")
def golden() -> dict[str, Any]:
    return json.loads((GOLDEN / "golden.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def tensors() -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / "golden.safetensors")


@pytest.fixture(scope="session")
def bagel() -> Bagel:
    """The small random checkpoint in float32 on the CPU."""
    return Bagel.load(CHECKPOINT, device="cpu")


@pytest.fixture(scope="session")
def pictures() -> dict[str, Image.Image]:
    return {path.stem: open_image(path) for path in sorted((GOLDEN / "images").glob("*.png"))}


def error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Largest absolute difference over largest absolute value."""
    assert found.shape == wanted.shape
    found = found.detach()
    return float((found - wanted).abs().max() / wanted.abs().max())
