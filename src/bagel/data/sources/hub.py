"""Hugging Face `datasets`: a folder written by `save_to_disk`, or anything that `load_dataset` takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from bagel.data.files import need
from bagel.data.sources.base import Row, Rows, even_blocks
from bagel.errors import InputError

BLOCK = 32


class HubSource:
    """See `Source`. Pictures and videos stay encoded until a recipe asks for them."""

    notes = ()

    def __init__(self, path: str, split: str, config_name: str | None = None) -> None:
        self.files = (path,)
        self._data = _undecoded(_load(path, split, config_name))
        self.columns: tuple[str, ...] | None = tuple(self._data.column_names)
        self.block_sizes = even_blocks(len(self._data), BLOCK)

    def read(self, block: int) -> Rows:
        first = block * BLOCK
        return Rows(self.block_sizes[block], lambda i: self._row(first + i))

    def _row(self, index: int) -> Row:
        try:
            return cast(Row, self._data[index])
        except (OSError, ValueError, RuntimeError) as error:
            raise InputError(f"the row cannot be read ({error})") from None

    def where(self, block: int, index: int) -> str:
        return f"{self.files[0]}, row {block * BLOCK + index}"

    def root(self, block: int) -> str:
        return self.files[0] if Path(self.files[0]).is_dir() else ""


def _load(path: str, split: str, config_name: str | None) -> Any:
    datasets = need("datasets", f"reading {path} as a Hugging Face data set")
    folder = Path(path)
    try:
        if (folder / "dataset_dict.json").exists() or (folder / "state.json").exists():
            data = datasets.load_from_disk(path)
            if isinstance(data, datasets.DatasetDict):
                if split not in data:
                    raise InputError(f"{path} has no split {split!r}; it has {', '.join(data)}.")
                return data[split]
            return data
        return datasets.load_dataset(path, name=config_name, split=split)
    except InputError:
        raise
    except Exception as error:  # the package raises its own kinds and those of what it stands on
        raise InputError(
            f"{path} cannot be loaded as a Hugging Face data set ({error}); check path, split and config_name."
        ) from None


def _undecoded(data: Any) -> Any:
    """Bytes or paths in place of decoded media, one column or a list of them."""
    datasets = need("datasets", "reading a Hugging Face data set")
    media = tuple(getattr(datasets, name) for name in ("Image", "Video") if hasattr(datasets, name))
    for name, feature in data.features.items():
        inner = getattr(feature, "feature", None)
        if isinstance(feature, media):
            data = data.cast_column(name, type(feature)(decode=False))
        elif isinstance(inner, media):
            data = data.cast_column(name, type(feature)(type(inner)(decode=False)))
    return data
