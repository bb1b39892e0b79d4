"""Values of parameters that no file gives, drawn by name and seed, so that they are the same whatever is built
first and on however many ranks."""

from __future__ import annotations

import math
import zlib

import torch
from torch import Tensor

_STD = 0.02
"""Of the decoder and the embeddings, as in Qwen2."""


def fresh(published: str, shape: tuple[int, ...], seed: int) -> Tensor:
    """float32 of that shape: norms one, biases zero, the velocity head zero, tables and the decoder N(0, 0.02),
    the encoders' weights N(0, 1 / inputs) (LeCun)."""
    if published.startswith("llm2vae") or published.endswith("bias"):
        return torch.zeros(shape)
    if len(shape) == 1:
        return torch.ones(shape)
    generator = torch.Generator().manual_seed((seed * 0x9E3779B1 + zlib.crc32(published.encode())) % 2**63)
    return torch.randn(shape, generator=generator) * _deviation(published, shape)


def _deviation(published: str, shape: tuple[int, ...]) -> float:
    if published.startswith(("language_model", "time_embedder")) or "position_embedding" in published:
        return _STD
    return 1 / math.sqrt(math.prod(shape[1:]))
