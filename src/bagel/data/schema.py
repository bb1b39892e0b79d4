"""What a row must hold, recipe by recipe (docs/data.md shows each), and how its values are read. Every
refusal is an InputError that names the column; whoever reads the row adds data set and place."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from bagel.data.files import join, read_bytes
from bagel.data.sources import FILES, Row
from bagel.errors import InputError
from bagel.images import open_image


@dataclass(frozen=True, slots=True)
class Column:
    """One column under its official name and the other names it is known by."""

    name: str
    aliases: tuple[str, ...] = ()
    what: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, *self.aliases)

    def theirs(self, renamed: Mapping[str, str]) -> tuple[str, ...]:
        """Its names in the files. Where the user names one, no other is looked for: it would be read in silence."""
        return tuple(renamed[name] for name in self.names if name in renamed) or self.names


@dataclass(frozen=True, slots=True)
class Schema:
    """`forms`: sets of columns of which a row must hold one in full; `optional`: columns that are read where
    present."""

    forms: tuple[tuple[Column, ...], ...]
    optional: tuple[Column, ...] = ()

    @property
    def columns(self) -> tuple[Column, ...]:
        return tuple(dict.fromkeys([*(column for form in self.forms for column in form), *self.optional]))

    def wanted(self, renamed: Mapping[str, str]) -> set[str]:
        """The names in the files that may be read; `renamed`: schema's name -> theirs."""
        return {name for column in self.columns for name in column.theirs(renamed)}

    def check_columns(self, present: Sequence[str], renamed: Mapping[str, str]) -> None:
        """Of a table, whose rows have the same. Raises InputError for a name of the user's that is not there."""
        for theirs in renamed.values():
            if theirs not in present:
                raise InputError(f"columns: there is no {theirs!r}; the row has {', '.join(present)}.")
        self.check_names(present, renamed)

    def check_names(self, present: Sequence[str], renamed: Mapping[str, str]) -> None:
        """Raises InputError unless one form is there."""
        known = {name for column in self.columns for name in column.names}
        for name in renamed:
            if name not in known:
                raise InputError(f"columns: {name!r} is no column of this recipe; it has {', '.join(sorted(known))}.")
        if not any(
            all(any(name in present for name in column.theirs(renamed)) for column in form) for form in self.forms
        ):
            forms = " or ".join(" + ".join(_name(column, renamed) for column in form) for form in self.forms)
            raise InputError(
                f"the row has the columns {', '.join(present)}, but {forms} is needed; name yours under `columns`."
            )


class Reader:
    """Values of one row by the schema's names.

    root: where relative paths start.
    """

    def __init__(self, row: Row, schema: Schema, renamed: Mapping[str, str], root: str) -> None:
        present = [name for name in row if name != FILES and row[name] is not None]
        schema.check_names(present, renamed)
        self._row, self._root = row, root
        self._names = {column.name: column.theirs(renamed) for column in schema.columns}

    def get(self, column: str) -> Any:
        """The value, or None where the row lacks it."""
        for name in self._names[column]:
            value = self._row.get(name)
            if value is not None:
                return value
        return None

    def has(self, column: str) -> bool:
        return self.get(column) is not None

    def picture(self, value: Any, column: str) -> Image.Image:
        """A picture from bytes, {`bytes`, `path`}, a PIL picture, or a path."""
        content = self.media(value, column)
        try:
            return open_image(content)
        except InputError as error:
            name = f"{column} {value}" if isinstance(value, str) else column
            raise InputError(f"{name}: {error}") from None

    def pictures(self, column: str) -> list[Image.Image]:
        """One picture, or a list of them."""
        value = self.get(column)
        return [self.picture(item, column) for item in (value if isinstance(value, list) else [value])]

    def media(self, value: Any, column: str) -> bytes | Image.Image:
        """The content of a picture or video, undecoded."""
        if isinstance(value, Mapping):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, (bytes, Image.Image)):
            return value
        if not isinstance(value, str) or not value:
            raise InputError(f"{column} holds {_shown(value)}; it must be a path or the bytes of a file.")
        members = self._row.get(FILES, {})
        return members[value] if value in members else read_bytes(self.path(value))

    def path(self, value: str) -> str:
        return join(self._root, value)

    def text(self, value: Any, column: str) -> str:
        if not isinstance(value, str):
            raise InputError(f"{column} holds {_shown(value)}; it must be a text.")
        return value

    def choices(self, value: Any, column: str) -> list[str]:
        """Texts of which one is drawn: a text, a list of texts, an object of texts, or one written as JSON
        text (upstream's captions)."""
        if isinstance(value, str) and value.lstrip().startswith("{"):
            try:
                value = json.loads(value)
            except ValueError as error:
                raise InputError(f"{column} is broken JSON ({error}).") from None
        if isinstance(value, Mapping):
            value = [text for text in value.values() if text is not None]
        if isinstance(value, str):
            value = [value]
        if not isinstance(value, Sequence):
            raise InputError(f"{column} holds {_shown(value)}; it must be a text or several.")
        return [self.text(item, column) for item in value]


def _name(column: Column, renamed: Mapping[str, str]) -> str:
    """As an error has it."""
    theirs = column.theirs(renamed)
    return column.name if theirs == column.names else f"{column.name} ({' or '.join(theirs)})"


def _shown(value: Any) -> str:
    text = f"{value!r}"
    return text if len(text) < 60 else f"{text[:57]}..."
