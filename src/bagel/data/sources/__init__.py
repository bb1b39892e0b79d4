"""Where rows come from: parquet, JSONL, tar shards, Hugging Face data sets; local or behind a URL."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from bagel.data.config import SUFFIXES, WITHOUT_FILES, DatasetConfig
from bagel.data.files import expand
from bagel.data.sources.base import FILES, Row, Rows, Source
from bagel.data.sources.hub import HubSource
from bagel.data.sources.jsonl import JsonlSource
from bagel.data.sources.numbers import NumberSource
from bagel.data.sources.parquet import ParquetSource
from bagel.data.sources.tar import TarSource
from bagel.errors import InputError

__all__ = ["FILES", "Row", "Rows", "Source", "open_source"]


def open_source(config: DatasetConfig, wanted: Collection[str]) -> Source:
    """Finds the files and counts the rows. `wanted`: columns that the recipe may read.

    Raises InputError for what is missing, unreadable or empty, with the data set's name.
    """
    try:
        source = _open(config, wanted)
        if not sum(source.block_sizes):
            raise InputError(f"{', '.join(config.path)} holds no rows; check the path.")
    except InputError as error:
        raise InputError(f"data set {config.name!r}: {error}") from None
    return source


def _open(config: DatasetConfig, wanted: Collection[str]) -> Source:
    if config.recipe in WITHOUT_FILES:
        return NumberSource()
    kind = config.format or _guess(config.path)
    if kind == "parquet":
        return ParquetSource(config.path, wanted)
    if kind == "tar":
        return TarSource(config.path)
    if kind == "jsonl":
        return JsonlSource(config.path)
    if len(config.path) > 1:
        raise InputError("a Hugging Face data set takes one path; make them several data sets.")
    return HubSource(config.path[0], config.split, config.config_name)


def _guess(paths: tuple[str, ...]) -> str:
    """The format, from the files' endings."""
    first = paths[0]
    if (Path(first) / "state.json").exists() or (Path(first) / "dataset_dict.json").exists():
        return "hf"
    try:
        files = expand(paths, tuple(SUFFIXES))
    except InputError:
        raise InputError(
            f"{', '.join(paths)} names no parquet, jsonl or tar file; check the path, or say `format: hf` for a "
            "data set of the Hugging Face hub."
        ) from None
    kinds = {kind for file in files for suffix, kind in SUFFIXES.items() if file.endswith(suffix)}
    if len(kinds) != 1:
        raise InputError(
            f"{', '.join(paths)} holds {' and '.join(sorted(kinds)) or 'no known'} files; say `format:` and name "
            "the files of one kind."
        )
    return kinds.pop()
