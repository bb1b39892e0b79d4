"""How like another one picture is: PSNR and SSIM as scikit-image computes them, and FLIP, the difference that a viewer
sees flipping between the two (Andersson et al. 2020; NVIDIA's own library). LPIPS is not among them: its networks come
with torchvision and a download."""

from __future__ import annotations

import importlib.util
from typing import NamedTuple

import numpy as np
from PIL import Image

from bagel.errors import InputError

MOST_PSNR = 100.0
"""Of pictures that are equal: a mean of infinities says nothing."""


class Likeness(NamedTuple):
    """psnr: decibels, at most MOST_PSNR; ssim: 1 for equal pictures; flip: 0 for equal ones, at most 1."""

    psnr: float
    ssim: float
    flip: float


def check_installed() -> None:
    """Raises InputError where a library is missing, before pictures are drawn to be compared."""
    for name in ("flip_evaluator", "skimage"):
        if importlib.util.find_spec(name) is None:
            raise InputError(f"comparing pictures needs {name}: pip install 'bagel-mot[quality]'.")


def likeness(wanted: Image.Image, found: Image.Image) -> Likeness:
    """Of two RGB pictures of one size, at least 11 pixels wide and high. Raises InputError where a library is missing,
    or for sizes that differ."""
    check_installed()
    import flip_evaluator
    from skimage import metrics

    if wanted.size != found.size:
        raise InputError(f"pictures of {wanted.size} and {found.size} cannot be compared; draw both in one size.")
    a, b = (np.asarray(picture.convert("RGB")) for picture in (wanted, found))
    mean = float(np.mean((a.astype(np.float64) - b) ** 2))
    psnr = MOST_PSNR if mean == 0 else min(float(10 * np.log10(255.0**2 / mean)), MOST_PSNR)
    ssim = metrics.structural_similarity(  # the constants of the paper (Wang et al. 2004)
        a, b, channel_axis=-1, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    floats = [(picture / 255).astype(np.float32) for picture in (a, b)]
    flip = flip_evaluator.evaluate(floats[0], floats[1], "LDR", applyMagma=False)[1]
    return Likeness(psnr, float(ssim), float(flip))
