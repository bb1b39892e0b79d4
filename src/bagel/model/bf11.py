"""bf16 weights in 11 bits, all but exact: a sign, 7 bits of mantissa as bf16 has them, and 3 bits of exponent below the
largest of the row, where bf16 spends 8.

    Bf11Weight  low uint8 [N, K'], high uint8 [N, 3 K' / 8], scale float32 [N]. K' is K, filled up to a multiple of 8.
                low: the sign above the mantissa m. high: the exponents' codes c, their lower two bits four to a byte
                (input 4 j + i at bit 2 i), then their third bits eight to a byte. The size of a weight is
                m x scale for c = 0, else (128 + m) 2^(c - 1) x scale; scale is a power of two

A number within 2^-6 of its row's largest is kept bit for bit; a smaller one is rounded to the same fixed steps, by at
most 2^-14 of the largest. Entropy coding of the exponents (DFloat11) is exact and as small, but its decoder has to
follow a stream of bits; here every number lies at a place of its own.

Letters: N outputs, K inputs.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor

from bagel.model.packed import by_slices

_STEPS = 13
"""Bits of a size that the eight codes span behind the first."""
_LEAST = -100
"""Of a row's exponent: no number of a weight is smaller, and a row of zeros has to have one."""


class Bf11Weight(NamedTuple):
    low: Tensor
    high: Tensor
    scale: Tensor
    inputs: int

    def __len__(self) -> int:
        return len(self.low)

    def wide(self, dtype: torch.dtype) -> Tensor:
        """The weight as it is meant, [N, K]."""
        sizes, filled = _sizes(self.low.device), self.low.shape[1]
        out = torch.empty(self.low.shape, dtype=dtype, device=self.low.device)

        def widen(rows: slice) -> None:
            two = _unpacked(self.high[rows, : filled // 4], 4, 2)
            third = _unpacked(self.high[rows, filled // 4 :], 8, 1)
            index = self.low[rows].int() | (two | third << 2).int() << 8
            out[rows] = sizes[index] * self.scale[rows, None]

        by_slices(out, widen)
        return out if filled == self.inputs else out[:, : self.inputs].contiguous()


def quantise_bf11(weight: Tensor) -> Bf11Weight:
    outputs, inputs = weight.shape
    filled = -(-inputs // 8) * 8
    low = torch.empty(outputs, filled, dtype=torch.uint8, device=weight.device)
    high = torch.empty(outputs, 3 * filled // 8, dtype=torch.uint8, device=weight.device)
    scale = torch.empty(outputs, dtype=torch.float32, device=weight.device)

    def narrow(rows: slice) -> None:
        part = torch.nn.functional.pad(weight[rows].to(torch.bfloat16).float(), (0, filled - inputs))
        exponent = torch.frexp(part.abs().amax(dim=1)).exponent.clamp_min(_LEAST) - 1 - _STEPS
        scale[rows] = torch.ldexp(torch.ones_like(exponent, dtype=torch.float32), exponent)
        size = (part.abs() / scale[rows, None]).round()
        code = (torch.frexp(size).exponent - 7).clamp_min(0)
        mantissa = size.int() >> (code - 1).clamp_min(0) & 127
        low[rows] = (mantissa | (part < 0).int() << 7).to(torch.uint8)
        high[rows] = torch.cat((_packed(code & 3, 4, 2), _packed(code >> 2, 8, 1)), dim=1)

    by_slices(low, narrow)
    return Bf11Weight(low, high, scale, inputs)


def _packed(codes: Tensor, count: int, bits: int) -> Tensor:
    """[n, K] -> bytes [n, K / count], the first code in the lowest bits."""
    shifts = torch.arange(count, device=codes.device) * bits
    return (codes.view(len(codes), -1, count) << shifts).sum(dim=2).to(torch.uint8)


def _unpacked(packed: Tensor, count: int, bits: int) -> Tensor:
    shifts = torch.arange(count, device=packed.device, dtype=torch.uint8) * bits
    return (packed[..., None] >> shifts & 2**bits - 1).flatten(1)


@functools.lru_cache(maxsize=16)
def _sizes(device: torch.device) -> Tensor:
    """What sign, mantissa and code mean, [2048]."""
    index = torch.arange(2048)
    mantissa, code = index & 127, index >> 8
    size = torch.where(code > 0, mantissa + 128 << (code - 1).clamp_min(0), mantissa)
    return torch.where(index & 128 > 0, -size, size).float().to(device)
