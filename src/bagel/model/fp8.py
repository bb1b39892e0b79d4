"""Linear layers whose weights are kept in fp8 (e4m3), a scale an output channel. Where there are many rows
and the GPU can, activations are quantised too, a scale a row, and the product runs on the fp8 matrix units;
a few rows (markers, text being written) meet the weights in their own dtype.

Letters: T rows, N outputs, K inputs.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from bagel.model.packed import by_slices, scaled

LARGEST = 448.0


class Fp8Weight(NamedTuple):
    """values e4m3 [N, K] times scale float32 [N]."""

    values: Tensor
    scale: Tensor

    def __len__(self) -> int:
        return len(self.values)

    def wide(self, dtype: torch.dtype) -> Tensor:
        """The weight as it is meant, [N, K]."""
        return scaled(self.values, self.scale, dtype)


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
    scale = weight.abs().amax(dim=1).float().clamp_min(1e-12) / LARGEST
    values = torch.empty(weight.shape, dtype=torch.float8_e4m3fn, device=weight.device)

    def narrow(rows: slice) -> None:
        values[rows] = (weight[rows].float() / scale[rows, None]).to(torch.float8_e4m3fn)

    return Fp8Weight(by_slices(values, narrow), scale)


def can_multiply(device: torch.device) -> bool:
    """Whether the GPU multiplies fp8 (compute capability 8.9 and above)."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 9)
