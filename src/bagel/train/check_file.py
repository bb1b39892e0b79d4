"""`bagel data check`: the data of a configuration file against a model's folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bagel.data.check import Report, validate
from bagel.data.config import DataConfig
from bagel.errors import InputError
from bagel.model.config import ModelConfig
from bagel.tokens import Tokenizer
from bagel.train.yaml_files import read


def check_file(
    config: Path,
    folder: Path,
    overrides: Sequence[str] = (),
    *,
    rows: int | None = None,
    sheets: Path | None = None,
) -> Report:
    """Checks what stands under `data` in a training configuration, read as training reads it (`base` and overrides
    included), or a file of datasets alone. rows: of each data set; all if None. sheets: a folder for contact sheets.

    Raises InputError for a file that cannot be read, CheckpointError for a folder that would not load.
    """
    found = read(config, overrides)
    data = found.get("data", found)
    if not isinstance(data, dict):
        raise InputError(f"{config} must hold an object with `data`, or the datasets themselves.")
    model, tokenizer = ModelConfig.from_folder(folder), Tokenizer.from_folder(folder)
    return validate(DataConfig.from_dict(data), model, tokenizer, rows=rows, sheets=sheets)
