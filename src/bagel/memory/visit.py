"""Parts that lie on the host: on the device only while they are used, or, the embedding table, never."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class Visiting(nn.Module):
    """A module whose weights lie on the host; a call brings them to the device, and drops them behind it."""

    def __init__(self, inner: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.inner, self.device = to_host(inner, device), device

    def forward(self, *arguments: Any, **named: Any) -> Any:
        with visiting(self.inner, self.device):
            return self.inner(*arguments, **named)


class HostRows(nn.Module):
    """An embedding table on the host: the rows that are asked for travel."""

    def __init__(self, table: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.inner, self.device = table.to("cpu"), device

    def forward(self, ids: Tensor) -> Tensor:
        return self.inner(ids.to("cpu")).to(self.device)


def to_host(module: nn.Module, device: torch.device) -> nn.Module:
    """In pinned memory where the device is a GPU."""
    module.to("cpu")
    if device.type == "cuda":
        for held in _tensors(module):
            held.update({key: _like(value, value.detach().pin_memory()) for key, value in _there(held)})
    return module


@contextmanager
def visiting(module: nn.Module, device: torch.device) -> Iterator[None]:
    homes = [(held, dict(held)) for held in _tensors(module)]
    try:
        for held, home in homes:
            held.update({k: _like(v, v.detach().to(device, non_blocking=True)) for k, v in _there(home)})
        yield
    finally:
        for held, home in homes:
            held.update(home)


def _tensors(module: nn.Module) -> list[dict[str, Any]]:
    """The dictionaries that hold a module's tensors."""
    return [held for owner in module.modules() for held in (owner._parameters, owner._buffers)]


def _there(held: dict[str, Any]) -> list[tuple[str, Tensor]]:
    return [(key, value) for key, value in held.items() if value is not None]


def _like(old: Tensor | None, new: Tensor) -> Tensor:
    return nn.Parameter(new, requires_grad=False) if isinstance(old, nn.Parameter) else new
