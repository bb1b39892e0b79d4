"""What the command line shows: progress with time left on stderr, results on stdout, files written whole."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from bagel.errors import InputError
from bagel.infer.image import ImageStep
from bagel.infer.result import Result
from bagel.infer.text import TextPiece
from bagel.version import __version__

console = Console(stderr=True)
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


def progress_bar(unit: ProgressColumn | None = None) -> Progress:
    """A bar on stderr with time passed and time left, gone when it is done; nothing where no one watches."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        unit or MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal or int(os.environ.get("RANK", 0)) > 0,
    )


@contextmanager
def loading(name: str) -> Iterator[Callable[[int, int], None]]:
    """Shows the loading of a model; gives the function that `Bagel.load` reports to."""
    with progress_bar(DownloadColumn()) as bar:
        task = bar.add_task(f"loading {name}", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def working() -> Iterator[Callable[[int, Any], None]]:
    """Shows the updates of pictures and the growing of thoughts, a bar a request."""
    with progress_bar() as bar:
        tasks: dict[tuple[int, str], Any] = {}

        def show(index: int, event: Any) -> None:
            kind = "drawing" if isinstance(event, ImageStep) else "thinking"
            if not isinstance(event, (ImageStep, TextPiece)):
                return
            if (index, kind) not in tasks:
                label = f"{kind} {index + 1}" if index else kind
                tasks[index, kind] = bar.add_task(label, total=getattr(event, "updates", None))
            if isinstance(event, ImageStep):
                bar.update(tasks[index, kind], completed=event.update)
            else:
                bar.advance(tasks[index, kind])

        yield show


def check_out(path: Path) -> Path:
    """Raises InputError where a picture could not be written, before any work is done."""
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"{path} has no picture suffix that can be written; use {', '.join(FORMATS)}.")
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the name of a file.")
    check_folder(path.parent)
    return path


def check_folder(folder: Path) -> Path:
    """The folder, which need not be there yet: it is made when something is written. Raises InputError where it
    could not be made or written to."""
    nearest = next((path for path in (folder, *folder.absolute().parents) if os.path.lexists(path)), folder)
    try:
        with tempfile.TemporaryFile(dir=nearest):
            return folder
    except OSError as error:
        raise InputError(f"{folder} cannot be written to ({error.strerror}); choose another folder.") from None


def save_image(image: Image.Image, path: Path, settings: Mapping[str, Any]) -> Path:
    """Writes a picture whole or not at all; a PNG carries the settings that made it as text."""
    kind = FORMATS[path.suffix.lower()]
    extra: dict[str, Any] = {}
    if kind == "PNG":
        extra["pnginfo"] = PngImagePlugin.PngInfo()
        extra["pnginfo"].add_itxt("bagel", json.dumps({**settings, "version": __version__}, ensure_ascii=False))
    write_whole(path, lambda partial: image.save(partial, kind, **extra))
    return path


def write_text(path: Path, text: str) -> Path:
    write_whole(path, lambda partial: partial.write_text(text, encoding="utf-8"))
    return path


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(partial)
        partial.replace(path)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{path} could not be written ({reason}); free some disk or choose another place.") from None
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def settings_of(options: Any, **more: Any) -> dict[str, Any]:
    """Options as JSON, without what was left to the preset."""
    given = {k: v for k, v in dataclasses.asdict(options).items() if v is not None and k != "noise"}
    return {**more, **given}


def as_json(result: Result, **more: Any) -> dict[str, Any]:
    """A result as one JSON object."""
    stats = dataclasses.asdict(result.stats)
    stats["seconds"] = {phase: round(seconds, 4) for phase, seconds in stats["seconds"].items()}
    found = {"text": result.text, "token_ids": result.token_ids, "seed": result.seed, "stats": stats}
    return {**more, **{key: value for key, value in found.items() if value is not None}}


def print_json(data: Any) -> None:
    """One line; letters as they are where stdout can take them, else escaped as JSON does it."""
    unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    sys.stdout.write(json.dumps(data, ensure_ascii=not unicode) + "\n")


def say(text: str) -> None:
    """A line for the reader, on stderr."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)
