"""The model that is measured: a folder's, or one of random weights, which cost the same time as real ones."""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from bagel import checkpoint as checkpoints
from bagel.bench.ceilings import FP8, PLAIN
from bagel.bench.host import HostPeak
from bagel.bench.meter import CountedEngine, Meter
from bagel.checkpoint import Checkpoint, read_config
from bagel.devices import generator_for, pick_device, pick_dtype
from bagel.errors import InputError
from bagel.infer.conversation import Runtime
from bagel.infer.pipeline import Bagel, find_model
from bagel.model.config import ModelConfig
from bagel.model.published import SEVEN_B
from bagel.model.quantise import quantise
from bagel.tokens import Tokenizer

RANDOM = ("7b", "tiny")


@dataclass(frozen=True)
class Loaded:
    """Of a folder. host_bytes: the most that the host held beside the mapped files; None where it is not known."""

    seconds: float
    host_bytes: int | None


@dataclass(frozen=True)
class Source:
    """What is measured, and where. folder: a model's; random: the sizes of one, with weights drawn on the device.
    written: a folder that random weights are written to first, to be loaded from there as a user's are. fast: with
    the kernels and captured graphs made for a GPU."""

    device: torch.device
    folder: Path | None = None
    random: str | None = None
    written: Path | None = None
    fast: bool = True

    @classmethod
    def of(
        cls,
        device: str | torch.device,
        model: str | None,
        random: str | None,
        written: Path | None = None,
        fast: bool = True,
    ) -> Source:
        """Raises InputError unless one of a model and random sizes is given."""
        if (model is None) == (random is None):
            raise InputError("give what to measure: either --model FOLDER, or --random with 7b or tiny.")
        if random is not None and random not in RANDOM:
            raise InputError(f"random is {random!r}; use one of {', '.join(RANDOM)}.")
        if written is not None and random is None:
            raise InputError("only random weights are written first; leave out --write, or give --random.")
        return cls(pick_device(device), find_model(model) if model else None, random, written, fast)

    @property
    def name(self) -> str:
        if self.folder is not None:
            return str(self.folder)
        return f"random weights of the {'7B' if self.random == '7b' else self.random} sizes"

    @property
    def dtype(self) -> torch.dtype:
        return pick_dtype("auto", self.device)

    @property
    def config(self) -> ModelConfig:
        if self.folder is not None:
            return read_config(self.folder)
        return SEVEN_B if self.random == "7b" else read_config(_words())

    def load(self, precision: str) -> tuple[Bagel, Loaded | None]:
        """The model, counted, `plain` (in `dtype`) or in fp8; and what loading a folder took."""
        packed = None if precision == PLAIN else precision
        folder, took = self.folder or self._on_disk(), None
        if folder is not None:
            began = time.perf_counter()
            with HostPeak() as peak:
                bagel = Bagel.load(folder, device=self.device, precision=packed)
                wait(self.device)
            took = Loaded(time.perf_counter() - began, peak.bytes)
        else:
            made = random_checkpoint(self.config, self.device, self.dtype)
            if packed:
                quantise(made.model, packed)
            bagel = Bagel(Runtime.of(made))
        return self._counted(bagel, packed), took

    def _on_disk(self) -> Path | None:
        if self.written is not None and not (self.written / "config.json").exists():
            checkpoints.save(self.written, random_checkpoint(self.config, self.device, self.dtype))
        return self.written

    def in_fp8(self, bagel: Bagel) -> Bagel:
        """A whole plain model quantised where it lies, as loading does it."""
        quantise(bagel.runtime.checkpoint.model, FP8)
        return self._counted(Bagel(Runtime.of(bagel.runtime.checkpoint)), FP8)

    def _counted(self, bagel: Bagel, packed: str | None) -> Bagel:
        engine = CountedEngine.of(bagel.runtime.engine, Meter(bagel.config, self.dtype, packed))
        engine.fast = self.fast
        return Bagel(replace(bagel.runtime, engine=engine))


def random_checkpoint(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> Checkpoint:
    """Weights of the real sizes, normal with deviation 0.02, norms one; never zeros, which would cost less power and
    hence less time. The tokenizer is the embedded model's."""
    model, vae = checkpoints.build(config)
    generator = generator_for(0, device)
    for module in (model, vae):
        for name, owner in module.named_modules():
            for key, empty in list(owner._parameters.items()):
                if empty is not None and empty.is_meta:
                    value = torch.empty(empty.shape, dtype=dtype, device=device)
                    is_scale = key == "weight" and (empty.ndim == 1 or "norm" in name)
                    value.fill_(1) if is_scale else value.normal_(0, 0.02, generator=generator)
                    owner._parameters[key] = nn.Parameter(value, requires_grad=False)
    return Checkpoint(config, model, vae, Tokenizer.from_folder(_words()))


def _words() -> Path:
    return find_model("mini")


def wait(device: torch.device) -> None:
    """Until the device has done all it was told to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def forget(device: torch.device) -> None:
    """Gives back what nothing holds any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
