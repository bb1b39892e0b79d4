"""A model written as an official folder, or, in fewer bits, as a packed one."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from bagel.checkpoint.folder import VAE_WEIGHTS, WEIGHTS, Checkpoint, grown
from bagel.checkpoint.names import pieces
from bagel.errors import CheckpointError
from bagel.model.bagel import BagelModel
from bagel.model.layers import sine_half_table
from bagel.model.quantise import precision_of
from bagel.packed_files import PACKED, packed_metadata, packed_tensors
from bagel.tensor_files import SINGLE, write_tensors


def published_tensors(model: BagelModel) -> dict[str, Tensor]:
    """All tensors of a model under their published names, the fixed tables too."""
    parameters = dict(model.named_parameters())
    tensors = {}
    for name, piece in pieces(model).items():
        value = parameters[piece.parameter].detach()
        tensors[name] = value if piece.rows is None else value[piece.start : piece.start + piece.rows]
    config, cpu = model.config, torch.device("cpu")
    for name, side in (
        ("latent_pos_embed.pos_embed", config.max_latent_size),
        ("vit_pos_embed.pos_embed", config.vit_max_num_patch_per_side),
    ):
        half = sine_half_table(side, config.llm.hidden_size, cpu)
        row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
        tensors[name] = torch.cat((half[column.flatten()], half[row.flatten()]), dim=-1).to(model.dtype)
    return tensors


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Writes an official folder: same names, shapes and layout, loadable by the official code; the autoencoder in
    float32, as upstream keeps it. A quantised model gives a packed folder (see `bagel.packed_files`), which loads
    without the original. Each file appears whole or not at all. Raises CheckpointError."""
    precision = precision_of(checkpoint.model)
    check_other_weights(folder, packed=precision is not None)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be made ({error.strerror}); give another folder.") from None
    config = grown(checkpoint.config, checkpoint.model)
    texts = {name: json.dumps(data, indent=1) for name, data in config.to_json().items()}
    for name, text in {**texts, **checkpoint.tokenizer.files()}.items():
        _write(folder / name, lambda path, text=text: path.write_text(text, encoding="utf-8"))  # type: ignore[misc]
    vae = {name: value.detach().float() for name, value in checkpoint.vae.named_parameters()}
    if precision:
        model = PACKED, packed_tensors(checkpoint.model), packed_metadata(precision)
    else:
        model = WEIGHTS, published_tensors(checkpoint.model), {"format": "pt"}
    for name, tensors, about in (model, (VAE_WEIGHTS, vae, {"format": "pt"})):
        host = {key: value.to("cpu").contiguous() for key, value in tensors.items()}
        _write(folder / name, lambda path, host=host, about=about: write_tensors(host, path, about))  # type: ignore[misc]


def check_other_weights(folder: Path, *, packed: bool) -> None:
    """Raises CheckpointError where a folder holds weights of the other kind: packed ones are what is loaded, so that
    either those that are written or those that lie there would be passed over from then on."""
    for pattern in (*SINGLE, "*.safetensors.index.json") if packed else (PACKED,):
        for path in folder.glob(pattern):
            raise CheckpointError(
                f"{folder} holds {path.name}, and of whole and packed weights in one folder the packed ones alone "
                "are loaded; give another folder, or remove that file."
            )


def _write(path: Path, write: Callable[[Path], object]) -> None:
    partial = path.with_name(f".{path.name}.partial")
    try:
        write(partial)
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} could not be written ({error}); free some disk or give another folder."
        ) from None
    finally:
        with contextlib.suppress(OSError):  # of a folder that may not be written to
            partial.unlink(missing_ok=True)
