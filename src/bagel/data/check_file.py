"""`bagel data check`: the data of a configuration file against a model's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bagel.data.check import Report, validate
from bagel.data.config import DataConfig
from bagel.errors import InputError
from bagel.model.config import ModelConfig
from bagel.tokens import Tokenizer


def check_file(config: Path, folder: Path, *, rows: int | None = None, sheets: Path | None = None) -> Report:
    """Checks what stands under `data` in a training configuration, or a file of datasets alone. rows: of each data
    set; all if None. sheets: a folder for contact sheets.

    Raises InputError for a file that cannot be read, CheckpointError for a folder that would not load.
    """
    data = DataConfig.from_dict(_data_part(config))
    model, tokenizer = ModelConfig.from_folder(folder), Tokenizer.from_folder(folder)
    return validate(data, model, tokenizer, rows=rows, sheets=sheets)


def _data_part(path: Path) -> dict[str, Any]:
    import yaml

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; check the path of the file.") from None
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{path} is no YAML ({' '.join(str(error).split())}); correct the file.") from None
    data = found.get("data", found) if isinstance(found, dict) else None
    if not isinstance(data, dict):
        raise InputError(f"{path} must hold an object with `data`, or the datasets themselves.")
    return data
