"""Json files as configuration classes: each value checked against its field, each error naming file and key."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from bagel.errors import CheckpointError

T = TypeVar("T")

_ANY_SIGN = {"shift_factor"}
"""Numbers that may be 0 or less; every other number of a configuration is a size, a rate or a scale."""


def read_json(path: Path, required: bool = True) -> dict[str, Any]:
    """The object in a json file; {} where it may be missing and is. Raises CheckpointError."""
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        if not required:
            return {}
        raise CheckpointError(
            f"{path.parent} has no {path.name}; a BAGEL folder holds llm_config.json, vit_config.json, "
            "ema.safetensors, ae.safetensors and the tokenizer's files."
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON ({error}); copy the file again.") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} holds a {type(data).__name__}, not an object; copy the file again.")
    return data


def build(cls: type[T], data: Mapping[str, Any], path: Path) -> T:
    """An instance from the keys it knows; files of other makers carry many more. Raises CheckpointError."""
    declared = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    values = {key: value for key, value in data.items() if key in declared and value is not None}
    missing = [
        name
        for name, f in declared.items()
        if name not in values and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise CheckpointError(f"{path} does not say {', '.join(missing)}; add it from the original model.")
    try:
        return cls(**{key: _checked(str(declared[key].type), key, value) for key, value in values.items()})
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}.") from None


def _checked(declared: str, key: str, value: Any) -> Any:
    """A value of a json file as its field's type. Raises ValueError."""
    if declared in ("int", "float"):
        return _number(declared, key, value)
    if declared.startswith("tuple"):
        if not isinstance(value, (list, tuple)) or not value:
            raise ValueError(f"{key} is {value!r}; it must be a list of numbers")
        return tuple(_number("int", key, item) for item in value)
    wanted: dict[str, tuple[type, str]] = {"bool": (bool, "true or false"), "str": (str, "a string")}
    if declared in wanted and not isinstance(value, wanted[declared][0]):
        raise ValueError(f"{key} is {value!r}; it must be {wanted[declared][1]}")
    return value


def _number(declared: str, key: str, value: Any) -> int | float:
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < math.inf
    if number and (value > 0 or key in _ANY_SIGN) and (declared == "float" or value == int(value)):
        return value if declared == "float" else int(value)
    kind = "whole number" if declared == "int" else "number"
    raise ValueError(f"{key} is {value!r}; it must be a {'' if key in _ANY_SIGN else 'positive '}{kind}")
