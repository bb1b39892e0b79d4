"""Everything that a run needs, made from its config in the order that keeps memory low: the model on the meta
device, then sharded, then each rank's shards allocated and read."""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from bagel import lora
from bagel.checkpoint import Checkpoint
from bagel.data.config import build
from bagel.data.loader import PackLoader
from bagel.devices import pick_device
from bagel.infer.pipeline import find_model
from bagel.model.config import Layers
from bagel.train import optim, parallel
from bagel.train.config import ModelPart, TrainConfig
from bagel.train.feed import Data
from bagel.train.freeze import freeze
from bagel.train.init import VAE_PREFIX, Start, from_folder, from_parts
from bagel.train.noise import LatentEncoder
from bagel.train.parallel import World, local, local_rows
from bagel.train.state import Checkpoints


@dataclass
class Setup:
    """A run, ready to step. parameters: those that are trained, by name."""

    config: TrainConfig
    world: World
    checkpoint: Checkpoint
    start: Start
    data: Data
    encoder: LatentEncoder
    parameters: dict[str, nn.Parameter]
    optimizer: torch.optim.Optimizer
    ema: optim.Ema | None
    checkpoints: Checkpoints

    def tensors(self) -> dict[str, Tensor]:
        """All that a checkpoint holds, by name."""
        named: dict[str, Tensor] = {f"model.{name}": value for name, value in self.parameters.items()}
        named |= {f"ema.{name}": value for name, value in (self.ema.mean.items() if self.ema else ())}
        return named | {f"optim.{k}": v for k, v in optim.states(self.optimizer, self.parameters).items()}


def open_data(config: TrainConfig, start: Start) -> PackLoader:
    """The data of this rank, before it joins the others or takes a device. Raises InputError."""
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    pinned = pick_device(config.device).type == "cuda"
    return PackLoader(config.data, start.config, start.tokenizer, rank, size, pinned, draws=config.latents.sample)


def prepare(config: TrainConfig, world: World, start: Start | None = None, data: Data | None = None) -> Setup:
    """start, data: of the config, if they are made already. Raises InputError or CheckpointError before any memory
    is taken, for all that can be told by then."""
    start = start or start_of(config.model, config.data.seed)
    data = data or open_data(config, start)
    model, vae = start.model.to(parallel.params_dtype(config.parallel)), start.vae
    adapters = _choose_trained(start, config)
    parallel.apply(model, config.parallel, world)
    model.to_empty(device=world.device).train()
    start.fill(model)
    _reset(model, adapters, config.data.seed)
    vae.to(parallel.compute_dtype(config.parallel, world.device)).to_empty(device=world.device)
    start.fill(vae, VAE_PREFIX)
    parameters = optim.trained(model)
    return Setup(
        config=config,
        world=world,
        checkpoint=Checkpoint(start.config, model, vae, start.tokenizer),
        start=start,
        data=data,
        encoder=LatentEncoder(vae, config.latents, start.config.latent_patch_size),
        parameters=parameters,
        optimizer=optim.make(parameters, config.optim),
        ema=optim.Ema(parameters, config.optim.ema, config.optim.ema_warmup) if config.optim.ema else None,
        checkpoints=Checkpoints(Path(config.run), config.save.keep, world, config.parallel.timeout_minutes),
    )


def start_of(part: ModelPart, seed: int) -> Start:
    layers = Layers(part.layers) if part.layers else None
    if part.path:
        return from_folder(find_model(part.path), init=part.init, layers=layers, seed=seed, **part.settings)
    llm, vit, vae = (Path(path) for path in (part.llm, part.vit, part.vae) if path)
    return from_parts(llm, vit, vae, layers=layers or Layers.MOT, seed=seed, **part.settings)


def _choose_trained(start: Start, config: TrainConfig) -> list[lora.Adapter]:
    if not config.lora:
        freeze(start.model, config.freeze)
        return []
    lora.attach(start.model, build(lora.LoraConfig, config.lora, "lora"), seed=config.data.seed)
    return lora.adapters(start.model)


@torch.no_grad()
def _reset(model: nn.Module, adapters: list[lora.Adapter], seed: int) -> None:
    """New adapters, the same on any number of ranks: A uniform as in peft, B zero."""
    for adapter in adapters:
        generator = torch.Generator().manual_seed(seed + zlib.crc32(adapter.published.encode()))
        bound = adapter.A.shape[1] ** -0.5
        values = torch.rand(adapter.A.shape, generator=generator) * (2 * bound) - bound
        local(adapter.A).copy_(values[local_rows(adapter.A)])
        local(adapter.B).zero_()
