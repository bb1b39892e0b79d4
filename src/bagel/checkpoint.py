"""Official folders, read and written. Here alone live the published names of tensors.

A model is built on the meta device; names and shapes are compared with the files' headers before anything
is allocated; then each parameter is allocated once, in its final dtype on its final device, and filled from
the memory-mapped files. Nothing is unpickled.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from bagel.errors import CheckpointError
from bagel.misfit import VAE_CAUSE, cause_of
from bagel.model.bagel import BagelModel
from bagel.model.config import ModelConfig
from bagel.model.layers import sine_half_table
from bagel.model.quantise import is_quantised, precision_of, quantised, replace_module
from bagel.model.vae import VAE
from bagel.packed_files import PACKED, fill_packed, packed_metadata, packed_tensors
from bagel.tensor_files import TensorFiles, shortened
from bagel.tokens import Tokenizer

WEIGHTS, VAE_WEIGHTS = "ema.safetensors", "ae.safetensors"
COMPUTED = {"latent_pos_embed.pos_embed", "vit_pos_embed.pos_embed"}
"""Fixed sine tables that official files store. They are computed, so that a model loads with another
`max_latent_size` than it was saved with."""

Report = Callable[[int, int], None]
"""Called with (bytes read so far, bytes in all) while loading."""

Place = Callable[[str], torch.device]
"""Where a parameter lies, by its name; the autoencoder's begin with `vae.`."""


@dataclass
class Checkpoint:
    """A folder, loaded."""

    config: ModelConfig
    model: BagelModel
    vae: VAE
    tokenizer: Tokenizer


def load(
    folder: Path,
    device: torch.device,
    dtype: torch.dtype,
    report: Report | None = None,
    *,
    precision: str | None = None,
    place: Place | None = None,
) -> Checkpoint:
    """Loads an official folder (or one with `model.safetensors`, or sharded with an index), or a packed one.

    precision: fp8, int8 or nf4; products are quantised on `device` one by one as they are read, so that memory
    never holds more than one unquantised. place: where a parameter lies afterwards, by its name; else `device`.

    Raises CheckpointError, once, with all that is wrong with the tensors and the likely cause.
    """
    config, tokenizer = read_config(folder), read_tokenizer(folder)
    model, vae = build(config, len(tokenizer))
    where = place or (lambda name: device)
    vae_weights = TensorFiles([folder / VAE_WEIGHTS])
    vae_pieces = {name: Piece(name, 0, None) for name, _ in vae.named_parameters()}
    check(vae, vae_pieces, vae_weights, config)
    if (folder / PACKED).exists():
        weights = TensorFiles([folder / PACKED])
        steps = fill_packed(model, weights, folder / PACKED, dtype, where)
    else:
        weights = TensorFiles.of_model(folder)
        model_pieces = pieces(model)
        check(model, model_pieces, weights, config)
        steps = _fill_quantising(model, model_pieces, weights, dtype, precision, device, where)
    vae_dtype = torch.float32 if dtype is torch.float16 else dtype
    vae_steps = _fill(vae, vae_pieces, vae_weights, vae_dtype, lambda name: where(f"vae.{name}"))
    total, done = weights.num_bytes + vae_weights.num_bytes, 0
    for read in itertools.chain(steps, (read for read, _, _ in vae_steps)):
        done += read
        if report:
            report(done, total)
    model.config = _grown(config, model)
    return Checkpoint(model.config, model, vae, tokenizer)


def read_tokenizer(folder: Path) -> Tokenizer:
    """Raises CheckpointError where it has ids that the model has no rows for."""
    config, tokenizer = read_config(folder), Tokenizer.from_folder(folder)
    if tokenizer.num_stored > config.llm.vocab_size:
        raise CheckpointError(
            f"the tokenizer in {folder} has ids up to {tokenizer.num_stored - 1}, but vocab_size in llm_config.json is "
            f"{config.llm.vocab_size}: one of them belongs to another model; copy it from the original."
        )
    return tokenizer


def _grown(config: ModelConfig, model: BagelModel) -> ModelConfig:
    """The configuration with the embedding table's true size, which new tokens may have made larger."""
    return replace(config, llm=replace(config.llm, vocab_size=len(model.embed.weight)))


def read_config(folder: Path) -> ModelConfig:
    if not folder.is_dir():
        raise CheckpointError(
            f"there is no model folder {str(folder)!r}; give the path of a BAGEL folder, or fetch one with "
            "`bagel download`."
        )
    return ModelConfig.from_folder(folder)


def build(config: ModelConfig, num_tokens: int = 0) -> tuple[BagelModel, VAE]:
    """Model and autoencoder without memory, on the meta device. A tokenizer with more ids than the embedding
    table has rows makes the table grow."""
    with torch.device("meta"):
        model, vae = BagelModel(config), VAE(config.vae)
        if num_tokens > config.llm.vocab_size:
            width = config.llm.hidden_size
            model.embed = nn.Embedding(num_tokens, width)
            model.lm_head = nn.Linear(width, num_tokens, bias=False)
    return model.requires_grad_(False).eval(), vae.requires_grad_(False).eval()


# --- published names -----------------------------------------------------------------------------------


class Piece(NamedTuple):
    """Where a published tensor lies in a parameter of ours: rows start : start + rows (None: all of it)."""

    parameter: str
    start: int
    rows: int | None


_LAYER = r"decoder\.layers\.(\d+)\.(und|gen)\."
_OURS = r"language_model.model.layers.\1."
_NAMES: list[tuple[str, tuple[str, ...]]] = [
    (r"embed\.weight", ("language_model.model.embed_tokens.weight",)),
    (r"lm_head\.weight", ("language_model.lm_head.weight",)),
    (r"decoder\.(und|gen)_norm\.weight", (r"language_model.model.norm{\1}.weight",)),
    (_LAYER + r"input_norm\.weight", (_OURS + r"input_layernorm{\2}.weight",)),
    (_LAYER + r"post_norm\.weight", (_OURS + r"post_attention_layernorm{\2}.weight",)),
    (_LAYER + r"qkv\.(.*)", tuple(_OURS + rf"self_attn.{x}_proj{{\2}}.\3" for x in "qkv")),
    (_LAYER + r"([qk]_norm)\.weight", (_OURS + r"self_attn.\3{\2}.weight",)),
    (_LAYER + r"o\.weight", (_OURS + r"self_attn.o_proj{\2}.weight",)),
    (_LAYER + r"mlp\.gate_up\.weight", tuple(_OURS + rf"mlp{{\2}}.{x}_proj.weight" for x in ("gate", "up"))),
    (_LAYER + r"mlp\.down\.weight", (_OURS + r"mlp{\2}.down_proj.weight",)),
    (r"connector\.(.*)", (r"connector.\1",)),
    (r"latent_in\.(.*)", (r"vae2llm.\1",)),
    (r"latent_out\.(.*)", (r"llm2vae.\1",)),
    (r"time\.mlp\.fc1\.(.*)", (r"time_embedder.mlp.0.\1",)),
    (r"time\.mlp\.fc2\.(.*)", (r"time_embedder.mlp.2.\1",)),
    (r"vit\.patch\.(.*)", (r"vit_model.vision_model.embeddings.patch_embedding.\1",)),
    (r"vit\.position\.(.*)", (r"vit_model.vision_model.embeddings.position_embedding.\1",)),
    (r"vit\.post_norm\.(.*)", (r"vit_model.vision_model.post_layernorm.\1",)),
    (
        r"vit\.layers\.(\d+)\.qkv\.(.*)",
        tuple(rf"vit_model.vision_model.encoder.layers.\1.self_attn.{x}_proj.\2" for x in "qkv"),
    ),
    (r"vit\.layers\.(\d+)\.o\.(.*)", (r"vit_model.vision_model.encoder.layers.\1.self_attn.out_proj.\2",)),
    (r"vit\.layers\.(\d+)\.norm(\d)\.(.*)", (r"vit_model.vision_model.encoder.layers.\1.layer_norm\2.\3",)),
    (r"vit\.layers\.(\d+)\.mlp\.(.*)", (r"vit_model.vision_model.encoder.layers.\1.mlp.\2",)),
]


def published_names(parameter: str) -> tuple[str, ...]:
    """The published tensors that make up one of our parameters, stacked by rows: two for gate_up, three for
    qkv, else one. `{und}` and `{gen}` in the table stand for the suffix of the expert."""
    for pattern, names in _NAMES:
        match = re.fullmatch(pattern, parameter)
        if match:
            expanded = (match.expand(name) for name in names)
            return tuple(name.replace("{und}", "").replace("{gen}", "_moe_gen") for name in expanded)
    raise KeyError(parameter)


def pieces(model: BagelModel) -> dict[str, Piece]:
    """Every published tensor of a model and where it goes. A parameter that both experts share is und's;
    LoRA adapters have files of their own."""
    heads = model.config.llm.num_attention_heads, *[model.config.llm.num_key_value_heads] * 2
    plan: dict[str, Piece] = {}
    for parameter, value in model.named_parameters():
        if ".adapters." in parameter:
            continue
        names = published_names(parameter)
        if len(names) == 1:
            plan[names[0]] = Piece(parameter, 0, None)
            continue
        shares = heads if parameter.startswith("decoder") and len(names) == 3 else (1,) * len(names)
        start = 0
        for name, share in zip(names, shares, strict=True):
            rows = len(value) * share // sum(shares)
            plan[name] = Piece(parameter, start, rows)
            start += rows
    return plan


# --- comparing and filling -------------------------------------------------------------------------------


def check(module: nn.Module, plan: Mapping[str, Piece], files: TensorFiles, config: ModelConfig) -> None:
    """Compares names and shapes; raises one CheckpointError with everything that differs."""
    parameters = dict(module.named_parameters())
    stored = set(files) - COMPUTED
    missing, unexpected = sorted(plan.keys() - stored), sorted(stored - plan.keys())
    misshapen = []
    for name in sorted(plan.keys() & stored):
        wanted = _wanted_shape(name, plan[name], parameters, config)
        if files.shape(name) != wanted and not _is_convolution(name, files.shape(name), wanted):
            misshapen.append(f"{name} {list(files.shape(name))} instead of {list(wanted)}")
        elif not files.dtype(name).startswith(("F", "BF")):
            misshapen.append(f"{name} {files.dtype(name)} instead of floating-point numbers")
    if missing or unexpected or misshapen:
        kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen))
        lists = "; ".join(f"{len(names)} {kind}: {shortened(names)}" for kind, names in kinds if names)
        if isinstance(module, VAE):
            what, cause = "autoencoder's weights", VAE_CAUSE
        else:
            what, cause = "weights", cause_of(missing, unexpected, misshapen)
        raise CheckpointError(f"the {what} do not fit the configuration. {cause} Tensors {lists}.")


def _wanted_shape(name: str, piece: Piece, parameters: Mapping[str, Tensor], config: ModelConfig) -> tuple[int, ...]:
    """A table that grew for new tokens is stored at the size that the configuration says."""
    shape = parameters[piece.parameter].shape
    rows = config.llm.vocab_size if piece.parameter in _GROWING else piece.rows or shape[0]
    return (rows, *shape[1:])


_GROWING = ("embed.weight", "lm_head.weight")


def _is_convolution(name: str, stored: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """A raw SigLIP stores its patch embedding as a convolution [out, 3, p, p]."""
    side = round((wanted[-1] / 3) ** 0.5)
    return name.endswith("patch_embedding.weight") and stored == (wanted[0], 3, side, side)


def _fill(
    module: nn.Module, plan: Mapping[str, Piece], files: TensorFiles, dtype: torch.dtype, where: Place
) -> Iterator[tuple[int, str, nn.Module]]:
    """Allocates each parameter and copies its tensors into it; yields the bytes that were read, and the name of
    the module that is whole now, and the module. Keeps no parameter alive."""
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
                read += _copy(files.read(source), value, piece)
            owner._parameters[key] = nn.Parameter(value, requires_grad=False)
            del value
        yield read, owner_name, owner


def _fill_quantising(
    model: BagelModel,
    plan: Mapping[str, Piece],
    files: TensorFiles,
    dtype: torch.dtype,
    precision: str | None,
    device: torch.device,
    where: Place,
) -> Iterator[int]:
    """`_fill`; what is quantised is filled on `device` and goes to its place packed."""

    def at(name: str) -> torch.device:
        owner = model.get_submodule(name.rpartition(".")[0])
        return device if precision and is_quantised(model, owner, precision) else where(name)

    for read, name, owner in _fill(model, plan, files, dtype, at):
        if precision and (packed := quantised(model, owner, precision)) is not None:
            replace_module(model, owner, packed.to(where(f"{name}.weight")))
            owner._parameters.clear()  # the walk still holds the module that was replaced
        yield read


@torch.no_grad()
def _copy(stored: Tensor, parameter: Tensor, piece: Piece) -> int:
    if stored.ndim == 4 and parameter.ndim == 2:
        stored = stored.permute(0, 2, 3, 1).flatten(1)
    end = piece.start + (piece.rows or len(stored))
    parameter[piece.start : end].copy_(stored)
    if end < len(parameter) and piece.rows is None:  # rows for tokens that the tokenizer had to add
        parameter[end:] = stored.float().mean(0).to(parameter.dtype)
    return stored.numel() * stored.element_size()


# --- saving ----------------------------------------------------------------------------------------------


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
    without the original. Each file appears whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    config = _grown(checkpoint.config, checkpoint.model)
    texts = {name: json.dumps(data, indent=1) for name, data in config.to_json().items()}
    for name, text in {**texts, **checkpoint.tokenizer.files()}.items():
        _write(folder / name, lambda path, text=text: path.write_text(text, encoding="utf-8"))  # type: ignore[misc]
    vae = {name: value.detach().float() for name, value in checkpoint.vae.named_parameters()}
    precision = precision_of(checkpoint.model)
    if precision:
        model = PACKED, packed_tensors(checkpoint.model), packed_metadata(precision)
    else:
        model = WEIGHTS, published_tensors(checkpoint.model), {"format": "pt"}
    for name, tensors, about in (model, (VAE_WEIGHTS, vae, {"format": "pt"})):
        host = {key: value.to("cpu").contiguous() for key, value in tensors.items()}
        _write(folder / name, lambda path, host=host, about=about: save_file(host, path, about))  # type: ignore[misc]


def _write(path: Path, write: Callable[[Path], object]) -> None:
    partial = path.with_name(f".{path.name}.partial")
    try:
        write(partial)
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} could not be written ({error}); free some disk and save again.") from None
    finally:
        partial.unlink(missing_ok=True)
