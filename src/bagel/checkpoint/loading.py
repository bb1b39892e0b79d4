"""A folder, or a file of weights with its folder, loaded tensor by tensor."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch

from bagel.checkpoint.fill import Place, fill, fill_quantising
from bagel.checkpoint.fit import check
from bagel.checkpoint.folder import VAE_WEIGHTS, Checkpoint, build, grown, read_config, read_tokenizer
from bagel.checkpoint.names import Piece, pieces
from bagel.formats.source import open_autoencoder, open_weights
from bagel.packed_files import PACKED, fill_packed
from bagel.parallel.shares import Cut, cut_model
from bagel.tensor_files import TensorFiles, Tensors

Report = Callable[[int, int], None]
"""Called with (bytes read so far, bytes to read in all) while loading; what a file holds besides does not count."""


def load(
    path: Path,
    device: torch.device,
    dtype: torch.dtype,
    report: Report | None = None,
    *,
    precision: str | None = None,
    place: Place | None = None,
    cut: Cut | None = None,
) -> Checkpoint:
    """Loads an official folder (or one with `model.safetensors`, sharded with an index, or with one file that others
    have made, see `bagel.formats`), a packed one, or a file of weights beside which the rest of a folder lies.

    precision: bf11, fp8, int8 or nf4; products are quantised on `device` one by one as they are read, so that memory
    never holds more than one unquantised. place: where a parameter lies afterwards, by its name; else `device`.
    cut: the part of every layer that is kept, where several ranks share them.

    Raises CheckpointError, once, with all that is wrong with the tensors and the likely cause.
    """
    config, tokenizer = read_config(path), read_tokenizer(path)
    model, vae = build(config, len(tokenizer))
    where = place or (lambda name: device)
    vae_weights = open_autoencoder(path, VAE_WEIGHTS)
    vae_pieces = {name: Piece(name, 0, None) for name, _ in vae.named_parameters()}
    check(vae, vae_pieces, vae_weights, config)
    if (path / PACKED).exists():
        packed = TensorFiles([path / PACKED])
        steps, total = fill_packed(model, packed, path / PACKED, dtype, where, cut), sum(map(packed.size, packed))
    else:
        weights: Tensors = open_weights(path)
        model_pieces = pieces(model)
        check(model, model_pieces, weights, config)
        if cut is not None:
            cut_model(model, cut)
        steps = fill_quantising(model, model_pieces, weights, dtype, precision, device, where, cut)
        total = sum(map(weights.size, model_pieces))
    vae_dtype = torch.float32 if dtype is torch.float16 else dtype
    vae_steps = fill(vae, vae_pieces, vae_weights, vae_dtype, lambda name: where(f"vae.{name}"))
    total, done = total + sum(map(vae_weights.size, vae_pieces)), 0
    for read in itertools.chain(steps, (read for read, _, _ in vae_steps)):
        done += read
        if report:
            report(done, total)
    model.config = grown(config, model)
    return Checkpoint(model.config, model, vae, tokenizer)


def stored_bytes(path: Path) -> Counter[str]:
    """Bytes of a model's weights by their kind, as the files' headers spell it: BF16, F32 ..."""
    weights, found = open_weights(path), Counter[str]()
    for name in weights:
        found[weights.dtype(name)] += weights.size(name)
    return found
