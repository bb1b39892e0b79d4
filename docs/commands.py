"""Writes docs/cli.md from the command line's own help: `python docs/commands.py`."""

from __future__ import annotations

import re
from pathlib import Path

from bagel.app.cli import app

PAGE = Path(__file__).parent / "cli.md"
HEAD = """\
# Commands

Written by `python docs/commands.py` from what `bagel COMMAND --help` says; a test fails when it is stale.

Results go to stdout; progress and messages go to stderr. Exit codes: 0; 1 with one line that names the value,
the limit and the remedy; 2 for a wrong call; 130 for Ctrl-C. A file is written whole or not at all. A flag of
the group *Drawing* or *Writing* that is not given takes the preset of its job ([python.md](python.md#options)).
"""


def reference() -> str:
    """The page. Cyclopts renders the commands; its title and its two lists of commands give way to ours."""
    rendered = app.generate_docs(output_format="markdown")
    sections = re.split(r"(?m)^## (?=bagel )", rendered)[1:]
    listed = "\n".join(f"- [{name}](#{name.replace(' ', '-')})" for name in (s.split("\n", 1)[0] for s in sections))
    body = "\n\n".join(f"## {section.strip()}" for section in sections)
    return f"{HEAD}\n{listed}\n\n{body}\n"


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
