"""Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon): each weight matrix of the layers moves by its
momentum with all singular values made equal, scaled so that learning rates are those of AdamW (Liu et al.,
arXiv 2502.16982); everything else is AdamW's.

Letters: S matrices of one shape, R rows, C columns.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bagel.train.master import MasterAdamW, joined, send, split
from bagel.train.parallel import local, local_rows, whole

_QUINTIC = (3.4445, -4.7750, 2.0315)
"""Of the iteration, which brings singular values of 0 to 1 near 1 quickly, not exactly: between 0.7 and 1.2."""
_ROUNDS = 5
_SIZE = 0.2
"""Root mean square of an update at rate 1: about that of AdamW's."""


def is_matrix(name: str, value: Tensor) -> bool:
    """Whether a parameter is one of Muon's: a weight between the hidden values of the layers."""
    return value.ndim == 2 and ".layers." in name


class Muon(torch.optim.Optimizer):
    """matrices: by name, whole or sharded, of any numbers; bf16 ones keep an exact float32 master as in
    `bagel.train.master`. rest: the optimiser of all other parameters.

    State of each matrix: momentum, of its shape and numbers; low (int16) where the weight is bf16.
    """

    def __init__(
        self,
        matrices: Mapping[str, nn.Parameter],
        rest: torch.optim.Optimizer | None,
        lr: float = 1e-3,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(list(matrices.values()), {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.rest = rest
        self._rate: Tensor | None = None  # on the device
        if rest is not None:  # one set of rates and of states for both
            self.param_groups += rest.param_groups
            rest.state = self.state

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Nothing waits for the device."""
        self.count()
        self.move()

    def count(self) -> None:
        """The host's part of a step (see `MasterAdamW.count`)."""
        if isinstance(self.rest, MasterAdamW):
            self.rest.count()
        group = self.param_groups[0]
        for value in group["params"]:
            if value.grad is not None:
                self._begin(value)
        if self._rate is None:
            self._rate = torch.zeros((), device=group["params"][0].device)
        send([group["lr"]], self._rate)

    @torch.no_grad()
    def move(self) -> None:
        """The device's part, which a CUDA graph may replay where that of `rest` may be."""
        if isinstance(self.rest, MasterAdamW):
            self.rest.move()
        elif self.rest is not None:
            self.rest.step()
        group = self.param_groups[0]
        alike: dict[tuple[Any, ...], list[nn.Parameter]] = defaultdict(list)
        for value in group["params"]:
            if value.grad is not None:
                alike[tuple(value.shape), value.dtype].append(value)
        for values in alike.values():
            self._move(values, group["momentum"], group["weight_decay"])

    def _begin(self, value: nn.Parameter) -> None:
        state = self.state[value]
        if not state:
            state["momentum"] = torch.zeros_like(value)
            if value.dtype is torch.bfloat16:
                state["low"] = torch.zeros_like(value, dtype=torch.int16)

    def _move(self, values: list[nn.Parameter], momentum: float, decay: float) -> None:
        """One step of matrices of one shape, all at once: taken one by one they would cost more launches than the
        model does."""
        assert self._rate is not None
        means = [local(self.state[value]["momentum"]) for value in values]
        grads = [local(value.grad) for value in values if value.grad is not None]
        torch._foreach_lerp_(means, grads, 1 - momentum)
        ahead = torch._foreach_lerp(grads, means, momentum)  # Nesterov's
        asked = torch.stack([_whole(part, value) for part, value in zip(ahead, values, strict=True)])
        step = self._rate * (_SIZE * max(asked.shape[1:]) ** 0.5)
        moves, kept_share = orthogonal(asked)[:, local_rows(values[0])] * step, 1 - self._rate * decay
        weights = [local(value.detach()) for value in values]
        if values[0].dtype is not torch.bfloat16:
            torch._foreach_mul_(weights, kept_share)
            torch._foreach_sub_(weights, list(moves.to(weights[0].dtype).unbind()))
            return
        lows = [local(self.state[value]["low"]) for value in values]
        kept, low = torch.stack(weights), torch.stack(lows)
        split(joined(kept, low).mul_(kept_share).sub_(moves), kept, low)
        torch._foreach_copy_(weights, list(kept.unbind()))
        torch._foreach_copy_(lows, list(low.unbind()))


def _whole(part: Tensor, of: Tensor) -> Tensor:
    """The full matrix of which this rank holds `part`; all ranks must call."""
    if not hasattr(of, "to_local"):
        return part
    from torch.distributed.tensor import DTensor

    return whole(
        DTensor.from_local(part, of.device_mesh, of.placements, shape=of.shape, stride=of.stride())  # type: ignore[attr-defined]
    )


def orthogonal(x: Tensor) -> Tensor:
    """x [S, R, C] -> its nearest matrices with singular values near 1, float32 [S, R, C]: Newton and Schulz's
    iteration, in bf16 on a GPU."""
    tall = x.shape[1] > x.shape[2]
    y = (x.mT if tall else x).to(torch.bfloat16 if x.is_cuda else torch.float32)
    y = y / (torch.linalg.matrix_norm(y.float(), keepdim=True) + 1e-7).to(y.dtype)
    a, b, c = _QUINTIC
    for _ in range(_ROUNDS):
        square = y @ y.mT
        y = torch.baddbmm(y, torch.baddbmm(square, square, square, beta=b, alpha=c), y, beta=a)
    return (y.mT if tall else y).float()
