"""A decoder over several devices, by layers. Nothing is hooked: a stage moves what it is given to its device, and
the last one moves the result home. Keys and values of a layer lie where the layer does."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bagel.errors import InputError
from bagel.model.attention import Attend
from bagel.model.bagel import BagelModel
from bagel.model.decoder import Angles


class Stage(nn.Module):
    """A run of layers on one device; home: where the result goes, of the last stage."""

    def __init__(self, blocks: Sequence[nn.Module], device: torch.device, home: torch.device | None = None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.device, self.home = device, home

    def forward(
        self, und: Tensor, gen: Tensor, und_angles: Angles, gen_angles: Angles, attend: Attend
    ) -> tuple[Tensor, Tensor]:
        und, gen = move(und, self.device), move(gen, self.device)
        und_angles, gen_angles = (
            (move(cos, self.device), move(sin, self.device)) for cos, sin in (und_angles, gen_angles)
        )
        for block in self.blocks:
            und, gen = block(und, gen, und_angles, gen_angles, attend)
        return (und, gen) if self.home is None else (move(und, self.home), move(gen, self.home))


def move(x: Tensor, device: torch.device) -> Tensor:
    return x.to(device, non_blocking=True)


def shares(num_layers: int, num_devices: int) -> list[int]:
    """Layers of each device. The first holds everything else as well, so that what is uneven goes to the others.
    Raises InputError for more devices than layers."""
    if num_devices > num_layers:
        raise InputError(f"{num_devices} devices were asked for, but the model has {num_layers} layers to share out.")
    least, more = divmod(num_layers, num_devices)
    return [least + (index >= num_devices - more) for index in range(num_devices)]


def layer_devices(num_layers: int, devices: Sequence[torch.device]) -> tuple[torch.device, ...]:
    """The device of every layer."""
    counts = shares(num_layers, len(devices))
    return tuple(device for device, count in zip(devices, counts, strict=True) for _ in range(count))


def split(model: BagelModel, devices: Sequence[torch.device]) -> None:
    """Spreads the layers over the devices; the first keeps all else."""
    blocks, begin = list(model.decoder.layers), 0
    model.layer_devices = layer_devices(len(blocks), devices)
    stages = []
    for index, (device, count) in enumerate(zip(devices, shares(len(blocks), len(devices)), strict=True)):
        run = blocks[begin : begin + count]
        home = devices[0] if index + 1 == len(devices) else None
        stages.append(Stage([block.to(device) for block in run], device, home))
        begin += count
    model.decoder.layers = nn.ModuleList(stages)
