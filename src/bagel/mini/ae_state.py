"""Checkpoints of the autoencoder's training: one safetensors file, replaced as a whole."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

STATE = "state.safetensors"


def save(folder: Path, step: int, vae: nn.Module, mean: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
    """Weights, their running mean, the optimiser's state."""
    folder.mkdir(parents=True, exist_ok=True)
    names = dict(vae.named_parameters())
    tensors = {f"model.{name}": value.detach() for name, value in names.items()}
    tensors |= {f"mean.{name}": value for name, value in mean.items()}
    for name, value in names.items():
        tensors |= {f"optim.{key}.{name}": part for key, part in optimizer.state[value].items()}
    cpu = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    partial = folder / f".{STATE}.partial"
    save_file(cpu, partial, metadata={"progress": json.dumps({"step": step})})
    partial.replace(folder / STATE)


@torch.no_grad()
def load(folder: Path, vae: nn.Module, mean: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> int:
    """-> the steps done, 0 if there is no checkpoint."""
    path = folder / STATE
    if not path.exists():
        return 0
    names = dict(vae.named_parameters())
    with safe_open(path, framework="pt") as file:
        step = int(json.loads(file.metadata()["progress"])["step"])
        for name, value in names.items():
            value.copy_(file.get_tensor(f"model.{name}"))
            mean[name].copy_(file.get_tensor(f"mean.{name}"))
        for key in file.keys():  # noqa: SIM118 - not a mapping
            kind, _, rest = key.partition(".")
            if kind == "optim":
                part, _, name = rest.partition(".")
                state = file.get_tensor(key)
                optimizer.state[names[name]][part] = state if part == "step" else state.to(names[name].device)
    return step
