"""Products of many rows in float32 on the CPU by oneDNN, which PyTorch takes for 16-bit numbers and convolutions alone.
Its own library, MKL, leaves half of an AMD processor's vectors unused: with AVX-512, 64 rows take half the time here.

Letters: T tokens, K inputs, N outputs.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

FEWEST_ROWS = 16
"""For fewer rows the library's call costs more than it saves."""


def fits(x: Tensor, weight: Tensor) -> bool:
    """x [T, K], weight [N, K]: contiguous, in float32, in host memory."""
    return (
        x.ndim == 2
        and len(x) >= FEWEST_ROWS
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.is_contiguous()
        and weight.is_contiguous()
        and not torch.is_autocast_enabled("cpu")
        and _available()
    )


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + bias: [T, N]."""
    count, padding = len(x), -len(x) % _grain(len(x))
    if padding:
        x = F.pad(x, (0, 0, 0, padding))
    if bias is not None:  # the library reads it as N numbers side by side, whatever it is
        bias = bias.expand(len(weight)).contiguous()
    out: Tensor = torch.ops.mkldnn._linear_pointwise.default(x, weight, bias, "none", [], "")
    return out[:count] if padding else out


def _grain(rows: int) -> int:
    """What a number of rows is filled up to a multiple of. The library compiles its code anew for every number (a third
    of a millisecond, half a MiB that it keeps), and in a server each would come: so there are four to an octave."""
    return max(8, 1 << (rows.bit_length() - 3))


@functools.cache
def _available() -> bool:
    built = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return built and torch.backends.cpu.get_cpu_capability() == "AVX512"
