"""Adapter files: a folder with `adapter_config.json` and `adapter_model.safetensors`, as peft writes and reads
them, with the module names of the official model."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from bagel import lora
from bagel.errors import CheckpointError, InputError
from bagel.lora import Adapter, LoraConfig, Place
from bagel.model.bagel import BagelModel
from bagel.tensor_files import write_tensors

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
EXPORTED = "adapter"
"""Where in its folder `bagel export` puts the adapter of a run."""
_PREFIX = "base_model.model."

Lora = str | os.PathLike[str] | Sequence[str | os.PathLike[str] | tuple[str | os.PathLike[str], float]]
"""One adapter folder, or a list of folders and (folder, weight)."""


def save(model: BagelModel, folder: Path, name: str = "default", base: str = "") -> None:
    """Writes the adapters of a name. `base`: what they were trained on, noted for the reader.

    Raises InputError if the model has none of that name.
    """
    found = lora.adapters(model, name)
    if not found:
        raise InputError(f"the model has no adapter named {name!r}.")
    folder.mkdir(parents=True, exist_ok=True)
    write(folder, {a.published: (whole(a.A), whole(a.B)) for a in found}, found[0].config, base)


def whole(value: Tensor) -> Tensor:
    """A parameter on the CPU, gathered if it is sharded (every rank must then call this)."""
    value = value.detach()
    value = value.full_tensor() if hasattr(value, "full_tensor") else value
    return value.to("cpu", torch.float32).contiguous()


def write(folder: Path, values: dict[str, tuple[Tensor, Tensor]], config: LoraConfig, base: str = "") -> None:
    """Writes adapter files from A and B by published module name."""
    tensors = {}
    for published, (a, b) in values.items():
        tensors[f"{_PREFIX}{published}.lora_A.weight"] = a
        tensors[f"{_PREFIX}{published}.lora_B.weight"] = b
    described = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": base or None,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "use_rslora": config.rslora,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "target_modules": _pattern(list(values)),
    }
    try:
        (folder / CONFIG).write_text(json.dumps(described, indent=1), encoding="utf-8")
        write_tensors(tensors, folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"the adapter could not be written to {folder} ({error}); free some disk.") from None


def _pattern(published: Sequence[str]) -> str:
    """A regular expression that names these modules of the official model and no other: plain suffixes would
    hit the ViT's projections too."""
    kinds = sorted({re.sub(r"^language_model\.model\.layers\.\d+\.", "", name) for name in published})
    return r"language_model\.model\.layers\.\d+\.(" + "|".join(map(re.escape, kinds)) + ")"


def load(model: BagelModel, folder: str | os.PathLike[str], weight: float = 1.0, name: str | None = None) -> str:
    """Attaches adapters from files, frozen; returns their name. They count `weight` times.

    Raises CheckpointError for files that are missing, damaged, of another kind, or for another model.
    """
    path = Path(folder)
    described, tensors = _read(path)
    _refuse_others(described, path)
    where = {place.published: place for place in lora.places(model)}
    pairs = _pairs(tensors, path)
    strangers = sorted(pairs.keys() - where.keys())
    if strangers:
        raise CheckpointError(
            f"{path} adapts {len(strangers)} modules that this model does not have or that take no adapter "
            f"({', '.join(strangers[:4])}); it belongs to another model."
        )
    chosen: dict[Place, LoraConfig] = {}
    for published, (a, b) in pairs.items():
        place = where[published]
        chosen[place] = _config_of(described, published, a)
        inputs = model.get_submodule(place.module).in_features
        if a.shape[1] != inputs or b.shape != (place.rows, a.shape[0]):
            raise CheckpointError(
                f"{path}: {published} has A {list(a.shape)} and B {list(b.shape)}, this model needs [r, {inputs}] and "
                f"[{place.rows}, r]; the adapter was trained on a model of another size."
            )
    name = name or _free_name(model, path.name or "adapter")
    for adapter in lora.place(model, chosen, name):
        _fill(adapter, *pairs[adapter.published], weight)
    return name


@torch.no_grad()
def _fill(adapter: Adapter, a: Tensor, b: Tensor, weight: float) -> None:
    adapter.A.copy_(a)
    adapter.B.copy_(b)
    adapter.weight = weight


def apply(model: BagelModel, given: Lora) -> None:
    """Loads one or several adapters, merges them into the weights and forgets them: what inference wants.

    Raises InputError for a list that is none, CheckpointError for bad files.
    """
    for folder, weight in weighted(given):
        load(model, folder, weight)
    lora.merge(model)
    lora.remove(model)


def weighted(given: Lora) -> list[tuple[Path, float]]:
    """The list that `lora=` means: folders, each with its weight."""
    items: list[Any] = list(given) if isinstance(given, (list, tuple)) else [given]
    if len(items) == 2 and isinstance(items[0], (str, os.PathLike)) and isinstance(items[1], (int, float)):
        items = [tuple(items)]
    out = []
    for item in items:
        folder, weight = item if isinstance(item, (tuple, list)) and len(item) == 2 else (item, 1.0)
        if not isinstance(folder, (str, os.PathLike)) or isinstance(weight, bool):
            raise InputError(f"lora is {item!r}; give an adapter folder, or (folder, weight), or a list of them.")
        try:
            number = float(weight)
        except (TypeError, ValueError):
            raise InputError(f"the weight of lora {folder} is {weight!r}; it must be a number.") from None
        if not math.isfinite(number):
            raise InputError(f"the weight of lora {folder} is {weight!r}; it must be finite.")
        out.append((Path(folder), number))
    return out


def _free_name(model: BagelModel, wanted: str) -> str:
    name, count = wanted, 1
    while lora.adapters(model, name):
        count += 1
        name = f"{wanted}_{count}"
    return name


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        described = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        tensors = load_file(folder / WEIGHTS)
    except FileNotFoundError as error:
        missing = Path(str(error.filename or WEIGHTS)).name
        raise CheckpointError(f"{folder} is no adapter folder: {missing} is missing; {_remedy(folder)}.") from None
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"the adapter in {folder} cannot be read ({error}); copy its files again.") from None
    if not isinstance(described, dict):
        raise CheckpointError(f"{folder / CONFIG} holds no object; copy the file again.")
    return described, tensors


def _remedy(folder: Path) -> str:
    """For the folders that are taken for adapters: what `bagel export` wrote, and the run itself."""
    if (folder / EXPORTED / CONFIG).exists():
        return f"the adapter of this folder is {folder / EXPORTED}"
    if (folder / "checkpoints").is_dir():
        return f"it is a run, whose adapter `bagel export {folder} OUT` writes to OUT/{EXPORTED}"
    return f"it must hold {CONFIG} and {WEIGHTS}"


def _refuse_others(described: dict[str, Any], folder: Path) -> None:
    """What peft can do and we cannot must not pass silently."""
    if described.get("peft_type", "LORA") != "LORA":
        raise CheckpointError(f"{folder} is a {described['peft_type']} adapter; only LORA can be loaded.")
    for key, plain in (("use_dora", False), ("bias", "none"), ("modules_to_save", None), ("fan_in_fan_out", False)):
        if described.get(key) not in (plain, None, [], False):
            raise CheckpointError(f"{folder} has {key} {described[key]!r}, which is not supported; train it without.")


def _pairs(tensors: dict[str, Tensor], folder: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """A and B by published module name. An adapter trained on the language model alone lacks its prefix."""
    halves: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        match = re.fullmatch(r"(?:base_model\.model\.)?(.+)\.lora_(A|B)(?:\.\w+)?\.weight", key)
        if not match:
            raise CheckpointError(f"{folder / WEIGHTS} holds {key!r}, which is no part of a LoRA adapter.")
        name = match[1] if not match[1].startswith("model.layers.") else f"language_model.{match[1]}"
        halves.setdefault(name, {})[match[2]] = value
    single = [name for name, half in halves.items() if len(half) < 2]
    if single or not halves:
        raise CheckpointError(
            f"{folder / WEIGHTS} is incomplete ({', '.join(single[:3]) or 'no tensors'}); copy the file again."
        )
    return {name: (half["A"], half["B"]) for name, half in halves.items()}


def _config_of(described: dict[str, Any], published: str, a: Tensor) -> LoraConfig:
    """The settings of one module: patterns of peft may give it a rank and alpha of its own."""
    config = LoraConfig(
        rank=a.shape[0],
        alpha=described.get("lora_alpha", 8),
        dropout=described.get("lora_dropout", 0.0),
        rslora=bool(described.get("use_rslora", False)),
    )
    for pattern, alpha in (described.get("alpha_pattern") or {}).items():
        if re.match(rf"(?:.*\.)?(?:{pattern})$", published):
            return replace(config, alpha=alpha)
    return config
