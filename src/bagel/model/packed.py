"""Weights in fewer bits, and how they are laid out.

    Int8Weight  values int8 [N, K], scale float32 [N]: w = values x scale, a scale an output channel
    Nf4Weight   codes uint8 [N, K' / 2], scale float16 [N, K' / 64]: w = LEVELS[code] x scale, a scale for every
                64 inputs; two codes a byte, the even input in the lower half. K' is K, filled up with zeros to a
                multiple of 64; 4.25 bits a weight

Both are meant for any device: a product widens the weight to the numbers of its input, a slice of rows at a
time, and multiplies as usual. On GPUs `bagel.model.triton_int8` and `triton_nf4` do better. LEVELS are the 16
quantiles of NF4 (QLoRA, appendix E).

Letters: N outputs, K inputs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

GROUP = 64
LEVELS = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
    -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
_SLICE = 2**24
"""Weights that are widened at a time: what is needed besides the result stays below 128 MiB."""


class Int8Weight(NamedTuple):
    values: Tensor
    scale: Tensor

    def __len__(self) -> int:
        return len(self.values)

    def wide(self, dtype: torch.dtype) -> Tensor:
        """The weight as it is meant, [N, K]."""
        return scaled(self.values, self.scale, dtype)


class Nf4Weight(NamedTuple):
    codes: Tensor
    scale: Tensor
    inputs: int

    def __len__(self) -> int:
        return len(self.codes)

    def wide(self, dtype: torch.dtype) -> Tensor:
        """The weight as it is meant, [N, K]."""
        pairs = _pairs(dtype, self.codes.device)
        out = torch.empty(len(self.codes), 2 * self.codes.shape[1], dtype=dtype, device=self.codes.device)

        def widen(rows: slice) -> None:
            levels = pairs.index_select(0, self.codes[rows].flatten().int())
            scale = self.scale[rows].to(dtype).flatten()[:, None]
            torch.mul(levels.view(-1, GROUP), scale, out=out[rows].view(-1, GROUP))

        by_slices(out, widen)
        return out if out.shape[1] == self.inputs else out[:, : self.inputs].contiguous()


def quantise_int8(weight: Tensor) -> Int8Weight:
    scale = weight.abs().amax(dim=1).float().clamp_min(1e-12) / 127
    values = torch.empty(weight.shape, dtype=torch.int8, device=weight.device)

    def narrow(rows: slice) -> None:
        values[rows] = (weight[rows].float() / scale[rows, None]).round_().to(torch.int8)

    return Int8Weight(by_slices(values, narrow), scale)


def quantise_nf4(weight: Tensor) -> Nf4Weight:
    outputs, inputs = weight.shape
    groups = -(-inputs // GROUP)
    codes = torch.empty(outputs, groups * GROUP // 2, dtype=torch.uint8, device=weight.device)
    scale = torch.empty(outputs, groups, dtype=torch.float16, device=weight.device)
    levels = torch.tensor(LEVELS, device=weight.device)
    borders = (levels[1:] + levels[:-1]) / 2

    def narrow(rows: slice) -> None:
        part = weight[rows].float()
        grouped = torch.nn.functional.pad(part, (0, groups * GROUP - inputs)).view(len(part), groups, GROUP)
        scale[rows] = grouped.abs().amax(dim=2).clamp(2.0**-24, 65504.0)  # what float16 holds
        code = torch.bucketize(grouped / scale[rows].float()[..., None], borders, out_int32=True).to(torch.uint8)
        even, odd = code.flatten(1).view(len(part), -1, 2).unbind(2)
        codes[rows] = even | odd << 4

    by_slices(codes, narrow, width=groups * GROUP)
    return Nf4Weight(codes, scale, inputs)


def multiplies_int8(device: torch.device) -> bool:
    """Whether the GPU has int8 matrix units that our kernel is written for (compute capability 8.0 and above)."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def scaled(values: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """values [N, K] times scale float32 [N], in a wider dtype."""
    out = torch.empty(values.shape, dtype=dtype, device=values.device)

    def widen(rows: slice) -> None:
        torch.mul(values[rows].float(), scale[rows, None], out=out[rows])

    return by_slices(out, widen)


@functools.lru_cache(maxsize=16)
def _pairs(dtype: torch.dtype, device: torch.device) -> Tensor:
    """The two levels of every byte, [256, 2]."""
    byte = torch.arange(256)
    return torch.tensor(LEVELS, dtype=dtype)[torch.stack((byte & 15, byte >> 4), dim=1)].to(device)


def by_slices(out: Tensor, work: Callable[[slice], None], width: int | None = None) -> Tensor:
    """Calls `work` for slices of out's rows, few enough at a time."""
    step = max(1, _SLICE // (width or out.shape[1]))
    for begin in range(0, len(out), step):
        work(slice(begin, begin + step))
    return out
