"""`bagel demo`: every job once, on the embedded model, and a contact sheet of what came out."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont, ImageOps

from bagel.app.show import save_image, say, working
from bagel.infer.pipeline import Bagel, find_model, is_random

Panel = tuple[str, list[Image.Image], str]
"""What was asked, the pictures, the text that came out."""

_CELL, _GAP, _LINE = 192, 16, 16


def run_demo(bagel: Bagel, folder: Path) -> Path:
    """Runs the jobs, writes each picture and `sheet.png`; -> the sheet's path."""
    scene = _scene()
    panels: list[Panel] = []
    jobs: list[tuple[str, Callable[[Bagel, Image.Image, Any], Panel]]] = [
        ("draw", _draw),
        ("draw with a thought", _think),
        ("edit", _edit),
        ("combine two pictures", _combine),
        ("answer", _answer),
        ("converse", _converse),
        ("text and pictures in turn", _interleave),
    ]
    for number, (title, job) in enumerate(jobs, 1):
        say(f"[{number}/{len(jobs)}] {title}")
        with working() as progress:
            asked, pictures, text = job(bagel, scene, progress)
        for index, picture in enumerate(pictures):
            save_image(picture, folder / f"{number:02d}-{title.split()[0]}-{index + 1}.png", {"prompt": asked})
        panels.append((f"{title}: {asked}", pictures, text))
    random = is_random(find_model("mini"))
    note = "The weights are random (no trained model is embedded yet): these pictures mean nothing." if random else ""
    return save_image(contact_sheet(panels, note), folder / "sheet.png", {})


_QUICK: dict[str, Any] = {"num_timesteps": 25, "seed": 7}


def _draw(bagel: Bagel, scene: Image.Image, progress: Any) -> Panel:
    prompt = "a red circle above a blue square"
    found = bagel.draw([prompt] * 2, height=128, width=128, num_timesteps=25, seed=[7, 8], progress=progress)
    return prompt, [image for result in found for image in result.images], ""


def _think(bagel: Bagel, scene: Image.Image, progress: Any) -> Panel:
    prompt = "the only shape with three corners"
    result = bagel.draw(prompt, height=128, width=128, think=True, max_tokens=48, progress=progress, **_QUICK)
    return prompt, result.images, result.text or ""


def _edit(bagel: Bagel, scene: Image.Image, progress: Any) -> Panel:
    prompt = "make the circle green"
    result = bagel.edit(scene, prompt, progress=progress, **_QUICK)
    return prompt, [scene, *result.images], ""


def _combine(bagel: Bagel, scene: Image.Image, progress: Any) -> Panel:
    prompt = "put both pictures together"
    other = scene.transpose(Image.Transpose.ROTATE_90)
    result = bagel.edit([scene, other], prompt, progress=progress, **_QUICK)
    return prompt, [scene, other, *result.images], ""


def _answer(bagel: Bagel, scene: Image.Image, progress: Any) -> Panel:
    question = "How many shapes are there?"
    result = bagel.chat([scene, question], max_tokens=32, progress=progress)
    return question, [scene], result.text or ""


def _converse(bagel: Bagel, scene: Image.Image, progress: Any) -> Panel:
    with bagel.session(progress=progress) as session:
        session.read(scene)
        session.read("remove the square")
        first = session.draw(**_QUICK)
        session.read("now make the background dark")
        second = session.draw(**_QUICK)
        session.read("What is left?")
        said = session.say(max_tokens=32)
    asked = "remove the square / now make the background dark / What is left?"
    return asked, [scene, *first.images, *second.images], said.text or ""


def _interleave(bagel: Bagel, scene: Image.Image, progress: Any) -> Panel:
    prompt = "The circle moves right. Show the next two pictures."
    events = bagel.stream([scene, prompt], output=["text", "image", "text", "image"], max_tokens=24, **_QUICK)
    result = None
    for event in events:
        progress(0, event)
        result = getattr(event, "result", result)
    assert result is not None
    return prompt, [scene, *result.images], result.text or ""


def _scene() -> Image.Image:
    """A picture to begin with: a red circle and a blue square on grey."""
    image = Image.new("RGB", (128, 96), (208, 208, 208))
    pen = ImageDraw.Draw(image)
    pen.ellipse((16, 24, 64, 72), fill=(220, 40, 40))
    pen.rectangle((80, 32, 112, 64), fill=(40, 70, 220))
    return image


def contact_sheet(panels: list[Panel], note: str = "") -> Image.Image:
    """One row a panel: what was asked, the pictures side by side, what was said. `note` stands on top."""
    font = ImageFont.load_default(13)
    columns = max(len(pictures) for _, pictures, _ in panels)
    width = max(columns * (_CELL + _GAP) + _GAP, 720)
    rows = [
        (
            textwrap.wrap(asked, width // 8),
            [ImageOps.contain(picture, (_CELL, _CELL)) for picture in pictures],
            textwrap.wrap(_printable(text), width // 8)[:4],
        )
        for asked, pictures, text in [*([(note, [], "")] if note else []), *panels]
    ]
    tallest = [max((picture.height for picture in pictures), default=0) for _, pictures, _ in rows]
    lines = sum(len(asked) + len(said) for asked, _, said in rows)
    sheet = Image.new("RGB", (width, lines * _LINE + sum(tallest) + len(rows) * 2 * _GAP + _GAP), "white")
    pen, y = ImageDraw.Draw(sheet), _GAP
    for (asked, pictures, said), height in zip(rows, tallest, strict=True):
        for line in asked:
            pen.text((_GAP, y), line, fill=(20, 20, 20), font=font)
            y += _LINE
        for column, picture in enumerate(pictures):
            sheet.paste(picture, (_GAP + column * (_CELL + _GAP), y + 4))
        y += height + 8
        for line in said:
            pen.text((_GAP, y), line, fill=(90, 90, 90), font=font)
            y += _LINE
        y += 2 * _GAP - 8
    return sheet


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
