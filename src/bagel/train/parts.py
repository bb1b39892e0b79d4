"""The three models that BAGEL is built from, as others publish them: their sizes, and how to read each tensor
that ours needs under our published name."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from bagel.checkpoint import TensorFiles
from bagel.errors import CheckpointError
from bagel.model.config import Layers, LLMConfig, VAEConfig, ViTConfig
from bagel.tokens import Tokenizer

Read = Callable[[], Tensor]
"""Reads one tensor, on the CPU, in the dtype of its file."""


def llm_parts(folder: Path, layers: Layers) -> tuple[LLMConfig, dict[str, Read], Tokenizer]:
    """A Qwen2 or Qwen3 folder: tied embeddings become both tables, q/k norms are taken if there are any.

    Raises CheckpointError for another architecture, or a head width that is not hidden_size / heads.
    """
    data = _json(folder / "config.json")
    kind = data.get("model_type")
    if kind not in ("qwen2", "qwen3"):
        raise CheckpointError(f"{folder} is a {kind} model; the decoder is built from a qwen2 or qwen3 one.")
    data.update(_rotary(data, folder))
    keys = [name for name in LLMConfig.__dataclass_fields__ if name != "layers" and data.get(name) is not None]
    config = _config(LLMConfig, {name: data[name] for name in keys}, folder, layers=layers)
    if data.get("head_dim", config.head_dim) != config.head_dim:
        raise CheckpointError(
            f"{folder} has heads of width {data['head_dim']}, not hidden_size / num_attention_heads = "
            f"{config.head_dim}; such a model cannot become a BAGEL."
        )
    files = TensorFiles.of_model(folder)
    read: dict[str, Read] = {f"language_model.{name}": partial(files.read, name) for name in files}
    head, table = "language_model.lm_head.weight", "language_model.model.embed_tokens.weight"
    if table in read and (head not in read or data.get("tie_word_embeddings")):
        read[head] = read[table]
    return config, read, Tokenizer.from_folder(folder)


def _rotary(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The base of the rotary embedding, which newer files keep one level down. Stretched ones are refused."""
    rope = data.get("rope_parameters") or data.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise CheckpointError(f"{folder} has rotary positions of type {kind!r}; only plain ones can be used.")
    return {"rope_theta": rope["rope_theta"]} if "rope_theta" in rope else {}


def vit_parts(folder: Path, side: int) -> tuple[ViTConfig, dict[str, Read]]:
    """A SigLIP folder (the vision tower alone, or with its text tower). side: of the position table, in patches.

    The config still counts the last layer, as in official folders; its tensors are simply not asked for.
    """
    data = _json(folder / "config.json")
    data = data.get("vision_config", data)
    keys = [name for name in ViTConfig.__dataclass_fields__ if data.get(name) is not None]
    patch = int(data.get("patch_size", 14))
    config = _config(ViTConfig, {n: data[n] for n in keys} | {"image_size": side * patch}, folder)
    files = TensorFiles.of_model(folder)
    read: dict[str, Read] = {}
    for name in files:
        plain = name.removeprefix("vision_model.")
        if name.startswith(("text_model.", "logit_")) or plain.startswith("head."):
            continue
        read[f"vit_model.vision_model.{plain}"] = partial(files.read, name)
    table = "vit_model.vision_model.embeddings.position_embedding.weight"
    if table in read:
        read[table] = partial(_stretched, read[table], side)
    return config, read


def _stretched(read: Read, side: int) -> Tensor:
    """A square table of positions [n x n, D] at another size, bicubic: [side x side, D]."""
    table = read()
    old = round(len(table) ** 0.5)
    if old * old != len(table):
        raise CheckpointError(f"the ViT's position table has {len(table)} rows, which is no square.")
    if old == side:
        return table
    grid = table.float().unflatten(0, (old, old)).permute(2, 0, 1)[None]
    grid = F.interpolate(grid, size=(side, side), mode="bicubic", align_corners=False)
    return grid[0].flatten(1).T.contiguous().to(table.dtype)


def vae_parts(path: Path) -> dict[str, Read]:
    """The autoencoder's tensors, names as in FLUX's `ae.safetensors`."""
    files = TensorFiles([path])
    return {name: partial(files.read, name) for name in files}


def vae_config(path: Path) -> VAEConfig:
    """From the `ae_config.json` beside the file; without one it is FLUX's."""
    beside = path.parent / "ae_config.json"
    data = _json(beside) if beside.exists() else {}
    values: dict[str, Any] = {n: data[n] for n in VAEConfig.__dataclass_fields__ if data.get(n) is not None}
    if "ch_mult" in values:
        values["ch_mult"] = tuple(values["ch_mult"])
    return VAEConfig(**values)


def _config(cls: Callable[..., Any], values: dict[str, Any], folder: Path, **more: Any) -> Any:
    try:
        return cls(**values, **more)
    except TypeError as error:
        raise CheckpointError(f"{folder / 'config.json'} does not say all sizes ({error}); copy it again.") from None
    except ValueError as error:
        raise CheckpointError(f"{folder / 'config.json'}: {error}.") from None


def _json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path.parent} has no {path.name}; give a folder in Hugging Face's layout.") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON ({error}); copy the file again.") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} holds a {type(data).__name__}, not an object; copy the file again.")
    return data
