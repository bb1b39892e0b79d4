"""A contact sheet: samples as rows of pictures with their words, to look at."""

import re
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from .sample import Part, Picture, Sample, TargetAnswer, TargetPicture, Thought
from .scene import SIDE

PAD = 6
LINE = 14  # pixels a line of text
WIDTH = 2 * (SIDE + PAD) + PAD
INK = {"given": (40, 40, 40), "thought": (120, 100, 160), "target": (0, 110, 60)}
# Fonts that hold Chinese too, where a system has one; Pillow's own, without it, otherwise.
FONTS = ("NotoSansCJK-Regular.ttc", "wqy-microhei.ttc", "PingFang.ttc", "msyh.ttc", "DroidSansFallbackFull.ttf")


@lru_cache
def font(size: int = 11) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """A font for captions, of so many pixels."""
    for name in FONTS:
        with suppress(OSError):
            return ImageFont.truetype(name, size)
    return ImageFont.load_default(size)


def printable(text: str) -> str:
    """The text as a font can draw it: Pillow refuses some control characters, and a model may write any of them.
    Blanks of all kinds become one kind, but line breaks stay; what else has no shape becomes a mark."""
    blank = re.sub(r"[^\S\n]", " ", text)
    return "".join(
        letter if letter.isprintable() or letter == "\n" else "\N{REPLACEMENT CHARACTER}" for letter in blank
    )


def wrapped(text: str, width: int, size: int = 11) -> list[str]:
    """The text, made printable, in lines of at most `width` pixels in the font of this size; Chinese breaks anywhere,
    other scripts between words."""
    lines, line = [], ""
    text = printable(text).replace("\n", " ")
    units = text.split(" ") if text.isascii() else list(text)
    glue = " " if text.isascii() else ""
    for unit in units:
        longer = line + glue + unit if line else unit
        if line and font(size).getlength(longer) > width:
            lines.append(line)
            longer = unit
        line = longer
    return [*lines, line]


def _style(part: Part) -> str:
    if isinstance(part, Thought):
        return "thought"
    return "target" if isinstance(part, TargetPicture | TargetAnswer) else "given"


def strip(sample: Sample) -> Image.Image:
    """One sample: its title, its words and pictures in reading order, what the model must produce framed green."""
    page = Image.new("RGB", (WIDTH, 60 + len(sample.parts) * (SIDE + 3 * LINE)), "white")
    pen = ImageDraw.Draw(page)
    pen.text((PAD, PAD), f"{sample.task} / {sample.category} ({sample.split})", (150, 150, 150), font())
    x, y = PAD, PAD + LINE + 2
    for part in sample.parts:
        if isinstance(part, Picture):
            if x + SIDE > WIDTH:
                x, y = PAD, y + SIDE + PAD
            page.paste(Image.fromarray(part.pixels()), (x, y))
            pen.rectangle((x - 1, y - 1, x + SIDE, y + SIDE), outline=INK[_style(part)])
            x += SIDE + PAD
            continue
        if x > PAD:
            x, y = PAD, y + SIDE + 3
        for line in wrapped(part.text, WIDTH - 2 * PAD):
            pen.text((PAD, y), line, INK[_style(part)], font())
            y += LINE
    return page.crop((0, 0, WIDTH, y + (SIDE + PAD if x > PAD else 0) + PAD))


def contact_sheet(samples: Sequence[Sample], columns: int = 5) -> Image.Image:
    """The samples one below the other, each in the column that is shortest so far."""
    strips = [strip(sample) for sample in samples]
    heights, places = [0] * columns, []
    for picture in strips:
        column = heights.index(min(heights))
        places.append((column * WIDTH, heights[column]))
        heights[column] += picture.height
    sheet = Image.new("RGB", (columns * WIDTH, max(heights, default=1)), "white")
    for picture, place in zip(strips, places, strict=True):
        sheet.paste(picture, place)
    return sheet


def save_sheet(samples: Sequence[Sample], path: Path, columns: int = 5) -> None:
    """Write a contact sheet as PNG."""
    contact_sheet(samples, columns).save(path)
