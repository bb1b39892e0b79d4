"""A setup, carried out: where parameters are loaded to, and the parts of a loaded model put in their places."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import torch

from bagel.checkpoint import Checkpoint
from bagel.memory.plan import Setup
from bagel.memory.split import Stage, layer_devices, split
from bagel.memory.stream import StreamedBlock, stream
from bagel.memory.tiles import tile_vae
from bagel.memory.visit import HostRows, Visiting

_PREFIX = {"vit": ("vit.", "connector."), "vae": ("vae.",), "embed": ("embed.",), "head": ("lm_head.",)}


def placer(setup: Setup, device: torch.device) -> Callable[[str], torch.device]:
    """Where a parameter is loaded to, so that what will lie on the host is never on the device whole."""
    host = torch.device("cpu")
    hosted = tuple(prefix for part in setup.offload for prefix in _PREFIX.get(part, ()))
    layers = re.compile(r"decoder\.layers\.\d+\.(" + "|".join(setup.streamed or ("-",)) + r")\.")

    def where(name: str) -> torch.device:
        return host if name.startswith(hosted) or layers.match(name) else device

    return where


def split_placer(num_layers: int, devices: Sequence[torch.device]) -> Callable[[str], torch.device]:
    """As `placer`, for layers that are spread over several devices."""
    of_layer = layer_devices(num_layers, devices)

    def where(name: str) -> torch.device:
        found = re.match(r"decoder\.layers\.(\d+)\.", name)
        return of_layer[int(found[1])] if found else devices[0]

    return where


def arrange(checkpoint: Checkpoint, setup: Setup, device: torch.device) -> None:
    """Puts the parts of a loaded model where the setup says."""
    model, vae = checkpoint.model, checkpoint.vae
    if setup.tile:
        tile_vae(vae, setup.tile)
    if "vae" in setup.offload:
        vae.encoder, vae.decoder = Visiting(vae.encoder, device), Visiting(vae.decoder, device)  # type: ignore[assignment]
    if "vit" in setup.offload:
        model.vit, model.connector = Visiting(model.vit, device), Visiting(model.connector, device)  # type: ignore[assignment]
    if "head" in setup.offload:
        model.lm_head = Visiting(model.lm_head, device)  # type: ignore[assignment]
    if "embed" in setup.offload:
        model.embed = HostRows(model.embed, device)  # type: ignore[assignment]
    if setup.streamed:
        stream(model.decoder, setup.streamed, setup.slots, device)
    model.capturable = not {"und", "gen", "embed", "head"} & set(setup.offload)


def is_whole(checkpoint: Checkpoint) -> bool:
    """Whether a model is as it is stored, so that it can be written."""
    if checkpoint.model.local.num_key_value_heads != checkpoint.config.llm.num_key_value_heads:
        return False
    moved = (Visiting, HostRows, StreamedBlock, Stage)
    return not any(isinstance(m, moved) for part in (checkpoint.model, checkpoint.vae) for m in part.modules())


def spread(checkpoint: Checkpoint, devices: Sequence[torch.device]) -> None:
    """Layers over several devices."""
    split(checkpoint.model, devices)
    checkpoint.model.capturable = False
