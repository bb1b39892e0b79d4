"""What several commands take from a call: words, files, and the error for a wrong call."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from bagel.app.knobs import whole_number
from bagel.errors import InputError

# "-" is a word here (stdin), so words may begin with a hyphen; `words_of` refuses the ones that look like flags.
Word = Annotated[str, Parameter(allow_leading_hyphen=True)]
Out = Annotated[Path, Parameter(name=["--out", "-o"])]
Json = Annotated[bool, Parameter(name="--json", negative="")]
Whole = Annotated[int, Parameter(converter=whole_number)]
ModelName = Annotated[str, Parameter(name=["--model", "-m"], env_var="BAGEL_MODEL")]


class CallError(Exception):
    """A call that the parser let pass and should not have."""


def words_of(words: Sequence[str]) -> list[str]:
    """What was handed in, with - read from stdin. Raises CallError for a flag that does not exist."""
    for word in words:
        if word.startswith("-") and word != "-" and " " not in word:
            raise CallError(f"unknown option: {word}. (Text that begins with a hyphen can come by stdin: -)")
    return [_stdin() if word == "-" else word for word in words]


def _stdin() -> str:
    from bagel.infer.inputs import Text

    try:
        return Text(sys.stdin.read().strip())
    except UnicodeDecodeError as error:
        raise InputError(f"what stdin gives is no text ({error}); send it as UTF-8.") from None
