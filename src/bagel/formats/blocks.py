"""Quantised blocks of GGUF, decoded (layouts: ggml-common.h and ggml-quants.c of the ggml project).

A block holds 32 or 256 numbers. `d` and `m` are float16; a number is d x code, d x code + m, or in the K-kinds
d x scale x code - m x minimum with a scale for 16 or 32 numbers. A decoder takes uint8 [B, bytes] on any device and
gives float32 [B, numbers].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

_LEVELS = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
"""Of IQ4: the codes' values, in 1/127 of the largest."""


class Kind(NamedTuple):
    """How numbers are stored: so many in a block of so many bytes. gives: the decoded numbers, as safetensors
    spells them."""

    name: str
    numbers: int
    bytes: int
    gives: str
    decode: Callable[[Tensor], Tensor]


def _half(blocks: Tensor, at: int) -> Tensor:
    """A float16 of each block [B, 1]."""
    return blocks[:, at : at + 2].contiguous().view(torch.float16).float()


def _nibbles(codes: Tensor) -> Tensor:
    """[B, n, w] -> [B, n, 2, w]: the lower halves of w bytes, then the upper ones."""
    return torch.stack((codes & 15, codes >> 4), dim=2)


def _bits(codes: Tensor, shifts: tuple[int, ...], mask: int) -> Tensor:
    """[B, n, w] -> [B, n, len(shifts), w]."""
    return torch.stack([codes >> shift & mask for shift in shifts], dim=2)


def _q4(blocks: Tensor, codes_at: int) -> Tensor:
    return _nibbles(blocks[:, None, codes_at:]).flatten(1)


def _q5(blocks: Tensor, codes_at: int) -> Tensor:
    """A fifth bit of each number in the four bytes before the codes."""
    bits = torch.stack([blocks[:, codes_at - 4 : codes_at] >> bit & 1 for bit in range(8)], dim=2).flatten(1)
    return _q4(blocks, codes_at) | bits << 4


def _q4_0(blocks: Tensor) -> Tensor:
    return _half(blocks, 0) * (_q4(blocks, 2).float() - 8)


def _q4_1(blocks: Tensor) -> Tensor:
    return _half(blocks, 0) * _q4(blocks, 4).float() + _half(blocks, 2)


def _q5_0(blocks: Tensor) -> Tensor:
    return _half(blocks, 0) * (_q5(blocks, 6).float() - 16)


def _q5_1(blocks: Tensor) -> Tensor:
    return _half(blocks, 0) * _q5(blocks, 8).float() + _half(blocks, 2)


def _q8_0(blocks: Tensor) -> Tensor:
    return _half(blocks, 0) * blocks[:, 2:].view(torch.int8).float()


def _scaled(codes: Tensor, scale: Tensor, minimum: Tensor | None = None) -> Tensor:
    """codes [B, 256], a scale and a minimum for each of so many equal runs [B, runs]."""
    runs = codes.flatten(1).float().view(len(codes), scale.shape[1], -1) * scale[..., None]
    return (runs if minimum is None else runs - minimum[..., None]).flatten(1)


def _q2_k(blocks: Tensor) -> Tensor:
    scales, codes = blocks[:, :16], _bits(blocks[:, 16:80].view(-1, 2, 32), (0, 2, 4, 6), 3)
    d, m = _half(blocks, 80), _half(blocks, 82)
    return _scaled(codes, d * (scales & 15).float(), m * (scales >> 4).float())


def _q3_k(blocks: Tensor) -> Tensor:
    low = _bits(blocks[:, 32:96].view(-1, 2, 32), (0, 2, 4, 6), 3).view(-1, 8, 32)
    high = torch.stack([blocks[:, :32] >> bit & 1 for bit in range(8)], dim=1)
    packed = blocks[:, 96:108]
    lower = torch.cat((packed[:, :8] & 15, packed[:, :8] >> 4), dim=1)
    upper = torch.cat([packed[:, 8:] >> shift & 3 for shift in (0, 2, 4, 6)], dim=1)
    scales = (lower | upper << 4).float() - 32
    return _scaled((low | high << 2).float() - 4, _half(blocks, 108) * scales)


def _scales_and_minima(packed: Tensor) -> tuple[Tensor, Tensor]:
    """Twelve bytes -> eight scales and eight minima of 6 bits: those of the first four in whole bytes, the rest in
    halves, with their upper bits in the first eight bytes."""
    first, second, third = packed.split(4, dim=1)
    scales = torch.cat((first & 63, third & 15 | first >> 6 << 4), dim=1)
    minima = torch.cat((second & 63, third >> 4 | second >> 6 << 4), dim=1)
    return scales.float(), minima.float()


def _q4_k(blocks: Tensor) -> Tensor:
    scales, minima = _scales_and_minima(blocks[:, 4:16])
    codes = _nibbles(blocks[:, 16:].view(-1, 4, 32))
    return _scaled(codes, _half(blocks, 0) * scales, _half(blocks, 2) * minima)


def _q5_k(blocks: Tensor) -> Tensor:
    scales, minima = _scales_and_minima(blocks[:, 4:16])
    high = torch.stack([blocks[:, 16:48] >> bit & 1 for bit in range(8)], dim=1)
    codes = _nibbles(blocks[:, 48:].view(-1, 4, 32)).view(-1, 8, 32) | high << 4
    return _scaled(codes, _half(blocks, 0) * scales, _half(blocks, 2) * minima)


def _q6_k(blocks: Tensor) -> Tensor:
    low = _nibbles(blocks[:, :128].view(-1, 2, 64)).view(-1, 8, 32)
    high = _bits(blocks[:, 128:192].view(-1, 2, 32), (0, 2, 4, 6), 3).view(-1, 8, 32)
    scales = blocks[:, 192:208].view(torch.int8).float()
    return _scaled((low | high << 4).float() - 32, _half(blocks, 208) * scales)


def _levels(codes: Tensor) -> Tensor:
    return torch.tensor(_LEVELS, dtype=torch.float32, device=codes.device)[codes.int()]


def _iq4_nl(blocks: Tensor) -> Tensor:
    return _half(blocks, 0) * _levels(_q4(blocks, 2))


def _iq4_xs(blocks: Tensor) -> Tensor:
    upper = torch.stack([blocks[:, 2:4] >> shift & 3 for shift in (0, 2, 4, 6)], dim=2).flatten(1)
    lower = torch.stack((blocks[:, 4:8] & 15, blocks[:, 4:8] >> 4), dim=2).flatten(1)
    scales = (lower | upper << 4).float() - 32
    return _scaled(_levels(_nibbles(blocks[:, 8:].view(-1, 8, 16))), _half(blocks, 0) * scales)


def _plain(dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    return lambda blocks: blocks.view(dtype)


KINDS = {
    0: Kind("F32", 1, 4, "F32", _plain(torch.float32)),
    1: Kind("F16", 1, 2, "F16", _plain(torch.float16)),
    30: Kind("BF16", 1, 2, "BF16", _plain(torch.bfloat16)),
    28: Kind("F64", 1, 8, "F64", _plain(torch.float64)),
    8: Kind("Q8_0", 32, 34, "F32", _q8_0),
    2: Kind("Q4_0", 32, 18, "F32", _q4_0),
    3: Kind("Q4_1", 32, 20, "F32", _q4_1),
    6: Kind("Q5_0", 32, 22, "F32", _q5_0),
    7: Kind("Q5_1", 32, 24, "F32", _q5_1),
    10: Kind("Q2_K", 256, 84, "F32", _q2_k),
    11: Kind("Q3_K", 256, 110, "F32", _q3_k),
    12: Kind("Q4_K", 256, 144, "F32", _q4_k),
    13: Kind("Q5_K", 256, 176, "F32", _q5_k),
    14: Kind("Q6_K", 256, 210, "F32", _q6_k),
    20: Kind("IQ4_NL", 32, 18, "F32", _iq4_nl),
    23: Kind("IQ4_XS", 256, 136, "F32", _iq4_xs),
}
"""What is read, by the number that GGUF gives it."""

NAMES = {
    9: "Q8_1", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 21: "IQ3_S", 22: "IQ2_S",
    24: "I8", 25: "I16", 26: "I32", 27: "I64", 29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4",
}  # fmt: skip
"""What is not, to name it."""
