"""The command that does many things: run, by a script of turns or a file of requests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cyclopts import App

from bagel.app.model_flags import Model, ModelFlags
from bagel.app.words import CallError, Json, Out, Whole
from bagel.errors import InputError


def register(app: App) -> None:
    """Adds the command to the command line."""
    app.command(run)


def run(
    script: Path | None = None,
    *,
    batch: Path | None = None,
    active: Whole = 16,
    workers: Whole | None = None,
    out: Out = Path("out"),
    json: Json = False,
    model: Model | None = None,
) -> None:
    """Run a script of turns, text and pictures in and out: bagel run story.json -o story

    Or many requests of a file, going on where a run was stopped: bagel run --batch prompts.jsonl -o pictures

    Parameters
    ----------
    script:
        JSON, a list of turns: {"text": ...}, {"image": PATH}, {"draw": {...}}, {"say": {...}}, {"continue": {...}}.
    batch:
        Instead of a script, a file with a JSON object a line: {"job": "draw", "prompt": ..., "seed": ...}; jobs are
        draw, edit (with "images": [PATH]) and chat.
    active:
        Requests of a batch at a time, on each copy of the model.
    workers:
        Copies of the model for a batch, each in a process and on GPUs of its own, through Ray; RAY_ADDRESS names a
        cluster. If not given, one in this process.
    out:
        Folder for the pictures, texts and transcript.json, or results.jsonl of a batch.
    json:
        The transcript as one JSON object on stdout.
    """
    from bagel.app import show
    from bagel.app.script import load_script, run_script

    if (script is None) == (batch is None):
        raise CallError("give a script, or --batch with a file of requests.")
    if batch is not None:
        return _run_batch(batch, out, active, workers, model or ModelFlags())
    if workers is not None:
        raise CallError("--workers is for a --batch.")
    assert script is not None
    source = model or ModelFlags()
    turns = load_script(script, source.config())
    folder = show.check_folder(out)
    bagel = source.load()
    with show.working() as progress:
        transcript = run_script(bagel, turns, script.parent, folder, progress)
    show.print_json(transcript) if json else print(folder / "transcript.json")
    return None


def _run_batch(batch: Path, out: Path, active: int, workers: int | None, source: ModelFlags) -> None:
    from bagel.app import show
    from bagel.app.batch import read_lines, run_batch

    if active < 1 or (workers is not None and workers < 1):
        raise InputError(f"active is {active}, workers {workers}; they must be at least 1.")
    read_lines(batch)
    folder = show.check_folder(out)
    bagel = None if workers else source.load()
    with show.progress_bar() as bar:
        task = bar.add_task("requests", total=None)

        def progress(count: int, total: int) -> None:
            bar.update(task, completed=count, total=total)

        if bagel is None:
            done = _on_workers(batch, folder, active, workers or 1, source, progress)
        else:
            done = run_batch(bagel, batch, folder, active=active, progress=progress)
    print(done)


def _on_workers(
    batch: Path, folder: Path, active: int, count: int, source: ModelFlags, progress: Callable[[int, int], None]
) -> Path:
    from bagel.app.replicas.setup import check_installed

    check_installed()
    from bagel.app.replicas.batch import Workers, run_batch_on_workers

    source.config()
    workers = Workers(count=count, active=active)
    return run_batch_on_workers(source.arguments(), batch, folder, workers, progress=progress)
