"""What follows the gradients of a step: clipping, the optimiser and the running mean, launch by launch or as one
captured CUDA graph. A small model's update is hundreds of launches, which take a processor longer than the GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bagel.errors import InputError
from bagel.train import optim
from bagel.train.master import MasterAdamW, send
from bagel.train.muon import Muon

if TYPE_CHECKING:
    from bagel.train.setup import Setup

WARM_UP = 2
"""Steps before the capture: states, kernels and the libraries' workspaces are made in them."""


def make(setup: Setup) -> Update:
    """As `optim.captured` asks.

    Raises InputError where it asks for what cannot be.
    """
    wanted = setup.config.optim.captured
    problem = _against_capture(setup) if wanted != "off" else "it is off"
    if wanted == "on" and problem:
        raise InputError(f"optim.captured is on, but {problem}; leave it out, or set it to auto.")
    return Update(setup) if problem else CapturedUpdate(setup)


def _against_capture(setup: Setup) -> str:
    """Why an update cannot be captured; empty if it can."""
    if setup.world.device.type != "cuda":
        return "there is no GPU"
    if setup.world.mesh is not None:
        return "weights are sharded"
    rest = setup.optimizer.rest if isinstance(setup.optimizer, Muon) else setup.optimizer
    if rest is not None and not isinstance(rest, MasterAdamW):
        return "only optimisers over bf16 weights (parallel.params) with exact masters can be captured"
    return ""


class Update:
    """Launch by launch."""

    def __init__(self, setup: Setup) -> None:
        self.parameters, self.optimizer, self.ema = setup.parameters, setup.optimizer, setup.ema
        self.limit = setup.config.optim.clip

    def __call__(self, rate: float, step: int) -> Tensor:
        """At a learning rate, as optimizer step number `step`, counted from 1. The gradients are gone afterwards; ->
        their norm before it was clipped, on the device."""
        optim.set_rate(self.optimizer, rate)
        norm = optim.clip(self.parameters, self.limit, self.optimizer)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.ema:
            self.ema.update(step)
        return norm


class CapturedUpdate(Update):
    """From gradients that are copied to where the graph reads them. Once another set of parameters has had gradients
    than at the capture, their steps are counted apart, and every update goes launch by launch."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.optimizer: Muon | MasterAdamW
        self._graph: torch.cuda.CUDAGraph | None = None
        self._read: dict[str, Tensor] = {}  # gradients, as the graph reads them
        self._share = torch.zeros((), device=setup.world.device)
        self._steps = 0
        self._apart = False

    def __call__(self, rate: float, step: int) -> Tensor:
        grads = {name: value.grad for name, value in self.parameters.items() if value.grad is not None}
        self._steps += 1
        if self._graph and grads.keys() != self._read.keys():
            self._graph, self._apart = None, True
        if self._apart or self._steps <= WARM_UP:
            return super().__call__(rate, step)
        if self._graph is None and not self._counted_alike():
            self._apart = True
            return super().__call__(rate, step)
        optim.set_rate(self.optimizer, rate)
        self.optimizer.count()
        if self.ema:
            send([self.ema.share(step)], self._share)
        if self._graph is None:
            self._graph = self._captured(grads)
        torch._foreach_copy_(list(self._read.values()), list(grads.values()))
        self._graph.replay()
        self.optimizer.zero_grad()
        return self._norm.clone()

    def _counted_alike(self) -> bool:
        """Whether all parameters have had as many steps, as the graph has corrections for one number alone."""
        states = self.optimizer.state.values()
        return len({float(state["step"]) for state in states if "step" in state}) <= 1

    def _captured(self, grads: dict[str, Tensor]) -> torch.cuda.CUDAGraph:
        self._read = {name: torch.empty_like(grad) for name, grad in grads.items()}
        for name, grad in self._read.items():
            self.parameters[name].grad = grad
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        # Other threads may do as they like meanwhile: the loader's pins memory.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self._norm = optim.clip(self.parameters, self.limit, self.optimizer)
            self.optimizer.move()
            if self.ema:
                self.ema.move(self._share)
        return graph
