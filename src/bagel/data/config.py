"""What a user says about data: the `data` part of a training config, checked key by key."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, get_type_hints

from bagel.errors import InputError

T = TypeVar("T")

FORMATS = ("parquet", "jsonl", "tar", "pictures", "hf")
WITHOUT_FILES = ("world",)
"""Recipes whose rows are numbers."""
SUFFIXES = {".parquet": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl", ".tar": "tar"}


@dataclass(frozen=True, kw_only=True)
class Resize:
    """Bounds for the sides of a picture in pixels; what is not given is the model's own rule."""

    max_size: int | None = None
    min_size: int | None = None
    stride: int | None = None
    max_pixels: int | None = None


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """One data set.

    name:      for reports, errors and the resume state; must be unique.
    recipe:    how a row becomes a sample: t2i, edit, understand, video, document, text, world.
    path:      file, folder, glob pattern or URL, or several; for `hf` a folder or a hub name; none for `world`.
    format:    parquet, jsonl, tar, pictures, hf; guessed from the path when absent.
    root:      where relative picture paths start; by default the folder of the file that names them.
    columns:   schema's name -> your column's name.
    weight:    share in the mixture; 0 only for a mandatory data set.
    mandatory: at least one sample in every pack.
    shuffle:   another order in every epoch; false keeps the order of the files.
    max_rows:  use only the first rows.
    vae, vit:  resize rules in place of the model's.
    options:   of the recipe; see docs/data.md.
    split, config_name: of a Hugging Face data set.
    """

    name: str
    recipe: str
    path: tuple[str, ...] = ()
    format: str | None = None
    root: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    weight: float = 1.0
    mandatory: bool = False
    shuffle: bool = True
    max_rows: int | None = None
    vae: Resize = field(default_factory=Resize)
    vit: Resize = field(default_factory=Resize)
    options: Mapping[str, Any] = field(default_factory=dict)
    split: str = "train"
    config_name: str | None = None


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """All data of a run; the defaults are upstream's.

    expected_num_tokens: a pack is closed once it holds so many.
    max_num_tokens: no pack holds more.
    max_num_tokens_per_sample: longer samples are skipped, and counted.
    max_buffer_size: samples that did not fit and wait for the next packs.
    prefer_buffer_before: below so many tokens a pack takes from the buffer first.
    *_dropout: for guidance; only where the recipe allows it.
    timestep_shift: of training; None is the model's own.
    timestep_spread: deviation of the normal draws behind noise levels: below 1 more of them lie near the middle, which
      the shift moves.
    ce_loss_reweighting: a text's labels weigh 1 / sqrt(their number) each.
    workers: processes per rank that read and pack; 0 does it in the training process.
    prefetch: packs that each worker keeps ready.
    bad_rows: `skip` counts and reports a row that cannot be used, `stop` ends the run.
    check_rows: rows of every data set that a run reads before it takes a device; 0 for none.
    """

    datasets: tuple[DatasetConfig, ...]
    seed: int = 42
    expected_num_tokens: int = 32768
    max_num_tokens: int = 36864
    max_num_tokens_per_sample: int = 16384
    max_buffer_size: int = 50
    prefer_buffer_before: int = 16384
    text_dropout: float = 0.1
    vit_dropout: float = 0.3
    vae_dropout: float = 0.3
    timestep_shift: float | None = None
    timestep_spread: float = 1.0
    ce_loss_reweighting: bool = False
    workers: int = 4
    prefetch: int = 2
    bad_rows: str = "skip"
    check_rows: int = 8

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> DataConfig:
        """Raises InputError for an unknown key (naming the nearest), a wrong type or an impossible value."""
        config = build(cls, data, "data")
        _check_budget(config)
        names = [dataset.name for dataset in config.datasets]
        for dataset in config.datasets:
            if names.count(dataset.name) > 1:
                raise InputError(f"two data sets are called {dataset.name!r}; give each its own name.")
            _check_dataset(dataset)
        return config


def _check_budget(config: DataConfig) -> None:
    if not config.datasets:
        raise InputError("data.datasets is empty; name at least one data set.")
    if not config.expected_num_tokens <= config.max_num_tokens:
        raise InputError(
            f"data.expected_num_tokens {config.expected_num_tokens} is above data.max_num_tokens "
            f"{config.max_num_tokens}; lower it."
        )
    if config.max_num_tokens_per_sample > config.max_num_tokens:
        raise InputError(
            f"data.max_num_tokens_per_sample {config.max_num_tokens_per_sample} is above data.max_num_tokens "
            f"{config.max_num_tokens}; such a sample would fit no pack: lower it."
        )
    for name in ("text_dropout", "vit_dropout", "vae_dropout"):
        if not 0 <= getattr(config, name) <= 1:
            raise InputError(f"data.{name} is {getattr(config, name)}; it must lie between 0 and 1.")
    for name in ("expected_num_tokens", "max_num_tokens_per_sample", "prefetch"):
        if getattr(config, name) < 1:
            raise InputError(f"data.{name} is {getattr(config, name)}; it must be at least 1.")
    for name in ("workers", "max_buffer_size", "prefer_buffer_before", "check_rows"):
        if getattr(config, name) < 0:
            raise InputError(f"data.{name} is {getattr(config, name)}; it must be at least 0.")
    if config.timestep_shift is not None and config.timestep_shift <= 0:
        raise InputError(f"data.timestep_shift is {config.timestep_shift}; it must be above 0.")
    if config.timestep_spread <= 0:
        raise InputError(f"data.timestep_spread is {config.timestep_spread}; it must be above 0.")
    choose(config.bad_rows, ("skip", "stop"), "data.bad_rows")


def _check_dataset(dataset: DatasetConfig) -> None:
    where = f"data set {dataset.name!r}"
    if dataset.recipe in WITHOUT_FILES:
        if dataset.path or dataset.format or dataset.columns:
            raise InputError(
                f"{where}: the recipe {dataset.recipe} reads no files; leave out path, format and columns."
            )
    elif not dataset.path:
        raise InputError(f"{where}: path is empty; name a file, a folder or a URL.")
    if dataset.weight < 0 or (dataset.weight == 0 and not dataset.mandatory):
        raise InputError(f"{where}: weight {dataset.weight} would never be drawn; use a weight above 0.")
    if dataset.max_rows is not None and dataset.max_rows < 1:
        raise InputError(f"{where}: max_rows is {dataset.max_rows}; it must be at least 1.")
    if dataset.format is not None:
        choose(dataset.format, FORMATS, f"{where}: format")


def choose(value: str, allowed: Sequence[str], where: str) -> str:
    """`value` if it is allowed, else an InputError that names the nearest."""
    if value not in allowed:
        raise InputError(f"{where}: {value!r} is not known{nearest(value, allowed)}")
    return value


def nearest(word: str, known: Sequence[str]) -> str:
    """The end of an error message about an unknown word."""
    if not known:
        return "; there is nothing to set here, leave it out."
    close = difflib.get_close_matches(str(word), known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; use one of {', '.join(known)}."


def build(cls: type[T], data: Any, where: str) -> T:
    """A dataclass from a mapping of plain values, with the keys and types checked."""
    if not isinstance(data, Mapping):
        raise InputError(f"{where} is {_shown(data)}; it must be a mapping of keys to values.")
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in data:
        if key not in fields:
            raise InputError(f"{where}: the key {key!r} is not known{nearest(key, list(fields))}")
    for name, declared in fields.items():
        absent = name not in data and declared.default is declared.default_factory is dataclasses.MISSING
        if absent:
            raise InputError(f"{where}: the key {name!r} is missing; add it.")
    hints = get_type_hints(cls)
    return cls(**{key: _convert(hints[key], value, f"{where}.{key}") for key, value in data.items()})


def _convert(hint: Any, value: Any, where: str) -> Any:
    if hint == tuple[DatasetConfig, ...]:
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise InputError(f"{where} is {_shown(value)}; it must be a list.")
        return tuple(build(DatasetConfig, item, f"{where}[{i}]") for i, item in enumerate(value))
    if hint == tuple[str, ...]:
        items = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, Sequence) else (value,)
        return tuple(_check(str, item, where) for item in items)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return build(hint, value, where)
    if hint in (Mapping[str, str], Mapping[str, Any]):
        return dict(_check(dict, value, where))
    if value is None and type(None) in getattr(hint, "__args__", ()):
        return None
    plain = next((t for t in getattr(hint, "__args__", (hint,)) if t is not type(None)), hint)
    return _check(plain, value, where)


def _check(kind: type, value: Any, where: str) -> Any:
    """`value` if it is of that kind; whole numbers do as floats, truth values never as numbers."""
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise InputError(f"{where} is {_shown(value)}; it must be {_NAMES.get(kind, kind.__name__)}.")
    return value


_NAMES = {
    int: "a whole number", float: "a number", str: "a text", bool: "true or false", dict: "a mapping"
}  # fmt: skip


def _shown(value: Any) -> str:
    return f"{value!r}"[:80]
