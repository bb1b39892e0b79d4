"""(d) Every knob of drawing by itself, the others at the checkpoint's presets: success, seconds and pictures."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageDraw

from bagel import world
from bagel.errors import InputError
from bagel.eval.exam import Exam
from bagel.eval.exercises import Plan
from bagel.eval.runner import answered
from bagel.eval.sheet import INK, Shown
from bagel.infer.pipeline import Bagel
from bagel.mini.study import results
from bagel.mini.study.judged import BATCH, counts, load
from bagel.options import ImageOptions
from bagel.world.scene import SIDE
from bagel.world.sheet import LINE, PAD, font, wrapped

FILE = "knobs.json"


class Sweep(NamedTuple):
    """The values of one knob, and what it is tried on."""

    values: tuple[Any, ...]
    tasks: tuple[str, ...] = ("draw", "edit")
    fixed: dict[str, Any] = {}  # noqa: RUF012 - never changed


SWEEPS: dict[str, Sweep] = {
    "cfg_text_scale": Sweep((1.0, 1.5, 2.0, 3.0, 4.0, 6.0)),
    "num_timesteps": Sweep((4, 7, 13, 25, 49)),
    "timestep_shift": Sweep((0.5, 1.0, 2.0, 3.0, 5.0)),
    "cfg_interval": Sweep(((0.0, 1.0), (0.4, 1.0), (0.8, 1.0), (0.0, 0.6))),
    "cfg_image_scale": Sweep((1.0, 1.5, 2.0, 3.0), ("edit", "reason")),
    "cfg_renorm_type": Sweep(("global", "channel", "text_channel"), ("draw", "edit"), {"cfg_text_scale": 4.0}),
    "cfg_renorm_min": Sweep((0.0, 0.5, 1.0), ("draw", "edit"), {"cfg_text_scale": 4.0}),
    "solver": Sweep(("euler", "ab2"), ("draw", "edit"), {"num_timesteps": 9}),
}
"""The renorm does most where guidance is strong, a solver where steps are few."""
SHOWN = {"draw": ("draw/binding", "draw/counting"), "edit": ("edit/add",), "reason": ("reason/swap",)}
"""Categories of which a picture is kept, by task: of the first exercise in English, if there is one."""


def knobs(trained: Path, out: Path, limit: int, minutes: float, only: tuple[str, ...] = (), batch: int = BATCH) -> None:
    """`limit` exercises of each category for each value that knobs.json in `out` does not hold yet; a knob's pictures
    are written when all its values are there. No value is begun after `minutes`. only: these knobs.

    Raises InputError for a knob that is not swept, and where the file is of another model."""
    for name in only:
        if name not in SWEEPS:
            raise InputError(f"the knob {name!r} is not swept; use {', '.join(SWEEPS)}.")
    end = time.monotonic() + 60 * minutes if minutes else math.inf
    bagel = load(trained)
    of = {"model": _digest(bagel), "limit": limit, "presets": _presets(bagel), "world": world.VERSION}
    found = results.resumed(out / FILE, of, {"sweeps": {}})
    for knob in only or tuple(SWEEPS):
        if len(found["sweeps"].get(knob, {}).get("points", [])) == len(SWEEPS[knob].values):
            continue
        columns = []
        for value in SWEEPS[knob].values:
            if time.monotonic() > end:
                return
            columns.append((value, _tried(bagel, knob, value, limit, batch)))
        points = [{"value": value, **_point(shown, seconds)} for value, (shown, seconds) in columns]
        found["sweeps"][knob] = {"fixed": SWEEPS[knob].fixed, "points": points}
        results.write(out / FILE, found)
        strip(knob, [(value, shown) for value, (shown, _) in columns]).save(out / f"knob-{knob}.png")
        print(f"{knob}: {[(point['value'], point['results']['all']) for point in points]}", flush=True)


def _digest(bagel: Bagel) -> str:
    """Of a piece of the weights, which training moves."""
    piece = next(bagel.runtime.checkpoint.model.parameters()).detach().flatten()[:65536]
    return hashlib.blake2b(piece.float().cpu().numpy().tobytes(), digest_size=8).hexdigest()


def _presets(bagel: Bagel) -> dict[str, Any]:
    return {job: dict(bagel.config.presets.get(job, {})) for job in ("draw", "edit")}


def _tried(bagel: Bagel, knob: str, value: Any, limit: int, batch: int) -> tuple[list[Shown], float]:
    sweep = SWEEPS[knob]
    options, start = ImageOptions(**{**sweep.fixed, knob: value}), time.perf_counter()
    exam = Exam(plan=Plan(tasks=sweep.tasks, count=limit), image=options)
    shown = list(answered(bagel, exam, batch=batch))
    return shown, time.perf_counter() - start


def _point(shown: Sequence[Shown], seconds: float) -> dict[str, Any]:
    return {"results": counts(shown), "seconds_a_picture": round(seconds / len(shown), 4)}


def strip(knob: str, columns: Sequence[tuple[Any, Sequence[Shown]]]) -> Image.Image:
    """A column a value, a row an exercise: the pictures, framed by the verdict."""
    rows = [_shown(name, columns[0][1]) for task in SWEEPS[knob].tasks for name in SHOWN[task]]
    left, side = 150, SIDE + PAD
    page = Image.new("RGB", (left + len(columns) * side + PAD, 2 * LINE + len(rows) * side), "white")
    pen = ImageDraw.Draw(page)
    pen.text((PAD, 4), knob, (40, 40, 40), font())
    for number, (value, shown) in enumerate(columns):
        x, found = left + number * side, {each.exercise.name: each for each in shown}
        pen.text((x, 4), shown_value(value), (40, 40, 40), font())
        for row, name in enumerate(rows):
            each, y = found[name], LINE + 6 + row * side
            if number == 0:
                _put_prompt(page, each, y, left - 2 * PAD)
            output = each.outputs[0]
            assert not isinstance(output, str)
            page.paste(Image.fromarray(output), (x, y))
            pen.rectangle((x - 2, y - 2, x + SIDE + 1, y + SIDE + 1), outline=INK[each.verdict.ok], width=2)
    return page


def _put_prompt(page: Image.Image, shown: Shown, y: int, width: int) -> None:
    """At the left of a row: the words, and the first given picture, small."""
    pen = ImageDraw.Draw(page)
    for line, text in enumerate(wrapped(_words(shown), width)):
        pen.text((PAD, y + line * LINE), text, (90, 90, 90), font())
    given = [part for part in shown.exercise.sample.prompt if isinstance(part, world.Picture)]
    for picture in given[:1]:
        page.paste(Image.fromarray(picture.pixels()).resize((64, 64)), (PAD, y + SIDE - 64))


def _shown(category: str, shown: Sequence[Shown]) -> str:
    """The name of the exercise of a category whose pictures are kept; fonts that know Chinese are not everywhere."""
    these = sorted(
        (each for each in shown if each.exercise.name.startswith(f"{category}/")),
        key=lambda each: (not _words(each).isascii(), int(each.exercise.name.rpartition("/")[2])),
    )
    return these[0].exercise.name


def _words(shown: Shown) -> str:
    return " ".join(part.text for part in shown.exercise.sample.prompt if isinstance(part, world.Text))


def shown_value(value: Any) -> str:
    return " to ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
