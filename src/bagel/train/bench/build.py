"""The trainer, made as `bagel train` makes it, but with random weights that are drawn on the device."""

from __future__ import annotations

import math
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import torch
from torch import nn

from bagel import lora
from bagel.checkpoint import Checkpoint
from bagel.data.config import DataConfig
from bagel.model.config import ModelConfig
from bagel.train import optim, parallel
from bagel.train.bench.shapes import Packs, tokenizer
from bagel.train.config import LogPart, ModelPart, OptimPart, ParallelPart, SavePart, TrainConfig
from bagel.train.init import from_scratch
from bagel.train.log import Reporter
from bagel.train.loop import Trainer
from bagel.train.noise import LatentEncoder
from bagel.train.parallel import World, local
from bagel.train.setup import Setup
from bagel.train.state import Checkpoints
from bagel.train.stop import Stop


def trainer(
    config: ModelConfig, packs: Packs, part: ParallelPart, world: World, optimizer: str, rank: int | None
) -> Trainer:
    """Ready to step. rank: of the adapters; None trains everything."""
    settings = TrainConfig(
        run=str(Path(gettempdir()) / "bagel-bench"),
        model=ModelPart(path="random"),
        data=DataConfig(datasets=()),
        steps=10**9,
        optim=OptimPart(),
        parallel=part,
        save=SavePart(every=0),
        log=LogPart(tensorboard=False),
    )
    setup = _setup(settings, config, packs, world, optimizer, rank)
    return Trainer(setup, Reporter(settings, False, 0), Stop(), 0)


def _setup(
    settings: TrainConfig, config: ModelConfig, packs: Packs, world: World, optimizer: str, rank: int | None
) -> Setup:
    start = from_scratch(config, tokenizer())
    model, vae = start.model.to(parallel.params_dtype(settings.parallel)).requires_grad_(True), start.vae
    if rank is not None:
        lora.attach(model, lora.LoraConfig(rank=rank))
    parallel.apply(model, settings.parallel, world)
    model.to_empty(device=world.device).train()
    vae.to(parallel.compute_dtype(settings.parallel, world.device)).to_empty(device=world.device)
    randomise(model)
    randomise(vae)
    parameters = optim.trained(model)
    return Setup(
        config=settings,
        world=world,
        checkpoint=Checkpoint(start.config, model, vae, start.tokenizer),
        start=start,
        data=packs,
        encoder=LatentEncoder(vae, settings.latents, config.latent_patch_size),
        parameters=parameters,
        optimizer=_optimizer(parameters, settings.optim, optimizer),
        ema=None,
        checkpoints=Checkpoints(Path(settings.run), 1, world),
    )


def _optimizer(parameters: dict[str, nn.Parameter], part: OptimPart, name: str) -> torch.optim.Optimizer:
    if name == "trainer":
        return optim.make(parameters, part)
    on_gpu = next(iter(parameters.values())).is_cuda
    return torch.optim.AdamW(parameters.values(), lr=part.lr, betas=(part.beta1, part.beta2), fused=on_gpu)


@torch.no_grad()
def randomise(model: nn.Module) -> None:
    """Values of the usual size, never zeros, which would cost less power and hence less time."""
    for name, parameter in model.named_parameters():
        value: Any = local(parameter)
        if name.endswith("bias"):
            value.normal_(std=0.01)
        elif parameter.ndim == 1:
            value.fill_(1.0)
        else:
            value.normal_(std=1 / math.sqrt(math.prod(parameter.shape[1:])))
