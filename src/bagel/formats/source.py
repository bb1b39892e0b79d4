"""Which files of weights a folder has, or a path means."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from bagel.errors import CheckpointError
from bagel.formats.coded import CodedFiles, is_beside
from bagel.formats.gguf import GgufFile
from bagel.tensor_files import SINGLE, TensorFiles, Tensors, shortened

ENDINGS = (".safetensors", ".gguf")
_WRAPPED = ("model.diffusion_model.", "diffusion_model.")
"""What ComfyUI writes before the names of a model's tensors."""
_AUTOENCODER = re.compile(r"(^|[^a-z])(ae|vae)([^a-z]|$)")


def home(path: Path) -> Path:
    """The folder with the configuration and the tokenizer of a folder, or of a file in one."""
    return path if path.is_dir() or path.suffix not in ENDINGS else path.parent


def open_weights(path: Path) -> Tensors:
    """The model's weights: of a file, or of a folder: `ema.safetensors`, `model.safetensors`, an index and its
    shards, or else the one safetensors or GGUF file that is no autoencoder's. Raises CheckpointError."""
    if path != home(path):
        return _opened(path)
    if any((path / name).exists() for name in SINGLE) or any(path.glob("*.safetensors.index.json")):
        return _decoded(TensorFiles.of_model(path), path)
    found = [one for one in _files(path) if not _AUTOENCODER.search(one.name.lower())]
    if len(found) > 1:
        raise CheckpointError(
            f"{path} has several files of weights ({shortened([one.name for one in found])}); give the path of one."
        )
    return _opened(found[0]) if found else TensorFiles.of_model(path)  # which says what is missing


def open_autoencoder(path: Path, usual: str) -> Tensors:
    """The autoencoder's weights, in the file of the usual name, or else in the one whose name says vae or ae."""
    folder = home(path)
    if (folder / usual).exists():
        return TensorFiles([folder / usual])
    found = [one for one in _files(folder) if one != path and _AUTOENCODER.search(one.name.lower())]
    return _opened(found[0]) if len(found) == 1 else TensorFiles([folder / usual])


def _files(folder: Path) -> list[Path]:
    return sorted(one for one in folder.iterdir() if one.suffix in ENDINGS and one.is_file())


def _opened(path: Path) -> Tensors:
    return _unwrapped(GgufFile(path)) if path.suffix == ".gguf" else _decoded(TensorFiles([path]), path)


def _decoded(files: TensorFiles, path: Path) -> Tensors:
    return _unwrapped(CodedFiles(files, path) if any(map(is_beside, files)) else files)


def _unwrapped(files: Tensors) -> Tensors:
    names = list(files)
    prefix = next((one for one in _WRAPPED if names and all(name.startswith(one) for name in names)), None)
    return Unwrapped(files, prefix) if prefix else files


class Unwrapped:
    """Tensors without the prefix that all their names have."""

    def __init__(self, files: Tensors, prefix: str) -> None:
        self._files, self._prefix = files, prefix

    def __iter__(self) -> Iterator[str]:
        return (name.removeprefix(self._prefix) for name in self._files)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._files.shape(self._prefix + name)

    def dtype(self, name: str) -> str:
        return self._files.dtype(self._prefix + name)

    def size(self, name: str) -> int:
        return self._files.size(self._prefix + name)

    def read(self, name: str) -> Tensor:
        return self._files.read(self._prefix + name)

    def parts(self, name: str, device: torch.device) -> Iterator[Tensor]:
        return self._files.parts(self._prefix + name, device)
