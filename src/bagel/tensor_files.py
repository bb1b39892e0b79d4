"""Files of tensors, as loading sees them, and the plainest kind: safetensors, memory-mapped, one file or the shards
of an index. Nothing is unpickled."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from bagel.errors import CheckpointError

SINGLE = ("ema.safetensors", "model.safetensors")
"""Names of a file with all weights, the preferred one first."""


def write_tensors(tensors: Mapping[str, Tensor], path: Path, about: Mapping[str, str] | None = None) -> None:
    """A safetensors file that may be read by whom other new files may: the library from 0.8 on leaves its own to their
    owner alone, so that a server under another account could not load what was trained or packed here. Raises OSError
    or SafetensorError."""
    path.touch()
    mode = path.stat().st_mode
    save_file(dict(tensors), path, {"format": "pt", **(about or {})})
    path.chmod(mode)


class Tensors(Protocol):
    """Tensors by name, whatever they are stored as."""

    def __iter__(self) -> Iterator[str]: ...

    def shape(self, name: str) -> tuple[int, ...]: ...

    def dtype(self, name: str) -> str:
        """BF16, F32, I8...: what a read gives, as safetensors spells it."""

    def size(self, name: str) -> int:
        """Bytes in the file."""

    def read(self, name: str) -> Tensor:
        """The whole tensor, on the CPU."""

    def parts(self, name: str, device: torch.device) -> Iterator[Tensor]:
        """The tensor, cut along its first axis. What has to be decoded is decoded on the device, a part at a time,
        so that little lies there besides; what has not may lie on the CPU."""


class TensorFiles:
    """The tensors of one or several safetensors files, memory-mapped. about: what their headers say besides."""

    def __init__(self, paths: list[Path]) -> None:
        self.about: dict[str, str] = {}
        self._where: dict[str, Any] = {}
        for path in paths:
            try:
                handle = safe_open(path, framework="pt", device="cpu")
                self.about.update(handle.metadata() or {})
            except FileNotFoundError:  # also for one that is there and may not be read
                if path.exists():
                    raise CheckpointError(f"{path} may not be read; give yourself the right to (chmod u+r).") from None
                raise CheckpointError(f"{path.parent} has no {path.name}; copy or download it again.") from None
            except (SafetensorError, OSError) as error:
                raise CheckpointError(
                    f"{path} is truncated or no safetensors file ({error}); copy or download it again."
                ) from None
            self._where.update(dict.fromkeys(handle.keys(), handle))

    @classmethod
    def of_model(cls, folder: Path) -> TensorFiles:
        """`ema.safetensors` if there, else `model.safetensors`, else the shards of an index whose files exist."""
        for name in SINGLE:
            if (folder / name).exists():
                return cls([folder / name])
        indexes = sorted(folder.glob("*.safetensors.index.json"))
        for index in indexes:
            shards, absent = _shards(index)
            if not absent:
                return cls(shards)
        if indexes:
            raise CheckpointError(
                f"{indexes[0]} names {shortened(_shards(indexes[0])[1])}, not there; copy or download the shards again."
            )
        raise CheckpointError(
            f"{folder} has no weights: {', '.join(SINGLE)} or *.safetensors.index.json; copy or download them again."
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._where[name].get_slice(name).get_shape())

    def dtype(self, name: str) -> str:
        """As the file's header spells it: BF16, F32, I8..."""
        return str(self._where[name].get_slice(name).get_dtype())

    def size(self, name: str) -> int:
        value = self.read(name)  # mapped, not read
        return value.numel() * value.element_size()

    def read(self, name: str) -> Tensor:
        return self._where[name].get_tensor(name)

    def parts(self, name: str, device: torch.device) -> Iterator[Tensor]:
        yield self.read(name)


def _shards(index: Path) -> tuple[list[Path], list[str]]:
    """The files that an index names, and which of them are not there."""
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8-sig"))["weight_map"].values()))
        outside = [name for name in names if Path(name).name != name or name == ".."]
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{index} is no index of shards ({error!r}); copy it again.") from None
    if outside:
        raise CheckpointError(f"{index} names {shortened(outside)}, outside its folder; copy it again.")
    return [index.parent / name for name in names], [n for n in names if not (index.parent / n).is_file()]


def shortened(names: Sequence[str], most: int = 6) -> str:
    """The first few names, and how many more there are."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + rest
