"""How near every mode that changes pictures a little comes to the exact picture: fewer bits, step caches, a solver
with fewer updates. Each mode draws and edits the same requests from the same noise, and where these are exercises of
the generated world its pictures are judged too: `bagel eval closeness`.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image

from bagel.errors import InputError
from bagel.eval.closeness_table import lines
from bagel.eval.exercises import SEES, Exercise, Plan, judged, outputs_of
from bagel.eval.likeness import Likeness, check_installed, likeness
from bagel.infer import jobs
from bagel.infer.engine import Finished, run
from bagel.infer.inputs import check_size
from bagel.infer.pipeline import Bagel
from bagel.infer.result import Result
from bagel.options import PRESETS, ImageOptions, settle

EXACT = "exact"


@dataclass(frozen=True)
class Mode:
    """precision: of the weights, None for that of the exact pictures; fields: of ImageOptions; share: of the
    timesteps."""

    precision: str | None = None
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    share: float = 1.0


MODES: dict[str, Mode] = {
    "guidance": Mode(fields={"step_cache": "guidance"}),
    "forecast3": Mode(fields={"step_cache": "forecast3"}),
    "forecast5": Mode(fields={"step_cache": "forecast5"}),
    "taylorseer": Mode(fields={"step_cache": "taylorseer"}),
    "euler-half": Mode(share=0.5),
    "ab2": Mode(fields={"solver": "ab2"}),
    "ab2-half": Mode(fields={"solver": "ab2"}, share=0.5),
    "bf16": Mode("bf16"),
    "bf11": Mode("bf11"),
    "fp8": Mode("fp8"),
    "fp8+forecast3": Mode("fp8", {"step_cache": "forecast3"}),
    "fp8+forecast5": Mode("fp8", {"step_cache": "forecast5"}),
    "fp8+taylorseer": Mode("fp8", {"step_cache": "taylorseer"}),
    "int8": Mode("int8"),
    "nf4": Mode("nf4"),
}
"""All against `exact`: whole weights, every branch of every update, Euler. The half ones make half the updates. `bf16`
says how much rounding alone changes, where the exact pictures are not in bf16 themselves."""


class Request(NamedTuple):
    """What is asked for: inputs of a drawing or an edit, the seed of its noise, and the exercise that they are from."""

    inputs: list[jobs.Input]
    seed: int
    exercise: Exercise | None = None

    @property
    def job(self) -> str:
        return "edit" if any(isinstance(item, Image.Image) for item in self.inputs) else "draw"

    def right(self, result: Result) -> bool | None:
        """Whether the picture is what the exercise asks for; None where there is nothing to judge it by."""
        return judged(self.exercise, outputs_of(self.exercise, result)).ok if self.exercise else None


class Drawn(NamedTuple):
    result: Result
    right: bool | None


@dataclass(frozen=True)
class Settings:
    """modes: by name; count: exercises of each category of `tasks` in the generated world; prompts: drawn instead of
    them, where given; see: how given pictures are read (see `Plan`); options: of every drawing; precision: of the exact
    pictures, bf16, fp16 or fp32, None for what the device computes in."""

    modes: tuple[str, ...] = tuple(MODES)
    tasks: tuple[str, ...] = ("draw", "edit")
    count: int = 2
    prompts: tuple[str, ...] = ()
    see: tuple[str, ...] = ("context", "look")
    options: ImageOptions = dataclasses.field(default_factory=ImageOptions)
    batch: int = 16
    precision: str | None = None

    def __post_init__(self) -> None:
        for name in self.modes:
            if name not in MODES:
                raise InputError(f"there is no mode {name!r}; there are {', '.join(MODES)}.")
        if self.precision not in (None, "bf16", "fp16", "fp32"):
            raise InputError(f"exact pictures are drawn in bf16, fp16 or fp32, not in {self.precision!r}.")

    def by_precision(self) -> dict[str | None, list[str]]:
        """Names of modes by the precision that the weights are loaded in, the exact pictures first."""
        found: dict[str | None, list[str]] = {self.precision: [EXACT]}
        for name in self.modes:
            found.setdefault(MODES[name].precision or self.precision, []).append(name)
        return found

    def requests(self) -> list[Request]:
        if self.prompts:
            return [Request([prompt], seed) for seed, prompt in enumerate(self.prompts)]
        plan = Plan(tasks=self.tasks, count=self.count, think=False, see=self.see)
        made = [
            Request(exercise.inputs, exercise.seed, exercise)
            for exercise in plan.exercises()
            if exercise.wanted == ["image"]
        ]
        if not made:
            raise InputError(f"tasks of {', '.join(self.tasks)} want no single picture; use draw or edit.")
        return made


def compare(
    model: str,
    settings: Settings,
    *,
    device: str = "auto",
    say: Callable[[str], None] = lambda text: None,
    keep: Callable[[dict[str, Any]], None] = lambda found: None,
) -> dict[str, Any]:
    """-> for each mode the likeness of its pictures to the exact ones, ready for JSON. say: told what is done; keep:
    given what is known after each precision, the last time all of it."""
    check_installed()
    requests = settings.requests()
    exact: list[Drawn] = []
    exact_in = ""
    rows: list[dict[str, Any]] = []
    found: dict[str, Any] = {}
    for precision, names in settings.by_precision().items():
        say(f"{model}: loading {precision or 'whole'} weights")
        bagel = Bagel.load(model, device=device, precision=precision)
        exact_in = exact_in or precision or str(bagel.runtime.checkpoint.model.dtype).removeprefix("torch.")
        list(_drawn(bagel, requests[:1], settings, Mode()))  # what only the first drawing does is not timed
        for name in names:
            say(f"{model}: {name}, {len(requests)} pictures")
            began = time.perf_counter()
            results = list(_drawn(bagel, requests, settings, MODES.get(name, Mode())))
            seconds = time.perf_counter() - began
            drawn = [Drawn(found, asked.right(found)) for asked, found in zip(requests, results, strict=True)]
            exact = exact or drawn
            rows.append(_row(name, drawn, exact, seconds))
        del bagel
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        found = {
            "model": model,
            "requests": len(requests),
            "exact_in": exact_in,
            "rows": [row for name in (EXACT, *settings.modes) for row in rows if row["mode"] == name],
        }
        keep(found)
    return found


def _drawn(bagel: Bagel, requests: Sequence[Request], settings: Settings, mode: Mode) -> Iterator[Result]:
    """A result a request, in order."""
    runtime = dataclasses.replace(bagel.runtime, sees=frozenset(SEES[use] for use in settings.see))
    left = iter(requests)
    while group := list(islice(left, settings.batch)):
        todo = [jobs.draw(runtime, request.inputs, _options(bagel, request, settings, mode)) for request in group]
        results = {index: event.result for index, event in run(runtime.engine, todo) if isinstance(event, Finished)}
        yield from (results[index] for index in range(len(group)))


def _options(bagel: Bagel, request: Request, settings: Settings, mode: Mode) -> ImageOptions:
    presets = bagel.config.presets
    base = dataclasses.replace(settings.options, seed=request.seed, **mode.fields)
    steps = base.num_timesteps or {**PRESETS[request.job], **presets.get(request.job, {})}["num_timesteps"]
    base = dataclasses.replace(base, num_timesteps=max(round(steps * mode.share), 2))
    return check_size(settle(base, request.job, presets), bagel.config)


def _row(name: str, drawn: Sequence[Drawn], exact: Sequence[Drawn], seconds: float) -> dict[str, Any]:
    pairs = [(wanted.result, found.result) for wanted, found in zip(exact, drawn, strict=True)]
    likes = [likeness(_picture(wanted), _picture(found)) for wanted, found in pairs]
    row = {
        "mode": name,
        "model_calls": round(statistics.fmean(one.result.stats.model_calls for one in drawn), 2),
        "seconds": round(seconds, 2),
        **_spread(likes),
        "latent_error": float(f"{statistics.median(_latent_error(*pair) for pair in pairs):.3g}"),
    }
    verdicts = [(wanted.right, found.right) for wanted, found in zip(exact, drawn, strict=True)]
    if None not in verdicts[0]:
        row["right"] = sum(bool(found) for _, found in verdicts)
        row["lost"] = sum(bool(wanted and not found) for wanted, found in verdicts)
        row["won"] = sum(bool(found and not wanted) for wanted, found in verdicts)
    return row


def _spread(likes: Sequence[Likeness]) -> dict[str, float]:
    """Of each measure the median, what one in twenty is beyond, and the worst."""
    found: dict[str, float] = {}
    for name in Likeness._fields:
        values = sorted((getattr(one, name) for one in likes), reverse=name == "flip")  # the worst first
        found[name] = round(statistics.median(values), 4)
        found[f"{name}_twentieth"] = round(values[len(values) // 20], 4)
        found[f"{name}_worst"] = round(values[0], 4)
    return found


def _latent_error(wanted: Result, found: Result) -> float:
    assert wanted.latent is not None
    assert found.latent is not None
    return float((found.latent - wanted.latent).norm() / wanted.latent.norm())


def _picture(result: Result) -> Image.Image:
    assert result.image is not None
    return result.image


def read_prompts(path: Path) -> tuple[str, ...]:
    """A prompt a line."""
    try:
        found = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {error}; give a text file with a prompt a line.") from None
    if not found:
        raise InputError(f"{path} has no prompts; write one a line.")
    return found


def compare_all(models: Sequence[str], settings: Settings, device: str, out: Path | None) -> None:
    """Prints a table a model; `out`: everything as JSON, written after each precision."""
    results: list[dict[str, Any]] = []

    def keep(found: dict[str, Any]) -> None:
        if out:
            out.write_text(json.dumps([*results, found], indent=1) + "\n", encoding="utf-8")

    for model in models:
        found = compare(
            model, settings, device=device, say=lambda text: print(text, file=sys.stderr, flush=True), keep=keep
        )
        results.append(found)
        print("\n".join(lines(found)), flush=True)
