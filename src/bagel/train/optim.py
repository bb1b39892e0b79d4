"""The optimiser, its learning rate, clipping, and the running mean of the weights; all of it on this rank's shards."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from bagel.errors import InputError
from bagel.train.config import OptimPart
from bagel.train.master import MasterAdamW
from bagel.train.muon import Muon, is_matrix
from bagel.train.parallel import local, whole


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def make(parameters: Mapping[str, nn.Parameter], part: OptimPart) -> torch.optim.Optimizer:
    """AdamW: fused on a GPU; one tensor after the other on the CPU (the foreach form leaks objects on sharded
    tensors); over bf16 weights with an exact float32 master of each. Or Muon, with that for what is no matrix.

    Raises InputError where the 8-bit one is not installed, or where Muon finds no matrix.
    """
    if part.name == "muon":
        return _muon(parameters, part)
    values = list(parameters.values())
    settings: dict[str, Any] = {
        "lr": part.lr, "betas": (part.beta1, part.beta2), "eps": part.eps, "weight_decay": part.weight_decay
    }  # fmt: skip
    if part.name == "adamw" and values[0].dtype is torch.bfloat16:
        return MasterAdamW(parameters, **settings)
    if part.name == "adamw":
        fused = values[0].device.type == "cuda"
        return torch.optim.AdamW(values, **settings, fused=fused, foreach=False)
    return _adamw_8bit(values, settings)


def _muon(parameters: Mapping[str, nn.Parameter], part: OptimPart) -> torch.optim.Optimizer:
    matrices = {name: value for name, value in parameters.items() if is_matrix(name, value)}
    if not matrices:
        raise InputError("optim.name muon is for the layers' matrices, and none is trained here; use adamw.")
    others = {name: value for name, value in parameters.items() if name not in matrices}
    rest = make(others, replace(part, name="adamw", rest_share=1.0)) if others else None
    for group in rest.param_groups if rest else ():
        group["share"] = part.rest_share
    return Muon(matrices, rest, part.lr, part.momentum, part.weight_decay)


def _adamw_8bit(values: list[nn.Parameter], settings: dict[str, Any]) -> torch.optim.Optimizer:
    """torchao's, which knows sharded tensors; else bitsandbytes' on one GPU."""
    try:
        from torchao.optim import AdamW8bit

        return AdamW8bit(values, **settings)
    except ImportError:
        pass
    try:
        from bitsandbytes.optim import AdamW8bit as OfOneGPU
    except ImportError:
        raise InputError("optim.name adamw8bit needs torchao (`pip install torchao`), or bitsandbytes.") from None
    if any(hasattr(value, "to_local") for value in values):
        raise InputError("optim.name adamw8bit on several GPUs needs torchao: `pip install torchao`.")
    return OfOneGPU(values, **settings)


def rate(part: OptimPart, step: int, steps: int, seconds_left: float = math.inf) -> float:
    """The learning rate of a step counted from 0: a linear rise over `warmup` steps (the first is not wasted at
    rate 0, as it is upstream), then constant, half a cosine down to `min_lr` at the last step, or constant with a
    fall to `min_lr` at the end. seconds_left: until this process must end."""
    if step < part.warmup:
        return part.lr * (step + 1) / part.warmup
    if part.schedule == "constant":
        return part.lr
    if part.schedule == "wsd":
        height = _height(part, steps - 1 - step, seconds_left)
    else:
        done = (step - part.warmup) / max(1, steps - 1 - part.warmup)
        height = 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
    return part.min_lr + (part.lr - part.min_lr) * height


def _height(part: OptimPart, steps_left: int, seconds_left: float) -> float:
    """1 until the fall begins, 0 at the end: 1 minus the root of the share of the fall that is done (Haegele et al.,
    arXiv 2405.18392). Of two falls, by steps and by the clock, the deeper counts."""
    ahead = [steps_left / part.decay_steps] if part.decay_steps else []
    ahead += [seconds_left / (60 * part.decay_minutes)] if part.decay_minutes else []
    return 1 - math.sqrt(1 - max(0.0, min(1.0, *ahead)))


def set_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    """8-bit optimisers keep it as a tensor, which is filled in place. A group may take a share of it."""
    for group in optimizer.param_groups:
        rate = value * group.get("share", 1.0)
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def clip(parameters: Mapping[str, nn.Parameter], limit: float, optimizer: torch.optim.Optimizer) -> Tensor:
    """Gradients scaled down to a norm of `limit` over all parameters and ranks; -> the norm before, a number on
    the device. A fused optimiser scales while it updates, and leaves the weights alone where the norm is no
    number."""
    grads = [value.grad for value in parameters.values() if value.grad is not None]
    sharded = any(hasattr(grad, "to_local") for grad in grads)
    if sharded:
        norm = whole(nn.utils.get_total_norm(grads, 2.0)).float()
    else:
        norm = torch.stack(torch._foreach_norm(grads, 2.0, dtype=torch.float32)).norm()
    if isinstance(optimizer, MasterAdamW) or (optimizer.defaults.get("fused") and not sharded):
        optimizer.grad_scale = ((norm + 1e-6) / limit).clamp(min=1.0)  # type: ignore[attr-defined]
        optimizer.found_inf = (~norm.isfinite()).to(norm.dtype)  # type: ignore[attr-defined]
    else:
        torch._foreach_mul_([local(grad) for grad in grads], (limit / (norm + 1e-6)).clamp(max=1.0))
    return norm


def states(optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """All tensors of the optimiser by name, for a checkpoint to write or to fill. Before the first step they do
    not exist; a step at rate 0 makes them."""
    if not optimizer.state:
        _first_step(optimizer)
    return {
        f"{name}.{key}": value
        for name, parameter in parameters.items()
        for key, value in optimizer.state[parameter].items()
        if isinstance(value, Tensor)
    }


def _first_step(optimizer: torch.optim.Optimizer) -> None:
    rates = [float(group["lr"]) for group in optimizer.param_groups]
    set_rate(optimizer, 0.0)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    set_rate(optimizer, rates[0])


class Ema:
    """The running mean of the trained weights, float32, sharded as they are."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float, warmup: bool = False) -> None:
        self.decay, self.warmup, self._parameters = decay, warmup, parameters
        self.mean = {name: value.detach().clone().float() for name, value in parameters.items()}

    def update(self, step: int) -> None:
        """After optimizer step number `step`, counted from 1."""
        self.move(self.share(step))

    def share(self, step: int) -> float:
        """Of the weights after that step, in the mean."""
        return 1 - (min(self.decay, (1 + step) / (10 + step)) if self.warmup else self.decay)

    @torch.no_grad()
    def move(self, share: float | Tensor) -> None:
        """A share on the device varies in a CUDA graph that is replayed."""
        means = [local(value) for value in self.mean.values()]
        now = [local(value.detach()).float() for value in self._parameters.values()]
        if isinstance(share, float):
            torch._foreach_lerp_(means, now, share)
        else:
            torch._foreach_lerp_(means, now, [share] * len(means))

    @torch.no_grad()
    def start_anew(self) -> None:
        for name, value in self._parameters.items():
            local(self.mean[name]).copy_(local(value))

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The mean in the model, for sampling; afterwards the weights again."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, value in self._parameters.items():
            mean, weight = local(self.mean[name]), local(value.detach())
            kept = weight.clone()
            weight.copy_(mean)
            mean.copy_(kept)
