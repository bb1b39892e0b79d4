"""A run folder of `bagel train` -> a whole folder in the official layout, on one process, without a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from bagel import checkpoint as checkpoints
from bagel import lora, lora_files
from bagel.checkpoint import pieces
from bagel.data.config import build
from bagel.errors import CheckpointError
from bagel.train import config as configs
from bagel.train import state
from bagel.train.export import Exported
from bagel.train.setup import start_of


def export_run(
    run: Path,
    out: Path,
    *,
    base: Path | None = None,
    ema: bool = True,
    step: int | None = None,
    dtype: torch.dtype | None = None,
) -> Exported:
    """The run's newest checkpoint, or that of `step`. base: instead of the folder its config names (moved, say).

    With LoRA the adapters are merged, and their files are written to `out`/adapter too.
    Raises CheckpointError if the run has no such checkpoint, or the base does not fit it.
    """
    settings = configs.load(run / configs.RESOLVED)
    path = checkpoint_of(run, step)
    values = trained(state.read(path), ema)
    if base is not None:
        settings = replace(settings, model=replace(settings.model, path=str(base)))
    start = start_of(settings.model, settings.data.seed)
    kind = dtype or start.stored_dtype()
    checkpoint = start.checkpoint(dtype=kind, vae_dtype=None)
    if settings.lora:
        lora.attach(checkpoint.model, build(lora.LoraConfig, settings.lora, "lora"))
    replaced = fill(checkpoint.model, values, path)
    if settings.lora:
        replaced += len(lora.adapters(checkpoint.model))  # a published tensor each
        lora_files.save(checkpoint.model, out / lora_files.EXPORTED, base=settings.model.path or "")
        lora.merge(checkpoint.model)
        lora.remove(checkpoint.model)
    checkpoints.save(out, checkpoint)
    return Exported(out, replaced, len(pieces(checkpoint.model)) - replaced, kind)


def checkpoint_of(run: Path, step: int | None) -> Path:
    """The folder of a run's newest whole checkpoint, or of the one at `step`."""
    if step is None:
        path = state.newest(run)
        if path is None:
            raise CheckpointError(f"{run} has no whole checkpoint yet; let it train until one is saved.")
        return path
    path = run / state.FOLDER / f"step-{step:08d}"
    if not (path / state.PROGRESS).exists():
        there = ", ".join(str(int(p.name.split("-")[1])) for p in sorted((run / state.FOLDER).glob("step-*")))
        raise CheckpointError(f"{run} has no checkpoint of step {step}; it has {there or 'none'}.")
    return path


def trained(tensors: Mapping[str, Tensor], ema: bool) -> dict[str, Tensor]:
    """The trained weights of a checkpoint by our names: the running mean where there is one and it is wanted."""
    values = {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
    if ema:
        values |= {name.removeprefix("ema."): value for name, value in tensors.items() if name.startswith("ema.")}
    return values


@torch.no_grad()
def fill(model: nn.Module, values: Mapping[str, Tensor], source: Path) -> int:
    """Writes trained parameters into the model; -> how many published tensors they are."""
    parameters = dict(model.named_parameters())
    wrong = [name for name, v in values.items() if name not in parameters or parameters[name].shape != v.shape]
    if wrong or not values:
        raise CheckpointError(
            f"{source} does not fit the model that the run began from ({len(wrong)} tensors, {', '.join(wrong[:4])}); "
            "give the right one as the base."
        )
    for name, value in values.items():
        parameters[name].copy_(value)
    return len({published for n in values if ".adapters." not in n for published in checkpoints.published_names(n)})
