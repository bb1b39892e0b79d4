"""Command-line flags made from the options classes, so that a knob is written once."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, TypeVar, get_type_hints

from cyclopts import Group, Parameter

from bagel.options import ImageOptions, TextOptions

T = TypeVar("T", ImageOptions, TextOptions)


def flags_of(cls: type[T], title: str) -> Any:
    """A parameter type for a command: one flag per field of `cls`, with its help; its value is a `cls`."""
    hints = get_type_hints(cls)
    group = Group(title)
    fields = [
        (f.name, Annotated[hints[f.name], Parameter(help=_help(f), group=group)], dataclasses.field(default=None))
        for f in dataclasses.fields(cls)
        if f.name != "noise"
    ]
    made = dataclasses.make_dataclass(f"{cls.__name__}Flags", fields, kw_only=True, frozen=True)
    made.__module__ = __name__  # cyclopts takes a class of module `types` for a built-in one without fields
    return Annotated[made, Parameter(name="*", group=group)]


def options_from(cls: type[T], flags: Any) -> T:
    return cls(**dataclasses.asdict(flags)) if flags is not None else cls()


def _help(field: dataclasses.Field[Any]) -> str:
    choices = field.metadata.get("choices")
    return field.metadata["help"] + (f" One of: {', '.join(choices)}." if choices else "")
