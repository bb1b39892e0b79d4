"""Configs as YAML files: one on top of another, `key=value` on top of both."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bagel.errors import InputError


def read(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The file, on top of the one that its `base` names, then `section.key=value` in turn; what the keys mean is not
    checked. Raises InputError."""
    data = _read(path)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise InputError(f"{override!r} is no override; write section.key=value, as in optim.lr=1e-4.")
        _set(data, key, _parse(text, override))
    return data


def _read(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    if path.resolve() in above:
        raise InputError(f"{path} is its own base; take `base` out of one of the files.")
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}; check the path of the config.") from None
    data = _parse(text, str(path)) or {}
    if not isinstance(data, dict):
        raise InputError(f"{path} holds a {type(data).__name__}; a config is a mapping of keys to values.")
    base = data.pop("base", None)
    return data if base is None else _merged(_read(path.parent / base, (*above, path.resolve())), data)


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings are merged key by key, all else is replaced."""
    both = {
        key: _merged(below[key], value) if isinstance(value, Mapping) and isinstance(below.get(key), Mapping) else value
        for key, value in above.items()
    }
    return {**below, **both}


def _parse(text: str, where: str) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """YAML 1.2: 1e-4 is a number, not a text; on and off are texts."""

    Loader.yaml_implicit_resolvers = {
        letter: [(tag, pattern) for tag, pattern in found if not tag.endswith(":bool")]
        for letter, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    number = re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+.0123456789"))
    Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(?i:true|false)$"), list("tTfF"))
    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError as error:
        raise InputError(f"{where} is no valid YAML: {error}") from None


def _set(data: dict[str, Any], key: str, value: Any) -> None:
    """`data.datasets.0.path`: a number steps into a list."""
    *parents, last = key.split(".")
    at: Any = data
    for name in parents:
        at = at[_index(at, name, key)] if isinstance(at, list) else at.setdefault(name, {})
        if not isinstance(at, (dict, list)):
            raise InputError(f"{key}: {name!r} holds {at!r}, not further keys.")
    if isinstance(at, list):
        at[_index(at, last, key)] = value
    else:
        at[last] = value


def _index(items: Sequence[Any], name: str, key: str) -> int:
    if not name.isdigit() or int(name) >= len(items):
        raise InputError(f"{key}: {name!r} is no place in a list of {len(items)}; count from 0.")
    return int(name)


def flat(data: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Values by their dotted keys, as overrides name them: data.datasets.0.path."""
    found: dict[str, Any] = {}
    for key, value in data.items():
        inner: Any = dict(enumerate(value)) if isinstance(value, (list, tuple)) and _holds_keys(value) else value
        if isinstance(inner, Mapping):
            found |= flat(inner, f"{above}{key}.")
        else:
            found[f"{above}{key}"] = value
    return found


def _holds_keys(items: Sequence[Any]) -> bool:
    return any(isinstance(item, Mapping) for item in items)


def plain(value: Any) -> Any:
    """Dataclasses as mappings, tuples as lists."""
    if dataclasses.is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value
