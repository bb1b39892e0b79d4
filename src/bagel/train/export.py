"""Whole folders in the official layout, from whatever training leaves behind: a model in memory, a run folder, a
fine-tune that holds only a part of the tensors, an adapter.

What is written is always complete: what was not trained comes from the base. The dtype is the base's unless
another is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from bagel import checkpoint as checkpoints
from bagel import lora, lora_files
from bagel.checkpoint import COMPUTED, VAE_WEIGHTS, Checkpoint, TensorFiles, pieces
from bagel.devices import DTYPES
from bagel.errors import CheckpointError, InputError

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Exported:
    """What was written. replaced: tensors that came from the fine-tune, under their published names; kept: from
    the base."""

    folder: Path
    replaced: int
    kept: int
    dtype: torch.dtype


def export(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    base: str | os.PathLike[str] | None = None,
    ema: bool = True,
    step: int | None = None,
    dtype: str | torch.dtype | None = None,
) -> Exported:
    """Writes a whole folder to `out`; what `source` is, is found out by looking:

    - a run folder of `bagel train`: its newest checkpoint (or `step`), the running mean where there is one (or the
      raw weights, `ema` false), on the model it began from;
    - an adapter folder, merged into `base`;
    - a folder or safetensors file with all or some of the official tensors, the rest from `base`.

    Raises CheckpointError or InputError, in one sentence, for what does not fit.
    """
    path, target, kind = Path(source), Path(out), named_dtype(dtype)
    under = None if base is None else Path(base)
    if target.resolve() in {path.resolve(), under and under.resolve()}:
        raise InputError(f"{target} is what is exported from; give another folder to write to.")
    if (path / "checkpoints").is_dir():
        from bagel.train.export_run import export_run

        return export_run(path, target, base=under, ema=ema, step=step, dtype=kind)
    if (path / lora_files.CONFIG).exists():
        return export_lora(_needed(under, path), [(path, 1.0)], target, dtype=kind)
    if not path.exists():
        raise CheckpointError(f"there is no {str(path)!r}; give a run folder, an adapter, or a folder of weights.")
    return export_partial(under or path, path, target, dtype=kind)


def export_lora(base: Path, adapters: lora_files.Lora, out: Path, *, dtype: torch.dtype | None = None) -> Exported:
    """Adapters merged into their base."""
    checkpoint = _load(base, dtype)
    for folder, weight in lora_files.weighted(adapters):
        lora_files.load(checkpoint.model, folder, weight)
    changed = len({adapter.published for adapter in lora.adapters(checkpoint.model)})
    lora.merge(checkpoint.model)
    lora.remove(checkpoint.model)
    checkpoints.save(out, checkpoint)
    return Exported(out, changed, len(pieces(checkpoint.model)) - changed, checkpoint.model.dtype)


def export_partial(base: Path, weights: Path, out: Path, *, dtype: torch.dtype | None = None) -> Exported:
    """The tensors of `weights` (a folder or a safetensors file; published names) over those of `base`."""
    files = TensorFiles([weights]) if weights.is_file() else TensorFiles.of_model(weights)
    checkpoint = _load(base, dtype)
    replaced = overlay(checkpoint, files, str(weights))
    checkpoints.save(out, checkpoint)
    return Exported(out, replaced, len(pieces(checkpoint.model)) - replaced, checkpoint.model.dtype)


@torch.no_grad()
def overlay(checkpoint: Checkpoint, files: TensorFiles, source: str) -> int:
    """Writes the tensors of a fine-tune into a model; -> how many. Raises CheckpointError, once, for all that the
    model does not have or has in another shape."""
    plan, parameters = pieces(checkpoint.model), dict(checkpoint.model.named_parameters())
    names = [name for name in files if name not in COMPUTED]
    wrong = [_misfit(name, files.shape(name), plan.get(name), parameters) for name in names]
    found = [text for text in wrong if text]
    if found or not names:
        raise CheckpointError(
            f"{source} does not fit the base: {'; '.join(found[:5]) or 'it holds no tensors'}"
            f"{f' and {len(found) - 5} more' if len(found) > 5 else ''}. Give the base that it was fine-tuned from."
        )
    for name in names:
        piece, value = plan[name], files.read(name)
        target = parameters[piece.parameter]
        rows = target[piece.start : piece.start + (piece.rows or len(value))]
        rows.copy_(value.permute(0, 2, 3, 1).flatten(1) if value.ndim == 4 else value)
    return len(names)


def _misfit(
    name: str, shape: tuple[int, ...], piece: checkpoints.Piece | None, parameters: Mapping[str, Tensor]
) -> str | None:
    if piece is None:
        return f"{name} is unknown to it"
    whole = tuple(parameters[piece.parameter].shape)
    wanted = (piece.rows or whole[0], *whole[1:])
    if len(shape) == 4 and len(wanted) == 2:
        shape = (shape[0], shape[1] * shape[2] * shape[3])
    return None if shape == wanted else f"{name} is {list(shape)} instead of {list(wanted)}"


def write(checkpoint: Checkpoint, out: Path, *, dtype: torch.dtype | None = None) -> None:
    """A trained model in memory (not sharded), adapters merged in what is written, in `dtype` or as it is. The model
    itself is left alone."""
    values = dict(checkpoint.model.named_parameters()) | lora.merged_weights(checkpoint.model)
    model, _ = checkpoints.build(checkpoint.config)
    assign(model, values, dtype or checkpoint.model.dtype)
    checkpoints.save(out, replace(checkpoint, model=model))


def assign(module: nn.Module, values: Mapping[str, Tensor], dtype: torch.dtype) -> None:
    """Gives a model (on the meta device or not) these values, on the CPU."""
    for name, _ in list(module.named_parameters()):
        owner, _, key = name.rpartition(".")
        value = nn.Parameter(values[name].detach().to(CPU, dtype), requires_grad=False)
        setattr(module.get_submodule(owner), key, value)


def _load(base: Path, dtype: torch.dtype | None) -> Checkpoint:
    """The base on the CPU; its configuration tells the size of tables that grew for new tokens."""
    checkpoint = checkpoints.load(base, CPU, dtype or stored_dtype(base))
    rows = len(checkpoint.model.embed.weight)
    config = replace(checkpoint.config, llm=replace(checkpoint.config.llm, vocab_size=rows))
    return with_own_vae(replace(checkpoint, config=config), base)


def with_own_vae(checkpoint: Checkpoint, folder: Path) -> Checkpoint:
    """The autoencoder exactly as its file has it (float32 in official folders), whatever the model's dtype."""
    files = TensorFiles([folder / VAE_WEIGHTS])
    values = {name: files.read(name) for name in files}
    assign(checkpoint.vae, values, next(iter(values.values())).dtype)
    return checkpoint


def stored_dtype(folder: Path) -> torch.dtype:
    """The dtype of a folder's weights: that of its embeddings."""
    files = TensorFiles.of_model(folder)
    names = [name for name in files if name.endswith("embed_tokens.weight")] or list(files)
    return files.read(names[0]).dtype


def named_dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    if dtype is None or isinstance(dtype, torch.dtype):
        return dtype
    if dtype not in DTYPES:
        raise InputError(f"dtype {dtype!r} is unknown; use {', '.join(DTYPES)}.")
    return DTYPES[dtype]


def _needed(base: Path | None, source: Path) -> Path:
    if base is None:
        raise InputError(f"{source} is an adapter; say which model it belongs to (`--base FOLDER`).")
    return base
