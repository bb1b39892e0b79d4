"""Step caches and solvers on flows whose velocity is known: how far each comes from the exact drawing, 50 timesteps
by Euler with guidance, and from the solution of the flow.

    python benchmarks/flow_study.py

The data of a flow are patches of pictures of the generated world, each place a mixture of normal distributions
around the 300 patches seen there; the condition is one of four classes of pictures. So its denoiser is a softmax
over the patches, sharp near the data and smooth near noise as a trained one is, and costs nothing. What it cannot
show is a network's own error; `bagel eval closeness` measures that on a model.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bagel import world
from bagel.infer.image import COND, NO_IMAGE, NO_TEXT, Guidance, schedule
from bagel.infer.reuse import reuse_for
from bagel.infer.solver import SOLVERS
from bagel.options import STEP_CACHES

SIDE, PICTURES, CLASSES, SEEDS = 32, 300, 4, 12
DEVIATION = 0.15
SAME_AS = {COND: COND, NO_TEXT: NO_TEXT, NO_IMAGE: COND}
GUIDANCE = Guidance(4.0, 1.5, (0.4, 1.0), 0.0, "global")


class Flow:
    """Velocity of x [B, places, numbers] at t, for one set of pictures."""

    def __init__(self, patches: Tensor) -> None:
        self.means = patches.transpose(0, 1).contiguous()
        self.squares = self.means.square().sum(-1)

    def __call__(self, x: Tensor, t: float) -> Tensor:
        data = 1 - t
        variance = (data * DEVIATION) ** 2 + t * t
        near = torch.einsum("bpd,pnd->bpn", x, self.means) * data - self.squares * data**2 / 2
        mean = torch.einsum("bpn,pnd->bpd", torch.softmax(near / variance, -1), self.means)
        clean = mean + data * DEVIATION**2 / variance * (x - data * mean)
        return (x - clean) / t


def pictures() -> Tensor:
    """[PICTURES, SIDE, SIDE, 3] in [-1, 1]."""
    found: list[np.ndarray] = []
    for index in range(2 * PICTURES):
        for part in world.make("draw", "colours", 7, index, "train").parts:
            if isinstance(part, world.Picture):
                small = Image.fromarray(part.pixels()).resize((SIDE, SIDE), Image.Resampling.BOX)
                found.append(np.asarray(small))
    return torch.from_numpy(np.stack(found[:PICTURES])).float() / 127.5 - 1


def flows(images: Tensor, patch: int) -> tuple[list[Flow], Flow]:
    """One for each class, and the one of all."""
    across = SIDE // patch
    cut = images.reshape(len(images), across, patch, across, patch, 3).permute(0, 1, 3, 2, 4, 5)
    cut = cut.reshape(len(images), across**2, -1) / images.std()
    colour = images.mean((1, 2))
    kind = (colour[:, 0] > colour[:, 2]).long() + 2 * (colour.mean(1) > colour.mean()).long()
    return [Flow(cut[kind == number]) for number in range(CLASSES)], Flow(cut)


def drawn(
    cond: Flow, plain: Flow, noise: Tensor, timesteps: int, step_cache: str | None = None, solver: str = "euler"
) -> tuple[Tensor, int]:
    """-> the data, and model calls; what `bagel.infer.image.denoise` does, a picture of the batch by itself."""
    reuses = [reuse_for(step_cache, SAME_AS, lambda velocity: velocity) for _ in noise]
    follow = [SOLVERS[solver](GUIDANCE.combine) for _ in noise]
    x, calls = noise, 0
    for t, t_next in pairwise(schedule(timesteps, 3.0).tolist()):
        names = GUIDANCE.branches(t)
        asked = dict.fromkeys(SAME_AS[name] for name in reuses[0].wanted(names))
        computed: Mapping[str, Tensor] = {name: (cond if name == COND else plain)(x, t) for name in asked}
        calls += len(asked)
        slopes = []
        for number, (reuse, one) in enumerate(zip(reuses, follow, strict=True)):
            streams = {name: value[number] for name, value in computed.items()}
            slopes.append(one.slope(t, t_next, reuse.velocities(names, t, streams))[1])
        x = x - torch.stack(slopes) * (t - t_next)
    return x, calls


def psnr(a: Tensor, b: Tensor, scale: float) -> float:
    return float((10 * torch.log10((2 / scale) ** 2 / (a - b).square().flatten(1).mean(1))).mean())


def main() -> None:
    torch.set_num_threads(1)
    images = pictures()
    scale = float(images.std())
    for patch in (4, 8):
        conditional, plain = flows(images, patch)
        shape = SEEDS, (SIDE // patch) ** 2, 3 * patch**2
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(1))

        exact = [drawn(flow, plain, noise, 50) for flow in conditional]
        solution = [drawn(flow, plain, noise, 800) for flow in conditional]
        print(f"patches of {patch} x {patch}:  model calls, PSNR against the exact drawing, against the solution")
        for name, how in MODES.items():
            found = [drawn(flow, plain, noise, **how) for flow in conditional]
            against = [
                sum(psnr(a, b, scale) for (a, _), (b, _) in zip(found, other, strict=True)) / CLASSES
                for other in (exact, solution)
            ]
            print(f"{name:<16}{found[0][1]:>6}{against[0]:>9.1f}{against[1]:>9.1f}")


MODES: dict[str, dict[str, Any]] = {
    **{name: {"timesteps": 50, "step_cache": name} for name in STEP_CACHES},
    **{f"{solver}, {n}": {"timesteps": n, "solver": solver} for n in (13, 17, 21, 25, 33, 50) for solver in SOLVERS},
}

if __name__ == "__main__":
    main()
