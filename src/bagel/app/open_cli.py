"""The commands that show the model to people and programs: demo, serve, ui."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App

from bagel.app.knobs import FLAT
from bagel.app.model_flags import Model, ModelFlags
from bagel.app.serve_flags import ServeFlags
from bagel.app.words import Out, Whole
from bagel.errors import InputError

if TYPE_CHECKING:
    from bagel.app.server.settings import Settings


def register(app: App) -> None:
    """Adds the commands to the command line."""
    app.command(demo)
    app.command(serve)
    app.command(ui)


def demo(*, out: Out = Path("out"), model: Model | None = None) -> None:
    """Draw, edit, answer, think, predict and navigate with the embedded model; a checker judges, a sheet shows it all.

    Parameters
    ----------
    out:
        Folder for the pictures and the sheet.
    """
    from bagel.app import show
    from bagel.app.demo import run_demo

    folder, source = show.check_folder(out), model or ModelFlags()
    print(run_demo(source.load(), folder))


def serve(
    *,
    flags: Annotated[ServeFlags, FLAT] | None = None,
    model: Model | None = None,
) -> None:
    """Serve the model as an OpenAI-compatible API, until Ctrl-C: bagel serve --port 8000"""
    chosen, source = flags or ServeFlags(), model or ModelFlags()
    try:
        from bagel.app.server.serve import serve as run_server
    except ModuleNotFoundError as error:
        raise InputError(f"the server needs {error.name}; pip install 'bagel-mot[serve]'.") from None
    settings = chosen.settings(source.model)
    if chosen.replicas is not None:
        return _serve_replicas(chosen, settings, source)
    run_server(source.load(), settings, host=chosen.host, port=chosen.port, threads=chosen.threads)
    return None


def _serve_replicas(flags: ServeFlags, settings: Settings, source: ModelFlags) -> None:
    from bagel.app import show
    from bagel.app.replicas.setup import check_installed

    check_installed()
    from bagel.app.replicas.launch import serve_replicas

    assert flags.replicas is not None
    source.config()
    with show.progress_bar() as bar:
        task = bar.add_task("replicas", total=flags.replicas)

        serve_replicas(
            source.arguments(),
            settings,
            flags.replicas,
            host=flags.host,
            port=flags.port,
            threads=flags.threads,
            report=lambda ready, total: bar.update(task, completed=ready, total=total),
            started=bar.stop,
        )


def ui(
    *,
    host: str = "127.0.0.1",
    port: Whole = 7860,
    out: Out = Path("out"),
    model: Model | None = None,
) -> None:
    """Open the page in the browser: draw, edit, ask, converse: bagel ui

    Parameters
    ----------
    host:
        Address to listen on; 0.0.0.0 lets other machines in.
    port:
        Port to listen on.
    out:
        Folder for the pictures made; each carries its settings.
    """
    from bagel.app import show
    from bagel.app.ui.app import Place, serve

    source = model or ModelFlags()
    place = Place(host, port, show.check_folder(out))
    serve(source.model, source.config(), source.load_telling, place)
