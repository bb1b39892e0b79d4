"""Row -> Sample, one recipe per kind of data; docs/data.md shows the schema of each."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

from bagel.data.config import DatasetConfig, build, choose
from bagel.data.recipes.base import Recipe
from bagel.data.recipes.clips import VIDEO_RECIPE
from bagel.data.recipes.document import DOCUMENT
from bagel.data.recipes.draw import EDIT, T2I
from bagel.data.recipes.talk import TEXT, UNDERSTAND
from bagel.data.recipes.world import WORLD
from bagel.data.sample import Sample
from bagel.data.schema import Reader
from bagel.data.sources import Row
from bagel.errors import InputError

RECIPES: Mapping[str, Recipe] = {
    "t2i": T2I,
    "edit": EDIT,
    "understand": UNDERSTAND,
    "video": VIDEO_RECIPE,
    "document": DOCUMENT,
    "text": TEXT,
    "world": WORLD,
}

__all__ = ["RECIPES", "Cook", "Recipe"]


class Cook:
    """One data set's recipe with its options. Raises InputError for options that it does not have."""

    def __init__(self, config: DatasetConfig) -> None:
        where = f"data set {config.name!r}"
        self._config = config
        self._recipe = RECIPES[choose(config.recipe, tuple(RECIPES), f"{where}: recipe")]
        try:
            self._options: Any = build(self._recipe.options, config.options, "options")
        except InputError as error:
            raise InputError(f"{where}: {error}") from None

    @property
    def wanted(self) -> set[str]:
        """Columns that may be read, under the names that the files give them."""
        return self._recipe.schema.wanted(self._config.columns)

    def check_columns(self, columns: tuple[str, ...] | None) -> None:
        """For sources whose rows all have the same columns."""
        if columns is not None:
            self._recipe.schema.check_columns(columns, self._config.columns)

    def sample(self, row: Row, root: str, name: str, rng: Random) -> Sample:
        """Raises InputError for a row that cannot be used."""
        root = self._config.root if self._config.root is not None else root
        reader = Reader(row, self._recipe.schema, self._config.columns, root)
        sample = Sample(name, tuple(self._recipe.make(reader, self._options, rng)))
        if not sample.has_loss:
            raise InputError("nothing in the row is to be learnt; give a part a loss.")
        return sample
