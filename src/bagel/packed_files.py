"""Packed folders: a quantised model, which loads without the original.

Beside the json files, the tokenizer and `ae.safetensors` lies `packed.safetensors`. Its metadata says
`bagel_packed` (the version of this layout, 1) and `precision` (bf11, fp8, int8, nf4). Its tensors are the parameters
and buffers of the model under our own names; a packed weight is two or three of them:

    bf11  NAME.low    uint8 [N, K']  NAME.high uint8 [N, 3 K' / 8]  NAME.scale float32 [N]  (see `bagel.model.bf11`)
    fp8   NAME.values float8_e4m3fn [N, K]       NAME.scale float32 [N]
    int8  NAME.values int8 [N, K]                NAME.scale float32 [N]
    nf4   NAME.codes  uint8 [N, K' / 2]          NAME.scale float16 [N, K' / 64]    (see `bagel.model.packed`)

`embed` and `lm_head` are int8 where the decoder is int8 or nf4. What is in no fewer bits keeps its numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from bagel.errors import CheckpointError
from bagel.model.bagel import BagelModel
from bagel.model.packed import GROUP
from bagel.model.quantise import QUANTISED, quantised, replace_module
from bagel.parallel.shares import Cut, cut_model
from bagel.tensor_files import TensorFiles, shortened

PACKED, VERSION = "packed.safetensors", "1"


def packed_metadata(precision: str) -> dict[str, str]:
    return {"format": "pt", "bagel_packed": VERSION, "precision": precision}


def packed_precision(folder: Path) -> str | None:
    """What a folder was packed in; None for one that is not packed. Raises CheckpointError for another layout."""
    path = folder / PACKED
    if not path.exists():
        return None
    TensorFiles([path])  # says what is wrong with a damaged file
    with safe_open(path, framework="pt") as handle:
        about = handle.metadata() or {}
    if about.get("bagel_packed") != VERSION or about.get("precision") not in QUANTISED:
        raise CheckpointError(
            f"{path} says bagel_packed {about.get('bagel_packed')!r}, precision {about.get('precision')!r}; this "
            f"version reads {VERSION} and {', '.join(QUANTISED)}. Pack the original again."
        )
    return about["precision"]


def packed_tensors(model: BagelModel) -> dict[str, Tensor]:
    """Parameters and buffers by our names; what experts share is und's."""
    return {
        name: value.detach() for found in (model.named_parameters(), model.named_buffers()) for name, value in found
    }


def fill_packed(
    model: BagelModel,
    files: TensorFiles,
    path: Path,
    dtype: torch.dtype,
    where: Callable[[str], torch.device],
    cut: Cut | None = None,
) -> Iterator[int]:
    """Fills a model that has no memory yet; yields bytes as they are read. cut: the part of every layer that is
    kept."""
    precision = packed_precision(path.parent)
    assert precision
    for owner in list(model.modules()):
        if (empty := quantised(model, owner, precision)) is not None:
            replace_module(model, owner, empty)
    _check(model, files, path)
    llm = model.config.llm
    if cut is not None:
        _check_groups(cut, model, precision)
        cut_model(model, cut)
    model.embed.dtype = dtype  # type: ignore[assignment]
    for name, owner in list(model.named_modules()):
        read, prefix = 0, f"{name}." if name else ""
        for held in (owner._parameters, owner._buffers):
            for key, empty_tensor in list(held.items()):
                if empty_tensor is None:
                    continue
                stored = files.read(prefix + key)
                read += stored.numel() * stored.element_size()
                if cut is not None:
                    stored = cut.joined(prefix + key, stored, llm)
                plain = held is owner._parameters
                value = stored.to(where(prefix + key), dtype if plain else stored.dtype)
                held[key] = nn.Parameter(value, requires_grad=False) if plain else value
        yield read


def _check_groups(cut: Cut, model: BagelModel, precision: str) -> None:
    """Raises CheckpointError where a share of a row would end within a group of nf4."""
    llm = model.config.llm
    for inputs in (llm.hidden_size, llm.intermediate_size) if precision == "nf4" else ():
        if inputs % (GROUP * cut.count):
            raise CheckpointError(
                f"rows of {inputs} packed numbers cannot be shared out {cut.count} ways, since {GROUP} have a scale "
                "together; load the original with --precision nf4, or use other ways than tensor."
            )


def _check(model: BagelModel, files: TensorFiles, path: Path) -> None:
    """Raises CheckpointError where names or shapes differ, or packed numbers are of another kind: what they mean goes
    with it, as a tool that casts a whole file does not know."""
    wanted, buffers, names = packed_tensors(model), dict(model.named_buffers()), set(files)
    wrong = sorted((wanted.keys() ^ names) | {n for n in wanted.keys() & names if files.shape(n) != wanted[n].shape})
    wrong = wrong or sorted(n for n in buffers if files.read(n).dtype != buffers[n].dtype)
    if wrong:
        raise CheckpointError(
            f"{path} does not fit the configuration beside it; pack the original again. Missing, unexpected or of "
            f"another shape or kind: {shortened(wrong)}."
        )
