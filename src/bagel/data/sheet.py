"""A contact sheet: some samples as pictures and texts in reading order, to see what a model will see."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from PIL import Image, ImageDraw, ImageFont

from bagel.data.sample import Clip, Part, Picture, Sample, Text
from bagel.world.sheet import printable

CELL, GAP, CAPTION, WIDTH = 160, 8, 16, 8
"""Side of a cell, space between cells, height of its caption, and cells in a row at most, all but the last in
pixels."""
LEARNT, GIVEN = (176, 32, 32), (64, 64, 64)


def contact_sheet(samples: Sequence[Sample]) -> Image.Image:
    """One row of cells for each sample; captions of what is learnt are red."""
    rows = [list(_cells(sample))[:WIDTH] for sample in samples]
    step, height = CELL + GAP, CELL + CAPTION + GAP
    columns = max(len(row) for row in rows)
    sheet = Image.new("RGB", (columns * step + GAP, len(rows) * height + GAP), (255, 255, 255))
    draw = ImageDraw.Draw(sheet)
    for y, row in enumerate(rows):
        for x, (content, caption, learnt) in enumerate(row):
            at = GAP + x * step, GAP + y * height
            draw.text(at, caption, fill=LEARNT if learnt else GIVEN, font=_font())
            sheet.paste(content, (at[0], at[1] + CAPTION))
    return sheet


def _cells(sample: Sample) -> Iterator[tuple[Image.Image, str, bool]]:
    """(content, caption, learnt); the uses of one picture are one cell."""
    parts = list(sample.parts)
    while parts:
        part = parts.pop(0)
        if isinstance(part, Text):
            yield _text_cell(part.text), "text" + _marks(part), part.loss
        elif isinstance(part, Clip):
            for number, frame in enumerate(part.frames):
                yield _thumbnail(frame), f"frame {number}" + _marks(part), part.loss
        else:
            uses = [part.use.value]
            while parts and isinstance(parts[0], Picture) and parts[0].image is part.image:
                uses.append(parts[0].use.value)
                part = parts.pop(0)
                assert isinstance(part, Picture)
            yield _thumbnail(part.image), "+".join(uses) + _marks(part), "target" in uses


def _marks(part: Part) -> str:
    dropped = " (droppable)" if part.drop is not None else ""
    return f"{dropped} -> {part.then.value}" if part.then else dropped


def _thumbnail(image: Image.Image) -> Image.Image:
    small = image.copy()
    small.thumbnail((CELL, CELL))
    return small


def _text_cell(text: str) -> Image.Image:
    cell = Image.new("RGB", (CELL, CELL), (240, 240, 240))
    lines = textwrap.wrap(printable(text), 24)[:11] or ["(blank)"]
    ImageDraw.Draw(cell).multiline_text((4, 4), "\n".join(lines), fill=(0, 0, 0), font=_font())
    return cell


def _font() -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(11)
