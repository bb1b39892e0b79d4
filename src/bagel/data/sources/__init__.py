"""Where rows come from: parquet, JSONL, tar shards, pictures with texts, Hugging Face data sets; local or at a URL."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from bagel.data.config import SUFFIXES, WITHOUT_FILES, DatasetConfig
from bagel.data.files import expand
from bagel.data.sources.base import FILES, Row, Rows, Source
from bagel.data.sources.hub import HubSource
from bagel.data.sources.jsonl import JsonlSource
from bagel.data.sources.numbers import NumberSource
from bagel.data.sources.parquet import ParquetSource
from bagel.data.sources.pictures import SUFFIXES as PICTURES
from bagel.data.sources.pictures import PictureSource
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
    if kind == "pictures":
        return PictureSource(config.path)
    if len(config.path) > 1:
        raise InputError("a Hugging Face data set takes one path; make them several data sets.")
    return HubSource(config.path[0], config.split, config.config_name)


def _guess(paths: tuple[str, ...]) -> str:
    """The format, from the files' endings."""
    first = paths[0]
    if (Path(first) / "state.json").exists() or (Path(first) / "dataset_dict.json").exists():
        return "hf"
    kinds = {kind for path in paths for kind in _kinds(path)}
    if len(kinds) != 1:
        raise InputError(
            f"{', '.join(paths)} holds {' and '.join(sorted(kinds)) or 'no known'} files; say `format:` and name "
            "the files of one kind."
        )
    return kinds.pop()


def _kinds(path: str) -> set[str]:
    """Formats of the files that a path names. The pictures of a folder belong to its table, where it has one."""
    for suffixes in (tuple(SUFFIXES), PICTURES):
        with suppress(InputError):
            files = expand(path, suffixes)
            found = {kind for file in files for suffix, kind in SUFFIXES.items() if file.endswith(suffix)}
            return found or ({"pictures"} if all(file.endswith(PICTURES) for file in files) else set())
    raise InputError(
        f"{path} names no parquet, jsonl or tar file, and no pictures; check the path, or say `format: hf` for a data "
        "set of the Hugging Face hub."
    )
