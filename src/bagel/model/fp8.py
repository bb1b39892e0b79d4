"""Linear layers whose weights are kept in fp8 (e4m3), a scale an output channel. Where there are many rows
and the GPU can, activations are quantised too, a scale a row, and the product runs on the fp8 matrix units;
a few rows (markers, text being written) meet the weights in their own dtype.

Letters: T rows, N outputs, K inputs.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

LARGEST = 448.0


class Fp8Weight(NamedTuple):
    """values e4m3 [N, K] times scale float32 [N]."""

    values: Tensor
    scale: Tensor

    def __len__(self) -> int:
        return len(self.values)

    def wide(self, dtype: torch.dtype) -> Tensor:
        """The weight as it is meant, [N, K]."""
        return (self.values.to(torch.float32) * self.scale[:, None]).to(dtype)


class Fp8Linear(nn.Module):
    """x W^T + bias with an Fp8Weight, made from a Linear."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = quantise(linear.weight.detach())
        self.register_buffer("values", weight.values)
        self.register_buffer("scale", weight.scale)
        self.bias = linear.bias
        self.in_features, self.out_features = linear.in_features, linear.out_features

    @property
    def weight(self) -> Fp8Weight:
        return Fp8Weight(self.values, self.scale)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        from bagel.model.kernels import linear

        return linear(x, self.weight, self.bias)


def quantise(weight: Tensor) -> Fp8Weight:
    scale = weight.float().abs().amax(dim=1).clamp_min(1e-12) / LARGEST
    return Fp8Weight((weight.float() / scale[:, None]).to(torch.float8_e4m3fn), scale)


def can_multiply(device: torch.device) -> bool:
    """Whether the GPU multiplies fp8 (compute capability 8.9 and above)."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 9)
