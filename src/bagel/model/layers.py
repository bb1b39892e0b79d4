"""Small parts shared by the decoder and the two image encoders.

Letters: T tokens, N heads, H head width, D model width.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bagel.model import kernels
from bagel.model.fp8 import Fp8Linear
from bagel.model.quantise import PackedLinear

ACTIVATION: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "gelu": F.gelu,
    "relu": F.relu,
    "silu": F.silu,
}


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last axis, computed in float32, returned in x's dtype."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return kernels.rms_norm(x, self.weight, self.eps)


class Rotary(nn.Module):
    """Angles of the rotary embedding (RoFormer), halves layout as in Qwen2: [T] positions to cos and sin,
    each float32 [T, 1, H], ready to broadcast over heads."""

    def __init__(self, head_dim: int, theta: float) -> None:
        super().__init__()
        self.head_dim, self.theta = head_dim, theta

    def forward(self, position: Tensor) -> tuple[Tensor, Tensor]:
        angle = position.float()[:, None] * self.frequency(position.device)
        angle = torch.cat((angle, angle), dim=-1)[:, None]
        return angle.cos(), angle.sin()

    def frequency(self, device: torch.device) -> Tensor:
        """What each pair turns by in a position, float32 [H / 2]."""
        pair = torch.arange(0, self.head_dim, 2, device=device).float() / self.head_dim
        return 1.0 / self.theta**pair


class SwiGLU(nn.Module):
    """down(silu(gate x) * up x). Gate and up are one product: rows [gate; up] of one weight."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate_up = nn.Linear(width, 2 * inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def add_to(self, x: Tensor, norm: RMSNorm, *, add: bool = True) -> Tensor:
        """x + mlp(norm(x)): x [T, D], whose place the sum may take where no gradient is wanted; mlp(norm(x)) alone
        without `add`."""
        if _plain(self.gate_up) and _plain(self.down):
            weights = self.gate_up.weight, self.down.weight
            return kernels.mlp(x, (norm.weight, norm.eps), *weights, add=add, into=add)
        return add_linear(x if add else None, self.down, kernels.swiglu(norm_then(x, norm, self.gate_up)))


def norm_then(x: Tensor, norm: RMSNorm, linear: nn.Linear) -> Tensor:
    """linear(norm(x))."""
    if _plain(linear):
        return kernels.norm_linear(x, (norm.weight, norm.eps), linear.weight, linear.bias)
    return linear(norm(x))


def add_linear(x: Tensor | None, linear: nn.Linear, y: Tensor) -> Tensor:
    """x + linear(y), or linear(y) without an x. The sum may take the place of x where no gradient is wanted."""
    if _plain(linear):
        return kernels.linear(y, linear.weight, linear.bias, add=x, into=True)
    return linear(y) if x is None else x + linear(y)


def _plain(linear: nn.Linear) -> bool:
    """Whether a layer is plain matrix arithmetic now, which may be joined with what is around it: not an
    adapter, and not in training, where autocast and sharding act on the layer's own call."""
    return type(linear) in (nn.Linear, Fp8Linear, PackedLinear) and not torch.is_grad_enabled()


class MLP(nn.Module):
    """Two Linears with biases and an activation between."""

    def __init__(self, width: int, inner: int, out: int, activation: str) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, inner)
        self.fc2 = nn.Linear(inner, out)
        self.activation = ACTIVATION[activation]

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.activation(self.fc1(x)))


class TimeEmbedding(nn.Module):
    """Flow time t in [0, 1], float32 [T], to [T, D]: 256 cosines and sines of t as it is (no factor of
    1000; upstream `modeling/bagel/modeling_utils.py`), then Linear, SiLU, Linear."""

    num_frequencies = 256

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = MLP(self.num_frequencies, width, width, "silu")

    def forward(self, t: Tensor) -> Tensor:
        half = self.num_frequencies // 2
        power = torch.arange(half, device=t.device, dtype=torch.float32) / half
        angle = t.float()[:, None] * torch.exp(-power * math.log(10000.0))
        return self.mlp(torch.cat((angle.cos(), angle.sin()), dim=-1).to(self.mlp.fc1.weight.dtype))


@functools.lru_cache(maxsize=16)
def sine_half_table(side: int, width: int, device: torch.device) -> Tensor:
    """One axis of the fixed 2-D position table (MAE's): float32 [side, width / 2], each row [sin, cos] of
    place x 10000^(-i / (width / 4)). A place's full row is [its column's half, its row's half]."""
    quarter = width // 4
    omega = 10000.0 ** -(torch.arange(quarter, dtype=torch.float64) / quarter)
    angle = torch.arange(side, dtype=torch.float64)[:, None] * omega
    return torch.cat((angle.sin(), angle.cos()), dim=-1).float().to(device)
