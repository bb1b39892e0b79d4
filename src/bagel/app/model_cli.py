"""The commands around a model's folder: info, download."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from bagel.app.model_flags import Model, ModelFlags
from bagel.app.words import Json


def register(app: App) -> None:
    """Adds the commands to the command line."""
    app.command(info)
    app.command(download)


def info(*, json: Json = False, model: Model | None = None) -> None:
    """Say what a model folder holds: sizes, files, numbers of parameters; nothing is loaded.

    Parameters
    ----------
    json:
        One JSON object on stdout.
    """
    from bagel.app import show
    from bagel.app.info import describe, table

    facts = describe((model or ModelFlags()).model)
    show.print_json(facts) if json else print(table(facts))


def download(
    name: str,
    *,
    source: Annotated[Literal["huggingface", "modelscope"], Parameter(name="--from")] = "huggingface",
    to: Path | None = None,
) -> None:
    """Fetch a model from a hub, resuming where it stopped: bagel download ByteDance-Seed/BAGEL-7B-MoT

    Parameters
    ----------
    name:
        The model's name on the hub.
    source:
        The hub.
    to:
        Folder to put it in; models/NAME if not given.
    """
    from bagel.hub import download as fetch

    print(fetch(name, source=source, to=to or Path("models") / name.split("/")[-1]))
