"""`bagel demo`: the main job on the embedded model. It draws, edits, answers, thinks, predicts and navigates; a
checker that reads the outputs alone judges each; one contact sheet shows it all."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from bagel import world
from bagel.app.demo_sheet import Panel, contact_sheet
from bagel.app.show import save_image, say, working, write_text
from bagel.eval.exercises import Exercise, job_of, judged, outputs_of
from bagel.eval.sheet import Shown
from bagel.infer.engine import Finished, run
from bagel.infer.pipeline import Bagel
from bagel.options import ImageOptions, TextOptions
from bagel.world.scene import SIDE

SEED = 6
"""Of the exercises and of the noise; chosen for what is asked, not for what comes of it."""
EXERCISES: tuple[tuple[str, str, Literal["en", "zh"]], ...] = (
    ("draws", "draw/binding", "en"),
    ("draws", "draw/counting", "en"),
    ("edits", "edit/replace", "en"),
    ("edits by what it sees", "reason/side", "en"),
    ("answers", "ask/relation", "en"),
    ("answers", "ask/caption", "en"),
    ("thinks, then draws", "think/riddle", "en"),
    ("thinks and draws in turn", "think/steps", "en"),
    ("thinks, then edits", "think/edit", "en"),
    ("predicts", "frames/move", "en"),
    ("navigates", "navigate/two", "en"),
    ("turns the camera", "turn/45 right", "en"),
)
OPTIONS: dict[str, Any] = {"num_timesteps": 25, "height": SIDE, "width": SIDE}
SHEET, REPORT = "sheet.png", "demo.json"


def run_demo(bagel: Bagel, folder: Path) -> Path:
    """Puts the exercises, all of them held out from training, side by side; writes every picture, `demo.json` and
    `sheet.png`; -> the sheet's path."""
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
    return save_image(contact_sheet(panels), folder / SHEET, {})


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
