"""AdamW over bf16 weights that keeps an exact float32 master of each: at small rates a bf16 weight alone does not
move at all, and float32 weights cost a cast a layer and twice the memory.

The master is the bf16 weight and 16 more bits: `bits(master) = (bits(weight) << 16) + low`, low a signed 16-bit
number, so that the weight is always the master rounded to nearest. With moments in bf16 that is 10 bytes a
parameter, gradient included, where float32 takes 16; on a GPU the whole update is one kernel a tensor.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bagel.errors import InputError
from bagel.model.kernels import has_triton


class MasterAdamW(torch.optim.Optimizer):
    """parameters: by name, all bf16 (others are refused). moments: dtype of both.

    State of each parameter, all of its shape: low (int16), exp_avg, exp_avg_sq; and step, a float32 scalar.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        lr: float = 2.5e-5,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-15,
        weight_decay: float = 0.0,
        moments: torch.dtype = torch.bfloat16,
    ) -> None:
        wrong = [name for name, value in parameters.items() if value.dtype is not torch.bfloat16]
        if wrong:
            raise InputError(f"the master optimiser is for bf16 weights; {wrong[0]} is {parameters[wrong[0]].dtype}.")
        super().__init__(
            list(parameters.values()), {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        )
        self.moments = moments
        self._groups: dict[float, list[nn.Parameter]] = {}
        self._numbers: list[Tensor] = []

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Nothing waits for the device. As with PyTorch's fused optimisers, gradients are divided by `grad_scale` if it
        is set, and nothing changes if `found_inf` is not zero (both scalars on the device)."""
        self.count()
        self.move()

    def count(self) -> None:
        """The host's part of a step: counts it for each parameter with a gradient, and sends the rate and the
        corrections to the device, for each count in a small tensor that stays where it is."""
        self._groups = defaultdict(list)
        for value in self.param_groups[0]["params"]:
            if value.grad is not None:
                self._begin(value)
                self._groups[float(self.state[value]["step"])].append(value)  # on the CPU: no wait
        for number, (count, values) in enumerate(self._groups.items()):
            if number == len(self._numbers):
                self._numbers.append(torch.zeros(3, device=values[0].device))
            send(self._known(count), self._numbers[number])

    @torch.no_grad()
    def move(self) -> None:
        """The device's part, which a CUDA graph may replay: all that varies lies in tensors."""
        group = self.param_groups[0]
        for values, known in zip(self._groups.values(), self._numbers, strict=False):
            device = known.device
            scale, skip = getattr(self, "grad_scale", None), getattr(self, "found_inf", None)
            rest = torch.ones((), device=device) if scale is None else scale.float()
            last = torch.zeros((), device=device) if skip is None else skip.float()
            numbers = torch.cat((known, rest.reshape(1), last.reshape(1)))
            columns = [
                [_local(value), _local(value.grad), *self._of(value)] for value in values if value.grad is not None
            ]
            update = _fused() if device.type == "cuda" and has_triton() else _update_all
            beta1, beta2 = group["betas"]
            update(columns, numbers, beta1, beta2, group["eps"], group["weight_decay"])

    def _known(self, count: float) -> list[float]:
        """Rate, corrections of both moments."""
        group = self.param_groups[0]
        beta1, beta2 = group["betas"]
        return [float(group["lr"]), 1 - beta1**count, (1 - beta2**count) ** 0.5]

    def _begin(self, value: Tensor) -> None:
        state = self.state[value]
        if not state:
            state["low"] = torch.zeros_like(value, dtype=torch.int16)
            state["exp_avg"] = torch.zeros_like(value, dtype=self.moments)
            state["exp_avg_sq"] = torch.zeros_like(value, dtype=self.moments)
            state["step"] = torch.zeros((), dtype=torch.float32)
        state["step"] += 1

    def _of(self, value: Tensor) -> list[Tensor]:
        state = self.state[value]
        return [_local(state[key]) for key in ("low", "exp_avg", "exp_avg_sq")]

    def master(self, value: nn.Parameter) -> Tensor:
        """The float32 master of a weight; before the first step the weight itself."""
        state = self.state[value]
        return joined(value.detach(), state["low"]) if state else value.detach().float()


def send(numbers: list[float], to: Tensor) -> None:
    """Into a tensor on the device, in order with what is launched there, without waiting."""
    made = torch.tensor(numbers).view(to.shape)
    to.copy_(made.pin_memory() if to.is_cuda else made, non_blocking=True)


def _local(value: Tensor) -> Tensor:
    return value.to_local() if hasattr(value, "to_local") else value


def _fused() -> Callable[..., None]:
    from bagel.train.triton_master import update

    return update


def _update_all(
    columns: list[list[Tensor]], numbers: Tensor, beta1: float, beta2: float, eps: float, decay: float
) -> None:
    lr, correction1, correction2, scale, skip = numbers.unbind()
    for weight, grad, low, mean, square in columns:
        g = grad.float() / scale
        m = mean.float().lerp(g, 1 - beta1)
        v = square.float() * beta2 + g * g * (1 - beta2)
        before = joined(weight, low)
        value = before - lr * decay * before
        value = value - lr / correction1 * m / (v.sqrt() / correction2 + eps)
        mean.copy_(torch.where(skip > 0, mean.float(), m))
        square.copy_(torch.where(skip > 0, square.float(), v))
        split(torch.where(skip > 0, before, value), weight, low)


def joined(weight: Tensor, low: Tensor) -> Tensor:
    """bf16 and its 16 low bits -> float32."""
    return ((weight.view(torch.int16).to(torch.int32) << 16) + low.to(torch.int32)).view(torch.float32)


def split(value: Tensor, weight: Tensor, low: Tensor) -> None:
    """float32 -> bf16, rounded to nearest, and what is left of its bits. Written without a compare: half rounds up
    in magnitude."""
    bits = value.view(torch.int32)
    high = (bits + 0x8000) >> 16
    weight.copy_(high.to(torch.int16).view(torch.bfloat16))
    low.copy_((bits - (high << 16)).to(torch.int16))
