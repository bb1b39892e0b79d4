"""Commands in a table: a name, and a function whose parameters are the words that it takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial


def call_of(commands: Mapping[str, Callable[..., None]], arguments: Sequence[str]) -> Callable[[], None] | None:
    """The command that is named first, with the words behind its name; None where there is no such command, or it takes
    fewer words, or more."""
    name, *words = arguments or [""]
    command = commands.get(name)
    if command is None:
        return None
    try:
        inspect.signature(command).bind(*words)
    except TypeError:
        return None
    return partial(command, *words)
