"""Tensor parallelism: every rank holds some heads and some of the MLP's inner numbers of every layer, of both
experts, and the sums of what they give are taken over the ranks.

The products stay those of the model, fused and packed as they are: query, key, value, gate and up are cut by
rows, the two products back to the model's width by columns. The ranks' keys and values are those of their heads. One
rank's product carries the residual stream, so that a sum gives the whole. A long pass goes in slices: while one
is summed, the next is computed.

DTensor is not used: its hooks would sit between the joined products, and its plans know neither our packed
weights nor the streams that are one row tensor for each expert.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from bagel.model.bagel import BagelModel
from bagel.model.config import LLMConfig

_ROWS = re.compile(r"decoder\.layers\.\d+\.(und|gen)\.(qkv|mlp\.gate_up)\.(weight|bias|values|codes|scale)")
_COLUMNS = re.compile(r"decoder\.layers\.\d+\.(und|gen)\.(o|mlp\.down)\.(weight|values|codes|scale)")
_LONG, _SLICE = 6144, 4096


@dataclass(frozen=True)
class Cut:
    """Which part of every layer a rank keeps: number `index` of `count`."""

    index: int
    count: int

    def __call__(self, parameter: str, stored: Tensor) -> Tensor:
        """A tensor, or one of those that make up a parameter of ours (see `checkpoint.pieces`) -> the kept part of
        it; the same where nothing is cut. A packed product's scales are cut with its rows, those of groups of
        columns with the columns."""
        if _ROWS.fullmatch(parameter):
            return stored.chunk(self.count)[self.index]
        if _COLUMNS.fullmatch(parameter) and stored.ndim == 2:
            return stored.chunk(self.count, dim=1)[self.index]
        return stored

    def parts(self, parameter: str, parts: Iterable[Tensor], rows: int) -> Iterator[Tensor]:
        """What is kept of a tensor of so many rows that comes some rows at a time."""
        first, last = 0, rows
        if self.axis(parameter) == 0:
            first, last = rows * self.index // self.count, rows * (self.index + 1) // self.count
        row = 0
        for part in parts:
            kept = part[max(first - row, 0) : max(last - row, 0)]
            row += len(part)
            yield self(parameter, kept) if self.axis(parameter) == 1 else kept

    def joined(self, parameter: str, stored: Tensor, llm: LLMConfig) -> Tensor:
        """As the call, of a whole parameter of ours: the parts that were stacked into it are cut each by itself."""
        if not _ROWS.fullmatch(parameter):
            return self(parameter, stored)
        heads = llm.num_attention_heads, llm.num_key_value_heads, llm.num_key_value_heads
        shares = heads if ".qkv." in parameter else (1, 1)
        rows = [len(stored) * share // sum(shares) for share in shares]
        return torch.cat([self(parameter, part) for part in stored.split(rows)])

    def axis(self, parameter: str) -> int | None:
        """Along which a parameter is cut."""
        if _ROWS.fullmatch(parameter):
            return 0
        return 1 if _COLUMNS.fullmatch(parameter) else None

    def config(self, llm: LLMConfig) -> LLMConfig:
        """What a rank keeps: its key and value heads, and inner numbers."""
        return replace(
            llm,
            num_key_value_heads=llm.num_key_value_heads // self.count,
            intermediate_size=llm.intermediate_size // self.count,
        )


class GroupShare:
    """A rank's share of a layer, with the group over which what it gives is summed."""

    def __init__(self, group: Any, adds: bool) -> None:
        self.group, self.adds = group, adds

    def slices(self, rows: int) -> list[slice]:
        if rows <= _LONG:
            return [slice(0, rows)]
        return [slice(begin, begin + _SLICE) for begin in range(0, rows, _SLICE)]

    def sum(self, x: Tensor) -> Callable[[], object]:
        import torch.distributed as dist

        work = dist.all_reduce(x, group=self.group, async_op=True)
        return work.wait


def cut_model(model: BagelModel, cut: Cut) -> None:
    """Makes a model, loaded or still without memory, one rank's: its parameters shrink, its heads are counted
    anew. What is packed already is not cut."""
    llm = model.config.llm
    model.local = cut.config(llm)
    for expert in experts(model):
        expert.heads = tuple(count // cut.count for count in expert.heads)
    for name, owner in list(model.named_modules()):
        for key, value in list(owner._parameters.items()):
            if value is not None and cut.axis(f"{name}.{key}") is not None:
                part = cut.joined(f"{name}.{key}", value.detach(), llm).clone(memory_format=torch.contiguous_format)
                owner._parameters[key] = nn.Parameter(part, requires_grad=False)
        if hasattr(owner, "in_features"):
            _count_features(owner, name, cut)


def _count_features(linear: Any, name: str, cut: Cut) -> None:
    """A plain Linear's, or a packed one's, whose tensors are still to come."""
    axis = cut.axis(f"{name}.weight")
    if axis == 0:
        linear.out_features //= cut.count
    elif axis == 1:
        linear.in_features //= cut.count
        if hasattr(linear, "inputs"):
            linear.inputs = linear.in_features


def join_shares(model: BagelModel, group: Any, cut: Cut) -> None:
    """From now on the layers' results are summed over the group."""
    for expert in experts(model):
        expert.share = GroupShare(group, adds=cut.index == 0)


def experts(model: BagelModel) -> list[Any]:
    """Every expert of every layer once."""
    found = {id(expert): expert for block in model.decoder.layers for expert in (block.und, block.gen)}
    return list(found.values())
