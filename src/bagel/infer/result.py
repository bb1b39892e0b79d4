"""What a request gives back, at its end and on the way."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from PIL import Image
from torch import Tensor


@dataclass
class Stats:
    """seconds: per phase (read, think, write, draw, decode), as they passed on the clock; for a request in a
    batch they hold the others' share too. updates: of the picture's state; model_calls: guidance branches
    computed; tokens: written; peak_memory: bytes on the GPU, 0 elsewhere."""

    seconds: dict[str, float] = field(default_factory=dict)
    updates: int = 0
    model_calls: int = 0
    tokens: int = 0
    peak_memory: int = 0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began
            if torch.cuda.is_available():
                self.peak_memory = torch.cuda.max_memory_allocated()


@dataclass
class Result:
    """text: the answer, or the thought of a picture; token_ids: of that text, with the start token; latent:
    float32 [tokens, 64] of the last picture; seed: the one used."""

    images: list[Image.Image] = field(default_factory=list)
    text: str | None = None
    token_ids: list[int] | None = None
    latent: Tensor | None = None
    seed: int | None = None
    stats: Stats = field(default_factory=Stats)

    @property
    def image(self) -> Image.Image | None:
        """The last picture, if there is one."""
        return self.images[-1] if self.images else None


@dataclass(frozen=True)
class TextDone:
    """A whole answer or thought."""

    text: str
    token_ids: list[int]
    thought: bool = False


@dataclass(frozen=True)
class ImageDone:
    """A whole picture; `latent` float32 [tokens, 64]."""

    image: Image.Image
    latent: Tensor
    seed: int
