"""Products with int8 weights on the CPU. The integers are exact in 16 bits, so that no weight is scaled: the result is,
once a row. A few rows in bf16 read the weight as it is (PyTorch's own kernel); more meet it widened, a slice of its
rows at a time. The same three functions as `triton_int8`, whose activations are int8 and ours are not.

Letters: T rows, N outputs, K inputs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bagel.model.packed import Int8Weight, by_slices

_FEW_ROWS = 4
"""Above, widening the weight costs less than PyTorch's kernel for a few rows."""


def quantise(x: Tensor, norm: tuple[Tensor, float] | None = None) -> Tensor:
    """x [T, K] as it is, RMS-normalised where `norm` (weight, epsilon) is given."""
    return x if norm is None else F.rms_norm(x.float(), norm[0].shape, norm[0].float(), norm[1]).to(x.dtype)


def swiglu(gate_up: Tensor) -> Tensor:
    """[T, 2 K] -> silu(gate) * up, [T, K]."""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate) * up


def product(
    x: Tensor, weight: Int8Weight, dtype: torch.dtype, bias: Tensor | None = None, add: Tensor | None = None
) -> Tensor:
    """x [T, K] W^T + bias + add -> [T, N] in `dtype`."""
    if len(x) <= _FEW_ROWS and x.dtype is torch.bfloat16:
        out = torch._weight_int8pack_mm(x.contiguous(), weight.values, torch.ones_like(weight.scale, dtype=x.dtype))
    else:
        out = torch.empty(len(weight), len(x), dtype=x.dtype)  # by outputs, so that a slice of them is whole

        def multiply(rows: slice) -> None:
            torch.mm(weight.values[rows].to(x.dtype), x.t(), out=out[rows])

        out = by_slices(out, multiply, width=weight.values.shape[1]).t()
    scaled = out.float() * weight.scale
    if bias is not None:
        scaled += bias
    return (scaled if add is None else scaled + add).to(dtype)
