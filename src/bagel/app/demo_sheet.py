"""The contact sheet of `bagel demo`: words to the left, what was given and what was made of it to the right."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from bagel import world
from bagel.eval.sheet import INK, Shown
from bagel.world.scene import SIDE
from bagel.world.sheet import INK as PART_INK
from bagel.world.sheet import font, wrapped

_PAD, _GAP, _ARROW, _COLUMNS = 16, 8, 40, 2
_WORDS = 270
"""Pixels of the words' column."""
_SIZE, _LINE, _TITLE = 13, 18, 15
_MOST = 7
"""Lines of a thought or an answer that are shown."""
_GREY, _BLACK, _PAPER = (150, 150, 150), (30, 30, 30), (244, 244, 246)
_Ink = tuple[int, int, int]


@dataclass(frozen=True)
class Panel:
    """One exercise: what it shows the model doing, and what came of it."""

    title: str
    shown: Shown


def contact_sheet(panels: Sequence[Panel]) -> Image.Image:
    """Cards in two columns, row by row, below a line that says how many are right."""
    right = sum(panel.shown.verdict.ok for panel in panels)
    said = f"{right} of {len(panels)} right by the checker, on exercises held out from training."
    head = f"{said} Grey frames: given. Green or red: made. Purple: written."
    cards = [_Card(panel) for panel in panels]
    width = max((card.width for card in cards), default=0)
    rows = [cards[first : first + _COLUMNS] for first in range(0, len(cards), _COLUMNS)]
    heights = [max(card.height for card in row) for row in rows]
    y = 2 * _PAD + _LINE
    size = (_COLUMNS * (width + _PAD) + _PAD, y + sum(heights) + len(rows) * _PAD)
    sheet = Image.new("RGB", size, _PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((_PAD, _PAD), head, _BLACK, font(_TITLE))
    for row, height in zip(rows, heights, strict=True):
        for column, card in enumerate(row):
            card.draw(pen, sheet, (_PAD + column * (width + _PAD), y), (width, height))
        y += height + _PAD
    return sheet


class _Card:
    """An exercise laid out, before it is drawn at its place."""

    def __init__(self, panel: Panel) -> None:
        exercise, outputs, verdict = panel.shown
        self.ok = verdict.ok
        self.given = [Image.fromarray(p.pixels()) for p in exercise.sample.prompt if isinstance(p, world.Picture)]
        self.made = [Image.fromarray(output) for output in outputs if not isinstance(output, str)]
        asked = " ".join(part.text for part in exercise.sample.prompt if isinstance(part, world.Text))
        written = _without_marks(verdict.text or "")
        answers = exercise.wanted == ["text"]
        self.answer = wrapped(" ".join(written), 2 * SIDE, _TITLE)[:_MOST] if answers else []
        self.title = panel.title
        thought = [] if answers else [line for text in written for line in wrapped(text, _WORDS, _SIZE)]
        said = "right" if verdict.ok else "wrong: " + "; ".join(verdict.reasons)
        self.lines: list[tuple[str, _Ink]] = [
            *((line, _BLACK) for line in wrapped(asked, _WORDS, _SIZE)),
            *((line, PART_INK["thought"]) for line in thought[:_MOST]),
            *((line, INK[verdict.ok]) for line in wrapped(said, _WORDS, _SIZE)),
        ]
        beside = len(self.given) * (SIDE + _GAP) + _ARROW * bool(self.given)
        beside += 2 * SIDE if self.answer else len(self.made) * (SIDE + _GAP)
        self.width = 3 * _PAD + _WORDS + beside
        self.height = max(SIDE, _LINE * (1 + len(self.lines)) + 8) + 2 * _PAD

    def draw(self, pen: ImageDraw.ImageDraw, sheet: Image.Image, at: tuple[int, int], size: tuple[int, int]) -> None:
        left, top = at
        pen.rectangle((left, top, left + size[0], top + size[1]), "white", (225, 225, 228))
        x, y = left + _PAD, top + _PAD
        pen.text((x, y - 3), self.title, _GREY, font(_TITLE))
        for number, (line, ink) in enumerate(self.lines, 1):
            pen.text((x, y + 4 + number * _LINE), line, ink, font(_SIZE))
        x += _WORDS + _PAD
        for picture in self.given:
            x = _framed(pen, sheet, picture, (x, y), _GREY)
        if self.given:
            _arrow(pen, x + 4, y + SIDE // 2)
            x += _ARROW
        for picture in self.made:
            x = _framed(pen, sheet, picture, (x, y), INK[self.ok])
        for number, line in enumerate(self.answer):
            below = y + SIDE // 2 + (2 * number - len(self.answer)) * 10
            pen.text((x, below), line, PART_INK["thought"], font(_TITLE))


def _framed(pen: ImageDraw.ImageDraw, sheet: Image.Image, picture: Image.Image, at: tuple[int, int], ink: _Ink) -> int:
    """-> where the next one stands."""
    x, y = at
    sheet.paste(picture, at)
    pen.rectangle((x - 2, y - 2, x + picture.width + 1, y + picture.height + 1), outline=ink, width=2)
    return x + picture.width + _GAP


def _arrow(pen: ImageDraw.ImageDraw, x: int, y: int) -> None:
    pen.line((x, y, x + 18, y), _GREY, 3)
    pen.polygon(((x + 16, y - 7), (x + 26, y), (x + 16, y + 7)), _GREY)


def _without_marks(text: str) -> list[str]:
    """What was written, a text each, without the marks of thoughts."""
    return [part for piece in re.split(r"</?think>", text) if (part := piece.strip())]
