"""States of the 8-bit optimiser in a checkpoint.

A state is a code for each number and a scale for each 256 of them, and no block goes beyond the shard of a rank.
Codes and scales are saved as they are, under the name of their shard (`.codes.0of2`; `.codes` where nothing is
sharded): nothing is dequantised to be saved, and the same number of shards goes on to the bit. Another number takes
the values of the rows it needs and quantises them anew. Shards of less than 4,096 numbers stay float32.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from bagel.train.parallel import local, local_rows

_PARTS = ("codes", "scale", "qmap")
_PIECE = re.compile(r"(?P<state>.+)\.(?:codes|scale|qmap)(?:\.(?P<rank>\d+)of(?P<size>\d+))?")


def flat(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All as tensors that a checkpoint knows: themselves, or the pieces of a quantised state."""
    return {f"{name}{end}": piece for name, value in tensors.items() for end, piece in _pieces(value)}


def _pieces(value: Tensor) -> Iterator[tuple[str, Tensor]]:
    inner = local(value)
    if not hasattr(inner, "__tensor_flatten__"):
        yield "", value
        return
    owner = ""
    if inner is not value:
        mesh = value.device_mesh  # type: ignore[attr-defined]
        axis = mesh.ndim - 1
        owner = f".{mesh.get_local_rank(axis)}of{mesh.size(axis)}"
    for name in inner.__tensor_flatten__()[0]:
        yield f".{name}{owner}", getattr(inner, name)


def state_of(name: str) -> str:
    """The name of the tensor that this one is, or is a piece of."""
    found = _PIECE.fullmatch(name)
    return found["state"] if found else name


@torch.no_grad()
def refill(value: Tensor, name: str, path: Path, stored: Mapping[str, tuple[torch.Size, torch.dtype]]) -> None:
    """Writes into a state of this run what a run with other shards, or without 8 bits, saved of it.

    stored: name -> (shape, dtype) of all tensors in the checkpoint at `path`.
    """
    own, rows = local_rows(value), len(value)
    pieces = [found for other in stored if (found := _PIECE.fullmatch(other)) and found["state"] == name]
    shards = {int(found["rank"] or 0): int(found["size"] or 1) for found in pieces}
    spans = {rank: _span(rows, rank, size) for rank, size in shards.items()}
    needed = {rank: span for rank, span in spans.items() if span.start < own.stop and own.start < span.stop}
    ends = {rank: "" if f"{name}.codes" in stored else f".{rank}of{shards[rank]}" for rank in needed}
    wanted = [f"{name}.{part}{ends[rank]}" for rank in needed for part in _PARTS]
    loaded = _loaded(path, {key: stored[key] for key in ([name] if name in stored else []) + wanted})
    values = torch.zeros(own.stop - own.start, *value.shape[1:])
    if name in loaded:  # what was not quantised
        values.copy_(loaded[name][own])
    for rank, span in needed.items():
        codes, scale, qmap = (loaded[f"{name}.{part}{ends[rank]}"] for part in _PARTS)
        numbers = (qmap[codes.flatten().int()].view(len(scale), -1) * scale[:, None]).view(codes.shape)
        first, last = max(own.start, span.start), min(own.stop, span.stop)
        values[first - own.start : last - own.start] = numbers[first - span.start : last - span.start]
    local(value).copy_(values.to(local(value).device))


def _span(rows: int, rank: int, size: int) -> range:
    """The rows of a shard: equal chunks, the last ones shorter."""
    chunk = -(-rows // size)
    return range(min(rank * chunk, rows), min((rank + 1) * chunk, rows))


def _loaded(path: Path, wanted: Mapping[str, tuple[torch.Size, torch.dtype]]) -> dict[str, Tensor]:
    import torch.distributed.checkpoint as dcp

    tensors = {name: torch.empty(size, dtype=dtype) for name, (size, dtype) in wanted.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        dcp.load(tensors, checkpoint_id=path, no_dist=True)
    return tensors
