"""Command-line flags made from the options classes, so that a knob is written once."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar, get_type_hints

from cyclopts import Group, Parameter, Token

from bagel.options import PRESETS, ImageOptions, TextOptions

T = TypeVar("T", ImageOptions, TextOptions)
FLAT = Parameter(name="*")
"""For a class whose fields are flags of a command."""


def flags_of(cls: type[T], job: str, title: str) -> Any:
    """A parameter type for the command of a job: one flag per field of `cls`, with its help and the job's
    preset; its value is a `cls`."""
    hints = get_type_hints(cls)
    group = Group(title)
    fields = [
        (f.name, Annotated[hints[f.name], _flag(f, hints[f.name], job, group)], dataclasses.field(default=None))
        for f in dataclasses.fields(cls)
        if f.name != "noise"
    ]
    made = dataclasses.make_dataclass(f"{job.title()}Flags", fields, kw_only=True, frozen=True)
    made.__module__ = __name__  # cyclopts takes a class of module `types` for a built-in one without fields
    return Annotated[made, Parameter(name="*", group=group)]


def whole_number(type_: Any, tokens: Sequence[Token]) -> int:
    """cyclopts itself would round 1.5 to 2."""
    try:
        return int(tokens[0].value)
    except ValueError:
        raise ValueError(f"{tokens[0].value!r} is no whole number.") from None


def options_from(cls: type[T], flags: Any) -> T:
    return cls(**dataclasses.asdict(flags)) if flags is not None else cls()


def _flag(field: dataclasses.Field[Any], hint: Any, job: str, group: Group) -> Parameter:
    return Parameter(
        help=_help(field, PRESETS[job].get(field.name)),
        group=group,
        converter=whole_number if hint == int | None else None,
    )


def _help(field: dataclasses.Field[Any], preset: Any) -> str:
    choices = field.metadata.get("choices")
    text = field.metadata["help"] + (f" One of: {', '.join(choices)}." if choices else "")
    if preset is None or isinstance(preset, bool):
        return text
    return f"{text} Default: {' '.join(map(str, preset)) if isinstance(preset, tuple) else preset}."
