"""PyTorch takes seconds to import, many from a cold disk: who waits at a terminal is told that something goes on."""

from __future__ import annotations

import os
import sys


def import_torch() -> None:
    """Imports it behind a spinner on stderr, which is gone when it is done; nothing is shown where no one watches."""
    if "torch" in sys.modules:
        return
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal or int(os.environ.get("RANK", 0)) > 0:
        return
    with console.status("starting"):
        import torch  # noqa: F401
