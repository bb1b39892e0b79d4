"""One update of images being denoised, prepared once and run many times. Between the updates of a drawing only
the latents and the times change: layout, positions and the places of keys and values stay on the GPU, and a
small pass, which would be bound by launching its kernels, is captured as a graph.

Letters: G latent tokens of the pass, I images, Z numbers in a latent token, D model width.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from bagel.infer.attention import FastAttention, Window
from bagel.infer.context import Context
from bagel.model.bagel import BagelModel
from bagel.model.decoder import Read, one_by_one
from bagel.pack import LatentPart, Pack

MOST_CAPTURED_TOKENS = 4000
"""A pass with more latent tokens keeps the GPU busy while its kernels are launched, and is not captured."""

Prepare = Callable[[], tuple[Pack, Sequence[Window]]]


class FlowStep:
    """A prepared pass. The first call runs it, the second captures it where it is small, the rest replay."""

    def __init__(self, model: BagelModel, inputs: Pack, windows: Sequence[Window]) -> None:
        self.model = model
        self.inputs = replace(inputs.to(model.device), times=torch.empty_like(inputs.times, device=model.device))
        self.attention = FastAttention(windows, inputs.layout.num_und, model.device)
        # Nobody reads the markers behind the last layer's attention.
        nothing = torch.empty(0, dtype=torch.int64, device=model.device)
        self._read = Read(nothing, None) if model.decoder.through is one_by_one else None
        self._calls = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._out: Tensor | None = None

    def __call__(self, latents: Sequence[Tensor], times: Sequence[float], pool: Any) -> Tensor:
        """latents: float32 [., Z] of each image, on the GPU; -> the residual stream of all of them [G, D]. pool:
        memory that a capture may share with other graphs, which never run at the same time."""
        assert self.inputs.latents is not None
        torch.cat(list(latents), out=self.inputs.latents)
        self.inputs.times.copy_(torch.tensor(times))
        self._calls += 1
        small = len(self.inputs.latents) <= MOST_CAPTURED_TOKENS and self.model.capturable
        if not small or self._calls == 1:
            return self._run()
        if self._graph is None:
            self._graph = torch.cuda.CUDAGraph()
            torch.cuda.synchronize()
            with torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"):
                self._out = self._run()
        self._graph.replay()
        assert self._out is not None
        return self._out.clone()

    @property
    def pool(self) -> Any:
        return self._graph.pool() if self._out is not None and self._graph is not None else None

    def _run(self) -> Tensor:
        return self.model(self.inputs, self.attention, self._read)[1]


class FlowSteps:
    """The steps of drawings under way. One is dropped, and the storage it points to, with any of its contexts."""

    most = 8

    def __init__(self, model: BagelModel) -> None:
        self.model = model
        self._steps: OrderedDict[Hashable, FlowStep] = OrderedDict()

    def __call__(self, reads: Sequence[tuple[Context, LatentPart]], prepare: Prepare) -> Tensor:
        key = tuple((id(context), context.place, part.grid) for context, part in reads)
        step = self._steps.get(key)
        if step is None:
            step = self._steps[key] = FlowStep(self.model, *prepare())
            # Preparing may have moved contexts to storage of their own.
            moved = tuple((id(context), context.place, part.grid) for context, part in reads)
            self._steps[moved] = self._steps.pop(key)
            for context, _ in reads:
                weakref.finalize(context, self._steps.pop, moved, None).atexit = False
            while len(self._steps) > self.most:
                self._steps.popitem(last=False)
        return step([part.latents for _, part in reads], [part.time for _, part in reads], self._pool())

    def _pool(self) -> Any:
        """The memory of a graph that still lives; a pool ends with its last graph."""
        return next((step.pool for step in self._steps.values() if step.pool is not None), None)
