"""`bagel demo`: the main job on the embedded model. It draws, edits, answers, thinks, predicts and navigates; a
checker that reads the outputs alone judges each; one contact sheet shows it all."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from PIL import Image, ImageDraw

from bagel import world
from bagel.app.show import save_image, say, working, write_text
from bagel.eval.exercises import Exercise, job_of, judged, outputs_of
from bagel.eval.sheet import INK, Shown
from bagel.infer.engine import Finished, run
from bagel.infer.pipeline import Bagel
from bagel.options import ImageOptions, TextOptions
from bagel.world.scene import SIDE
from bagel.world.sheet import INK as PART_INK
from bagel.world.sheet import font, wrapped

SEED = 7
"""Of the exercises and of the noise."""
EXERCISES: tuple[tuple[str, str, Literal["en", "zh"]], ...] = (
    ("draws", "draw/binding", "en"),
    ("draws", "draw/counting", "en"),
    ("edits", "edit/replace", "en"),
    ("edits by what it sees", "reason/side", "en"),
    ("answers", "ask/relation", "en"),
    ("answers", "ask/caption", "en"),
    ("thinks, then draws", "think/riddle", "en"),
    ("thinks and draws in turn", "think/steps", "en"),
    ("predicts", "frames/move", "en"),
    ("navigates", "navigate/two", "en"),
    ("turns the camera", "turn/45 right", "en"),
)
OPTIONS: dict[str, Any] = {"num_timesteps": 25, "height": SIDE, "width": SIDE}
SHEET, REPORT = "sheet.png", "demo.json"

_PAD, _LINE, _COLUMNS = 8, 15, 2
_WIDTH = 4 * (SIDE + _PAD) + _PAD
_GREY, _BLACK = (150, 150, 150), (30, 30, 30)
_WRITTEN = 8
"""Lines of what was written that are shown."""


@dataclass(frozen=True)
class Panel:
    """One exercise: what it shows the model doing, and what came of it."""

    title: str
    shown: Shown


def run_demo(bagel: Bagel, folder: Path, note: str = "") -> Path:
    """Puts the exercises, all of them held out from training, side by side; writes every picture, `demo.json` and
    `sheet.png`, with `note` on top; -> the sheet's path."""
    start = time.perf_counter()
    with working() as progress:
        panels = answered(bagel, progress)
    seconds = time.perf_counter() - start
    right = sum(panel.shown.verdict.ok for panel in panels)
    for number, panel in enumerate(panels, 1):
        for index, output in enumerate(panel.shown.outputs):
            if not isinstance(output, str):
                name = f"{number:02d}-{panel.title.split(',')[0].replace(' ', '-')}-{index + 1}.png"
                save_image(Image.fromarray(output), folder / name, {"exercise": panel.shown.exercise.name})
    write_text(folder / REPORT, _report(panels, seconds))
    say(f"{right} of {len(panels)} right by the checker, {seconds:.1f} s")
    return save_image(contact_sheet(panels, note), folder / SHEET, {})


def answered(bagel: Bagel, progress: Any) -> list[Panel]:
    """All exercises as one batch, each judged."""
    exercises = [_exercise(name, language) for _, name, language in EXERCISES]
    image, text = ImageOptions(**OPTIONS), TextOptions()
    jobs = [job_of(bagel.runtime, exercise, image, text) for exercise in exercises]
    found: dict[int, Shown] = {}
    for number, event in run(bagel.runtime.engine, jobs):
        if isinstance(event, Finished):
            exercise, result = exercises[number], event.result
            outputs = outputs_of(exercise, result)
            found[number] = Shown(exercise, outputs, judged(exercise, outputs, result.text))
        else:
            progress(number, event)
    return [Panel(title, found[number]) for number, (title, _, _) in enumerate(EXERCISES)]


def _exercise(name: str, language: Literal["en", "zh"]) -> Exercise:
    task, _, category = name.partition("/")
    return Exercise(f"{name}/{SEED}", world.make(task, category, SEED, 0, "heldout", language))


def _report(panels: Sequence[Panel], seconds: float) -> str:
    lines = [
        {
            "exercise": panel.shown.exercise.name,
            "prompt": [part.text for part in panel.shown.exercise.sample.prompt if isinstance(part, world.Text)],
            "text": panel.shown.verdict.text,
            "right": panel.shown.verdict.ok,
            "reasons": panel.shown.verdict.reasons,
        }
        for panel in panels
    ]
    return json.dumps({"seconds": round(seconds, 2), "exercises": lines}, indent=1, ensure_ascii=False) + "\n"


# --- the sheet -------------------------------------------------------------------------------------------


def contact_sheet(panels: Sequence[Panel], note: str = "") -> Image.Image:
    """Cards in columns, each in the column that is shortest so far; `note` stands on top."""
    cards = [card(panel) for panel in panels]
    heights, places = [(_LINE + 2 * _PAD) * bool(note)] * _COLUMNS, []
    for made in cards:
        column = heights.index(min(heights))
        places.append((column * _WIDTH, heights[column]))
        heights[column] += made.height
    sheet = Image.new("RGB", (_COLUMNS * _WIDTH, max(heights)), "white")
    ImageDraw.Draw(sheet).text((_PAD, _PAD), note, INK[False], font())
    for made, place in zip(cards, places, strict=True):
        sheet.paste(made, place)
    return sheet


def card(panel: Panel) -> Image.Image:
    """What was given, in reading order; what was made, framed; what was written; the checker's verdict."""
    exercise, outputs, verdict = panel.shown
    page = _Page()
    page.line(panel.title, _GREY)
    for part in exercise.sample.prompt:
        if isinstance(part, world.Picture):
            page.picture(Image.fromarray(part.pixels()), _GREY)
        else:
            page.words(part.text, _BLACK)
    page.words(verdict.text or "", PART_INK["thought"], _WRITTEN)
    for output in outputs:
        if not isinstance(output, str):
            page.picture(Image.fromarray(output), INK[verdict.ok])
    said = "right" if verdict.ok else "wrong: " + "; ".join(verdict.reasons)
    page.words(f"checker: {said}", INK[verdict.ok])
    return page.finished()


class _Page:
    """A card that is written from top to bottom; pictures stand side by side."""

    def __init__(self) -> None:
        self.page = Image.new("RGB", (_WIDTH, 4000), "white")
        self.pen, self.x, self.y = ImageDraw.Draw(self.page), _PAD, _PAD

    def line(self, text: str, ink: tuple[int, int, int]) -> None:
        if self.x > _PAD:
            self.x, self.y = _PAD, self.y + SIDE + _PAD
        self.pen.text((_PAD, self.y), text, ink, font())
        self.y += _LINE

    def words(self, text: str, ink: tuple[int, int, int], most: int | None = None) -> None:
        for line in [part for each in text.splitlines() for part in wrapped(each, _WIDTH - 4 * _PAD)][:most]:
            self.line(line, ink)

    def picture(self, image: Image.Image, ink: tuple[int, int, int]) -> None:
        if self.x + SIDE > _WIDTH:
            self.x, self.y = _PAD, self.y + SIDE + _PAD
        self.page.paste(image, (self.x, self.y + 4))
        self.pen.rectangle((self.x - 2, self.y + 2, self.x + SIDE + 1, self.y + SIDE + 5), outline=ink, width=2)
        self.x += SIDE + _PAD

    def finished(self) -> Image.Image:
        return self.page.crop((0, 0, _WIDTH, self.y + 2 * _PAD))
