"""`bagel run --batch FILE --workers N`: the lines of a file on several copies of the model, through Ray Data.

The driver alone writes, one line at a time, each at most once. A worker that dies takes with it what it had not
delivered; Ray starts another, and those lines come again in the next round.
"""

from __future__ import annotations

import json
import logging
import math
import tempfile
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray
import torch

from bagel.app.batch import RESULTS, Line, Progress, Results, entries, results_file
from bagel.app.replicas.setup import absolute, gpus_each, loaded, ray_running, refusal_in, threads_each
from bagel.app.show import write_whole
from bagel.errors import BagelError, InputError

log = logging.getLogger("bagel.batch")
ROUNDS = 3
"""Rounds in which a line was given to a worker alone and nothing came back, after which it is given up."""
Row = dict[str, list[Any]]
"""One message of a worker: its kind, what it says as JSON, and the file of a picture."""


@dataclass(frozen=True, kw_only=True)
class Workers:
    """count: copies of the model; active: requests at a time on each; threads: CPU threads of each."""

    count: int
    active: int = 16
    threads: int | None = None


def run_batch_on_workers(
    model: Mapping[str, Any], source: Path, folder: Path, workers: Workers, *, progress: Progress
) -> Path:
    """Like `batch.run_batch`, with `Bagel.load`'s arguments instead of a loaded model. Pictures that lines name are
    read by the workers. Raises InputError or another BagelError."""
    with results_file(source, folder, progress) as results:
        if results.todo():
            with ray_running(workers.count):
                _run(absolute(model), source.parent.resolve(), folder, workers, results)
    return folder / RESULTS


def _run(model: Mapping[str, Any], base: Path, folder: Path, workers: Workers, results: Results) -> None:
    """Rounds until every line has a result."""
    arguments = {"model": model, "base": str(base), "active": workers.active}
    arguments["threads"] = threads_each(workers.threads, workers.count)
    gpus, most, barren = gpus_each(model["device"], workers.count), 4 * workers.active, 0
    while todo := results.todo():
        pieces = _pieces(todo, workers.count, most)
        begun = _round(pieces, arguments, gpus, workers.count, folder, results)
        left = results.todo()
        if not begun:
            raise BagelError(f"no worker began on any of {len(left)} lines; its log in Ray's session folder says why.")
        if left:
            log.warning("workers died; %d lines are done again", len(left))
        if len(left) < len(todo):
            barren = 0
            continue
        barren, most = barren + (most == 1), 1  # first find out which lines it is
        if barren == ROUNDS:
            _give_up([line for line in left if line.number in begun], results)
            barren = 0


def _pieces(todo: Sequence[Line], workers: int, most: int) -> list[Sequence[Line]]:
    """What a worker takes at a time: large enough to keep it full, small enough for all to have some."""
    size = max(min(most, math.ceil(len(todo) / (2 * workers))), 1)
    return [todo[start : start + size] for start in range(0, len(todo), size)]


def _give_up(lines: Sequence[Line], results: Results) -> None:
    for line in lines:
        told = "each worker that began on this line died; it may need more memory than there is."
        results.add({"line": line.number, "digest": line.digest, "error": told})


def _round(
    pieces: Sequence[Sequence[Line]],
    arguments: Mapping[str, Any],
    gpus: int,
    workers: int,
    folder: Path,
    results: Results,
) -> set[int]:
    """Each piece once; -> the lines that a worker began on. What a lost worker had is left out."""
    begun: set[int] = set()
    try:
        for row in _rows(pieces, arguments, gpus, min(workers, len(pieces))):
            said = json.loads(row["said"])
            if row["kind"] == "begun":
                begun.update(said)
            elif row["kind"] == "broken":
                raise RuntimeError(f"a worker failed on its own: {said}")
            else:
                if row["picture"]:
                    _write(folder / said["picture"], row["picture"])
                results.add(said)
    except ray.exceptions.RayError as error:
        if sentence := refusal_in(error):
            raise InputError(sentence) from None
        log.warning("the round ended early: %s", str(error).strip()[-1000:])
    return begun


def _rows(
    pieces: Sequence[Sequence[Line]], arguments: Mapping[str, Any], gpus: int, workers: int
) -> Iterator[dict[str, Any]]:
    context = ray.data.DataContext.get_current()
    context.max_errored_blocks = -1  # lines of lost workers come again, in a round of ours
    context.target_max_block_size = 1  # each result is handed out as it comes
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    items = [{"piece": json.dumps([asdict(line) for line in piece])} for piece in pieces]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # there is no other way yet to ask for no retries
        data = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
            Worker,
            batch_size=1,
            batch_format="numpy",
            compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1),
            fn_constructor_kwargs=dict(arguments),
            num_cpus=1,
            num_gpus=gpus,
            max_task_retries=0,
        )
    yield from data.iter_rows()


def _write(path: Path, content: bytes) -> None:
    write_whole(path, lambda partial: partial.write_bytes(content))


class Worker:
    """One copy of the model in a process of Ray Data."""

    def __init__(self, model: Mapping[str, Any], base: str, active: int, threads: int) -> None:
        torch.set_num_threads(threads)
        self.bagel, self.base, self.active = loaded(model), Path(base), active

    def __call__(self, batch: Mapping[str, Any]) -> Iterator[Row]:
        """A piece of lines -> what `_round` reads, as it comes."""
        lines = [Line(**fields) for fields in json.loads(str(batch["piece"][0]))]
        yield _row("begun", [line.number for line in lines])
        try:
            with tempfile.TemporaryDirectory() as folder:
                for entry in entries(self.bagel, iter(lines), self.base, self.active, Path(folder)):
                    path = Path(folder, entry["picture"]) if "picture" in entry else None
                    yield _row("entry", entry, path.read_bytes() if path else b"")
                    if path:
                        path.unlink()
        except Exception:  # what is no user's error ends the run, as it does with one process
            yield _row("broken", traceback.format_exc())


def _row(kind: str, said: Any, picture: bytes = b"") -> Row:
    return {"kind": [kind], "said": [json.dumps(said, ensure_ascii=False)], "picture": [picture]}
