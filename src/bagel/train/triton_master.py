"""One update of `bagel.train.master.MasterAdamW` in Triton: every number is read once and written once, and nothing
is compiled but this one kernel, whatever the shapes."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 2048


@triton.jit
def _update(  # type: ignore[no-untyped-def]
    weight_ptr, grad_ptr, low_ptr, mean_ptr, square_ptr, numbers_ptr, count, beta1, beta2, eps, decay,
    BLOCK: tl.constexpr,
):  # fmt: skip
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < count
    lr, correction1, correction2 = tl.load(numbers_ptr), tl.load(numbers_ptr + 1), tl.load(numbers_ptr + 2)
    scale, skip = tl.load(numbers_ptr + 3), tl.load(numbers_ptr + 4)
    if skip == 0.0:
        g = tl.load(grad_ptr + place, mask=inside, other=0.0).to(tl.float32) / scale
        m = tl.load(mean_ptr + place, mask=inside, other=0.0).to(tl.float32)
        v = tl.load(square_ptr + place, mask=inside, other=0.0).to(tl.float32)
        m += (1 - beta1) * (g - m)
        v = v * beta2 + g * g * (1 - beta2)
        high = tl.load(weight_ptr + place, mask=inside, other=0).to(tl.int32)
        low = tl.load(low_ptr + place, mask=inside, other=0).to(tl.int32)
        value = ((high << 16) + low).to(tl.float32, bitcast=True)
        value -= lr * decay * value
        value -= lr / correction1 * m / (tl.sqrt(v) / correction2 + eps)
        bits = value.to(tl.int32, bitcast=True)
        rounded = (bits + 0x8000) >> 16
        tl.store(weight_ptr + place, rounded.to(tl.int16), mask=inside)
        tl.store(low_ptr + place, (bits - (rounded << 16)).to(tl.int16), mask=inside)
        tl.store(mean_ptr + place, m.to(mean_ptr.dtype.element_ty), mask=inside)
        tl.store(square_ptr + place, v.to(square_ptr.dtype.element_ty), mask=inside)


def update(columns: list[list[Tensor]], numbers: Tensor, beta1: float, beta2: float, eps: float, decay: float) -> None:
    """columns: weight (bf16), gradient, low bits (int16) and both moments of each parameter, alike in shape and
    order of memory; numbers: float32 [5] (see `MasterAdamW`). All but gradients change in place."""
    for weight, grad, low, mean, square in columns:
        if not weight.numel():  # a rank's empty shard
            continue
        if grad.stride() != weight.stride():
            grad = torch.empty_like(weight, dtype=grad.dtype).copy_(grad)
        bits = weight.view(torch.int16)
        _update[(triton.cdiv(weight.numel(), _BLOCK),)](
            bits, grad, low, mean, square, numbers, weight.numel(), beta1, beta2, eps, decay, BLOCK=_BLOCK
        )
