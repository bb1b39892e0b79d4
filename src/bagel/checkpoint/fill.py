"""Parameters, allocated once, in their final dtype on their final device, and filled from memory-mapped files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from bagel.checkpoint.names import Piece
from bagel.model.bagel import BagelModel
from bagel.model.quantise import is_quantised, quantised, replace_module
from bagel.parallel.shares import Cut
from bagel.tensor_files import Tensors

Place = Callable[[str], torch.device]
"""Where a parameter lies, by its name; the autoencoder's begin with `vae.`."""


def fill(
    module: nn.Module,
    plan: Mapping[str, Piece],
    files: Tensors,
    dtype: torch.dtype,
    where: Place,
    cut: Cut | None = None,
) -> Iterator[tuple[int, str, nn.Module]]:
    """Allocates each parameter and copies its tensors into it; yields the bytes that were read, and the name of
    the module that is whole now, and the module. Keeps no parameter alive. cut: the part of every layer that the
    module holds."""
    sources: dict[str, list[tuple[str, Piece]]] = defaultdict(list)
    for name, piece in plan.items():
        sources[piece.parameter].append((name, piece))
    known = {id(value): name for name, value in module.named_parameters()}
    for owner_name, owner in list(module.named_modules()):
        read = 0
        for key, empty in list(owner._parameters.items()):
            if empty is None or id(empty) not in known:
                continue
            name = known[id(empty)]
            value = torch.empty(empty.shape, dtype=dtype, device=where(name))
            for source, piece in sources[name]:
                read += _copy(files, source, value, piece, cut)
            owner._parameters[key] = nn.Parameter(value, requires_grad=False)
            del value
        yield read, owner_name, owner


def fill_quantising(
    model: BagelModel,
    plan: Mapping[str, Piece],
    files: Tensors,
    dtype: torch.dtype,
    precision: str | None,
    device: torch.device,
    where: Place,
    cut: Cut | None = None,
) -> Iterator[int]:
    """`fill`; what is quantised is filled on `device` and goes to its place packed."""

    def at(name: str) -> torch.device:
        owner = model.get_submodule(name.rpartition(".")[0])
        return device if precision and is_quantised(model, owner, precision) else where(name)

    for read, name, owner in fill(model, plan, files, dtype, at, cut):
        if precision and (packed := quantised(model, owner, precision)) is not None:
            replace_module(model, owner, packed.to(where(f"{name}.weight")))
            owner._parameters.clear()  # the walk still holds the module that was replaced
        yield read


@torch.no_grad()
def _copy(files: Tensors, source: str, parameter: Tensor, piece: Piece, cut: Cut | None) -> int:
    """A stored tensor into its rows of a parameter, a few rows at a time where the file has to be decoded."""
    end, parts = piece.start, files.parts(source, parameter.device)
    if cut is not None and cut.axis(piece.parameter) is not None:
        parts = cut.parts(piece.parameter, parts, files.shape(source)[0])
        end = end // cut.count if cut.axis(piece.parameter) == 0 else end
    for part in parts:
        rows = part.permute(0, 2, 3, 1).flatten(1) if part.ndim == 4 and parameter.ndim == 2 else part
        parameter[end : end + len(rows)].copy_(rows)
        end += len(rows)
    if end < len(parameter) and piece.rows is None:  # rows for tokens that the tokenizer had to add
        parameter[end:] = parameter[:end].mean(0, dtype=torch.float32).to(parameter.dtype)
    return files.size(source)
