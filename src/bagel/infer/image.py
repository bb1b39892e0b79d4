"""Drawing by rectified flow: the schedule of times, guidance, and the loop that follows the velocity.

Letters: G latent tokens of one image, Z numbers in a latent token, D model width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from bagel.devices import generator_for
from bagel.infer.context import Context
from bagel.infer.engine import Engine, Job, Read, Seen
from bagel.infer.reuse import reuse_for
from bagel.infer.solver import SOLVERS
from bagel.pack import LatentPart

COND, NO_TEXT, NO_IMAGE = "cond", "no_text", "no_image"
"""The branches of guidance: all that was read; without the last instruction; texts alone."""


def schedule(num_timesteps: int, shift: float) -> Tensor:
    """`num_timesteps` times from 1 (noise) to 0 (data), float32, for one update fewer; a shift above 1 spends
    more of them near noise."""
    t = torch.linspace(1, 0, num_timesteps, dtype=torch.float32, device="cpu")
    return shift * t / (1 + (shift - 1) * t)


@dataclass(frozen=True)
class Guidance:
    """Classifier-free guidance on two conditions, text and image (upstream `modeling/bagel/bagel.py`,
    `_forward_flow`). The knobs are those of `ImageOptions`."""

    text_scale: float
    image_scale: float
    interval: tuple[float, float]
    renorm_min: float
    renorm_type: str

    def branches(self, t: float) -> tuple[str, ...]:
        """The branches whose velocity is needed at time t. The comparison is in float32, as upstream: 0.4
        is outside an interval that begins at 0.4."""
        low, high, now = (np.float32(x) for x in (*self.interval, t))
        if self.text_scale <= 1 or not low < now <= high:
            return (COND,)
        return (COND, NO_TEXT, NO_IMAGE) if self.image_scale > 1 else (COND, NO_TEXT)

    def combine(self, velocity: Mapping[str, Tensor]) -> Tensor:
        """Velocities [G, Z] of one image by branch -> the guided one."""
        c = velocity[COND]
        if NO_TEXT not in velocity:
            return c
        u, i = velocity[NO_TEXT], velocity.get(NO_IMAGE)
        w = u + self.text_scale * (c - u)
        if self.renorm_type == "text_channel":
            w = self._renormed(w, c)
        if i is not None:
            w = i + self.image_scale * (w - i)
        return w if self.renorm_type == "text_channel" else self._renormed(w, c)

    def _renormed(self, w: Tensor, c: Tensor) -> Tensor:
        """w scaled down to c's norm, over the whole image or per token, by no more than `renorm_min`."""
        axes = None if self.renorm_type == "global" else -1
        norm = [torch.linalg.vector_norm(x, dim=axes, keepdim=True) for x in (c, w)]
        return w * (norm[0] / (norm[1] + 1e-8)).clamp(self.renorm_min, 1.0)


@dataclass(frozen=True)
class ImageStep:
    """An update was made: `update` of `updates`, at time `t`; `latent` float32 [G, Z] holds the picture as it
    would be if the velocity stayed as it is (a preview, not the state)."""

    update: int
    updates: int
    t: float
    latent: Tensor
    grid: tuple[int, int]


def denoise(
    engine: Engine,
    contexts: Mapping[str, Context],
    noise: Tensor,
    grid: tuple[int, int],
    times: Tensor,
    guidance: Guidance,
    step_cache: str | None = None,
    solver: str = "euler",
) -> Job:
    """From noise float32 [G, Z] to latents. Yields an ImageStep an update; returns (latents, model calls).

    Branches whose contexts are equal are computed once: in plain text-to-image NO_IMAGE has read just what
    COND has.
    """
    same_as = {name: _first_equal(name, contexts) for name in contexts}
    reuse, follow = reuse_for(step_cache, same_as, engine.velocity), SOLVERS[solver](guidance.combine)
    x, calls = noise.to(engine.model.device), 0
    steps = list(pairwise(times.tolist()))
    for update, (t, t_next) in enumerate(steps):
        names = guidance.branches(t)
        asked = list(dict.fromkeys(same_as[name] for name in reuse.wanted(names)))
        part = LatentPart(x, grid, t, noised=True)
        answers: list[Seen] = (yield [Read(contexts[name], part, keep=False) for name in asked]) if asked else []
        streams = {name: seen.latents for name, seen in zip(asked, answers, strict=True)}
        calls += len(asked)
        v, slope = follow.slope(t, t_next, reuse.velocities(names, t, streams))
        preview = x - v * t
        x = x - slope * (t - t_next)
        yield ImageStep(update + 1, len(steps), t, preview, grid)
    return x, calls


def _first_equal(name: str, contexts: Mapping[str, Context]) -> str:
    return next(other for other in contexts if contexts[other].history == contexts[name].history)


def noise_for(grid: tuple[int, int], width: int, seed: int) -> Tensor:
    """Normal noise float32 [G, Z], drawn on the CPU by a generator of its own, so that a seed means the same
    picture on every device; the global generator is not touched."""
    shape = grid[0] * grid[1], width
    return torch.randn(shape, generator=generator_for(seed), dtype=torch.float32, device="cpu")
