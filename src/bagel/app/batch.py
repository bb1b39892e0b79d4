"""Many requests from a file, for `bagel run --batch`: a JSON object a line.

{"job": "draw", "prompt": "a red cube", "seed": 3, "height": 512, "width": 512}
{"job": "edit", "images": ["cat.png"], "prompt": "make it night"}     paths, relative to the file
{"job": "chat", "images": ["chart.png"], "prompt": "What is the trend?", "max_tokens": 100}

besides any field of ImageOptions (draw, edit) or TextOptions (chat). What comes out is in `results.jsonl`, a line a
request as soon as it is done. A run that was stopped goes on where it was: no line is done twice or left out.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from bagel.app.show import as_json, save_image
from bagel.errors import BagelError, InputError, MemoryPlanError
from bagel.infer import jobs
from bagel.infer.conversation import Input
from bagel.infer.engine import Finished, Job
from bagel.infer.inputs import Text, check_size, checked_text, open_image
from bagel.infer.pipeline import Bagel
from bagel.infer.result import Result
from bagel.infer.scheduler import Failed, Limits, Scheduler, Ticket
from bagel.options import ImageOptions, TextOptions, make, settle

RESULTS = "results.jsonl"
KINDS = ("draw", "edit", "chat")
Progress = Callable[[int, int], None]
"""Called with (lines done, lines in all)."""


@dataclass(frozen=True)
class Line:
    """One request. number: its place in the file from 1; digest: of its text, so that a changed file is noticed."""

    number: int
    text: str

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]


def run_batch(bagel: Bagel, source: Path, folder: Path, *, active: int = 16, progress: Progress) -> Path:
    """Does what is not done yet, `active` requests at a time; -> the file of results. A line that cannot be done has
    its error there. Raises InputError for files that cannot be used."""
    with results_file(source, folder, progress) as results:
        for entry in entries(bagel, iter(results.todo()), source.parent, active, folder):
            results.add(entry)
    return folder / RESULTS


class Results:
    """The file of results, held by this process alone: each line of the source once, whatever is added."""

    def __init__(self, file: IO[str], lines: list[Line], done: set[int], progress: Progress) -> None:
        self.lines, self._file, self._done, self._progress = lines, file, done, progress

    def todo(self) -> list[Line]:
        """Lines without a result."""
        return [line for line in self.lines if line.number not in self._done]

    def add(self, entry: dict[str, Any]) -> None:
        """On the disk when this returns; a second result of a line is dropped."""
        if entry["line"] in self._done:
            return
        self._file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._done.add(entry["line"])
        self._progress(len(self._done), len(self.lines))


@contextlib.contextmanager
def results_file(source: Path, folder: Path, progress: Progress) -> Iterator[Results]:
    """Raises InputError for files that cannot be used."""
    lines = read_lines(source)
    folder.mkdir(parents=True, exist_ok=True)
    with _only_writer(folder / RESULTS) as file:
        yield Results(file, lines, _done(folder / RESULTS, lines), progress)


def read_lines(source: Path) -> list[Line]:
    try:
        texts = source.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, ValueError) as error:
        raise InputError(f"{source} cannot be read ({error}); give a file with a JSON object a line.") from None
    lines = [Line(number, text) for number, text in enumerate(texts, 1) if text.strip()]
    if not lines:
        raise InputError(f"{source} has no lines; give a file with a JSON object a line.")
    return lines


def _only_writer(path: Path) -> IO[str]:
    """The file of results, open to append, held by this process alone where the system can do that."""
    file = path.open("a+", encoding="utf-8")
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ModuleNotFoundError:  # Windows
        pass
    except OSError:
        file.close()
        raise InputError(f"another run is writing {path}; wait for it, or give another folder.") from None
    return file


def _done(path: Path, lines: list[Line]) -> set[int]:
    """Numbers of the lines whose results are there. What a run left half-written is cut off."""
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        os.truncate(path, len(whole))
    digests, done = {line.number: line.digest for line in lines}, set()
    for text in whole.decode("utf-8").splitlines():
        entry = json.loads(text)
        if digests.get(entry["line"]) != entry["digest"]:
            raise InputError(f"line {entry['line']} is not the one that {path} has a result of; give another folder.")
        done.add(entry["line"])
    return done


def entries(bagel: Bagel, todo: Iterator[Line], base: Path, active: int, folder: Path) -> Iterator[dict[str, Any]]:
    """Results as they come, their pictures in `folder`; paths in lines start from `base`. A few lines wait ready, so
    that pictures of thousands are not open at once."""
    scheduler = Scheduler(bagel.runtime.engine, Limits(active=active, queue=active))
    lines: dict[Ticket, Line] = {}
    alone: list[Line] = []  # what has no room beside others
    try:
        while True:
            while len(lines) < active and (line := next(todo, None)):
                lines[scheduler.submit(_job(bagel, line, base))] = line
            if not lines and alone:
                lines[scheduler.submit(_job(bagel, alone[0], base))] = alone.pop(0)
            if not lines:
                return
            for ticket, event in scheduler.step():
                if isinstance(event, Finished):
                    yield _written(lines.pop(ticket), event.result, folder)
                elif isinstance(event, Failed):
                    if not isinstance(event.error, BagelError):
                        raise event.error
                    line = lines.pop(ticket)
                    if isinstance(event.error, MemoryPlanError) and lines:
                        alone.append(line)
                        continue
                    yield {"line": line.number, "digest": line.digest, "error": str(event.error)}
    finally:
        scheduler.close()


def _job(bagel: Bagel, line: Line, base: Path) -> Job:
    """The line's job, which raises InputError for one that is no request."""
    return (yield from _asked(bagel, line, base))


def _asked(bagel: Bagel, line: Line, base: Path) -> Job:
    try:
        fields = json.loads(line.text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"the line is no JSON ({error}).") from None
    if not isinstance(fields, dict) or fields.get("job") not in KINDS:
        raise InputError(f"a line is an object with a job: {', '.join(KINDS)}.")
    kind, images = fields.pop("job"), fields.pop("images", [])
    prompt = checked_text(fields.pop("prompt", ""))
    fields.pop("id", None)
    if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
        raise InputError("images must be a list of paths.")
    if (kind == "edit") != bool(images) and kind != "chat":
        raise InputError("an edit needs images, and a drawing takes none.")
    inputs: list[Input] = [*(open_image(base / image) for image in images), Text(prompt)]
    presets = bagel.config.presets
    if kind == "chat":
        return jobs.answer(bagel.runtime, inputs, settle(make(TextOptions, None, fields), kind, presets))
    options = settle(make(ImageOptions, None, fields), kind, presets)
    return jobs.draw(bagel.runtime, inputs, check_size(options, bagel.config))


def _written(line: Line, result: Result, folder: Path) -> dict[str, Any]:
    """The picture is written whole before its line is."""
    entry: dict[str, Any] = {"line": line.number, "digest": line.digest}
    if "id" in (asked := json.loads(line.text)):
        entry["id"] = asked["id"]
    if result.image is not None:
        settings = {**{key: value for key, value in asked.items() if key != "noise"}, "seed": result.seed}
        entry["picture"] = save_image(result.image, folder / f"{line.number:06d}.png", settings).name
    return as_json(result, **entry)
