"""Files, local or behind an fsspec URL (`s3://`, `gs://`, `hf://`, `https://`), and optional packages."""

from __future__ import annotations

import glob
import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, cast

from bagel.errors import InputError


def need(module: str, why: str, package: str | None = None) -> ModuleType:
    """Imports an optional package, or says how to get it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f"{why} needs the package {package or module} ({error}); install it with `pip install 'bagel-mot[train]'`."
        ) from None


def is_url(path: str) -> bool:
    return "://" in path


def join(root: str, path: str) -> str:
    """`path` below `root`; an absolute path or a URL stays as it is."""
    if not root or is_url(path) or os.path.isabs(path):  # noqa: PTH117 - a URL has no pathlib.Path
        return path
    return f"{root.rstrip('/')}/{path}"


def parent(path: str) -> str:
    return path.rsplit("/", 1)[0] if "/" in path else ""


def open_binary(path: str) -> BinaryIO:
    """Opens for random reading. Raises InputError for a file that is missing or cannot be read."""
    try:
        if not is_url(path):
            return Path(path).open("rb")  # the caller closes it
        fsspec = need("fsspec", f"reading {path}")
        return cast(BinaryIO, fsspec.open(path, "rb").open())
    except ImportError as error:
        raise InputError(f"{path}: {error}; install the package that fsspec asks for.") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be opened ({_reason(error)}); check the path.") from None


def read_bytes(path: str) -> bytes:
    with open_binary(path) as file:
        return file.read()


def is_folder(path: str) -> bool:
    if not is_url(path):
        return Path(path).is_dir()
    file_system, inner = _file_system(path)
    return bool(file_system.isdir(inner))


def expand(paths: str | Sequence[str], suffixes: tuple[str, ...]) -> list[str]:
    """Files, folders (all files below with one of the suffixes) and glob patterns -> sorted files.

    Raises InputError for an entry that names no file.
    """
    found: list[str] = []
    for path in [paths] if isinstance(paths, str) else paths:
        matches = sorted(_matches(path, suffixes))
        if not matches:
            raise InputError(
                f"{path} names no file (a folder must hold files ending in {', '.join(suffixes)}); check the path."
            )
        found += matches
    return found


def _matches(path: str, suffixes: tuple[str, ...]) -> list[str]:
    if is_url(path):
        return _url_matches(path, suffixes)
    if Path(path).is_dir():
        return [str(file) for file in Path(path).rglob("*") if file.name.endswith(suffixes)]
    if Path(path).is_file():
        return [path]
    return [match for match in glob.glob(path, recursive=True) if Path(match).is_file()]  # noqa: PTH207


def _url_matches(path: str, suffixes: tuple[str, ...]) -> list[str]:
    file_system, inner = _file_system(path)
    try:
        if any(mark in inner for mark in "*?["):
            names = file_system.glob(inner)
        elif file_system.isdir(inner):
            names = [name for name in file_system.find(inner) if name.endswith(suffixes)]
        else:
            return [path] if file_system.exists(inner) else []
    except OSError as error:
        raise InputError(f"{path} cannot be listed ({_reason(error)}); check the URL.") from None
    return [str(file_system.unstrip_protocol(name)) for name in names]


def _file_system(path: str) -> tuple[Any, str]:
    fsspec = need("fsspec", f"reading {path}")
    try:
        return cast("tuple[Any, str]", fsspec.core.url_to_fs(path))
    except (ImportError, ValueError) as error:
        raise InputError(f"{path}: {error}.") from None


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error or type(error).__name__)
