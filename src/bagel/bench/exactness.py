"""How far the velocity of one update is from float32's, on the same weights: the fast path's, and the plain one's,
which is PyTorch's operations one by one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bagel.bench.ceilings import FP8, PLAIN
from bagel.bench.jobs import EDIT, PROMPT, Sizes, noise_picture
from bagel.bench.subject import Source, forget
from bagel.infer.conversation import Runtime
from bagel.infer.image import noise_for
from bagel.infer.pipeline import Bagel

SEED = 1
ASKED = {"as asked": {}, "without guidance": {"cfg_text_scale": 1.0, "cfg_image_scale": 1.0}}
"""With the guidance of the official app, and the network's own velocity."""


def measure(source: Source) -> dict[str, Any]:
    """-> {"errors": {job: {path: relative error in the norm}}}; paths are `fast` and `plain` in the model's own
    numbers, and `fp8`. Loads the model; the weights in float32 take twice the room of bfloat16."""
    bagel, _ = source.load(PLAIN)
    engine, found = bagel.runtime.engine, {}
    for path, fast in (("fast", source.fast), ("plain", False)):
        engine.fast = fast
        found[path] = velocities(bagel)
    made = bagel.runtime.checkpoint
    engine.forget()
    del bagel, engine
    exact = _of_float32(made)
    del made
    forget(source.device)
    bagel, _ = source.load(FP8)
    found["fp8"] = velocities(bagel)
    names = exact.keys()
    return {
        "errors": {
            name: {path: float(f"{distance(of[name], exact[name]):.4g}") for path, of in found.items()}
            for name in names
        }
    }


def velocities(bagel: Bagel) -> dict[str, Tensor]:
    """Of the first update of a drawing and an edit, float64. With two timesteps a drawing is its noise less its
    velocity."""
    found = {}
    for name, options in ASKED.items():
        asked: dict[str, Any] = {"seed": SEED, "num_timesteps": 2, **options}
        for job, result in (
            ("draw", bagel.draw(PROMPT, **asked)),
            ("edit", bagel.edit(noise_picture(Sizes.of(bagel, 2).picture), EDIT, **asked)),
        ):
            height, width = (side // bagel.config.latent_stride for side in reversed(result.image.size))
            noise = noise_for((height, width), bagel.config.latent_width, SEED)
            found[f"{job}, {name}"] = noise.double() - result.latent.double()
    return found


def _of_float32(made: Any) -> dict[str, Tensor]:
    """On the same weights, with float32 products and sums."""
    made.model.float()
    made.vae.float()
    bagel = Bagel(Runtime.of(made))
    bagel.runtime.engine.fast = False
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        return velocities(bagel)
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def distance(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())
