"""What the autoencoder is told, and how well it does.

Letters: B pictures, C channels, H W pixels, h w latent grid.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Errors(NamedTuple):
    """Scalars: mean absolute and mean squared error of pixels in [-1, 1]; absolute error of their differences, over
    scales; the posterior's distance from N(0, 1) in nats a number."""

    pixels: Tensor
    squares: Tensor
    edges: Tensor
    kl: Tensor


def errors(made: Tensor, true: Tensor, moments: Tensor) -> Errors:
    """made, true: [B, 3, H, W]; moments: mean and log-variance along channels [B, 2 C, h, w]."""
    mean, log_variance = moments.float().chunk(2, dim=1)
    kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance)
    made, true = made.float(), true.float()
    delta = made - true
    return Errors(delta.abs().mean(), (delta**2).mean(), edge_error(made, true), kl.mean())


def edge_error(made: Tensor, true: Tensor, scales: int = 3) -> Tensor:
    """Mean absolute error of the differences between neighbours, at full size and halved again and again: a
    blurred or shifted edge costs much though few pixels are wrong."""
    total = torch.zeros((), device=made.device)
    delta = made - true
    for scale in range(scales):
        if scale:
            delta = F.avg_pool2d(delta, 2)
        total = total + (delta[..., 1:] - delta[..., :-1]).abs().mean()
        total = total + (delta[..., 1:, :] - delta[..., :-1, :]).abs().mean()
    return total / scales


def psnr(made: Tensor, true: Tensor) -> float:
    """Decibels over all values in [-1, 1]."""
    squared = ((made.float().clamp(-1, 1) - true.float()) ** 2).mean()
    return float(10 * torch.log10(4 / squared))
