"""Failures to look at: what was given and wanted, what came, and why it is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from bagel.eval.exercises import Exercise, Verdict
from bagel.world.scene import SIDE
from bagel.world.sheet import LINE, PAD, WIDTH, font, strip, wrapped

INK = {True: (0, 110, 60), False: (190, 30, 30)}


class Shown(NamedTuple):
    exercise: Exercise
    outputs: list[np.ndarray | str]
    verdict: Verdict


def page(shown: Shown) -> Image.Image:
    """The exercise as the world shows it, and below it what came."""
    above, ink = strip(shown.exercise.sample), INK[shown.verdict.ok]
    said = [f"-> {shown.verdict.text}"] if shown.verdict.text else []
    words = [*said, "; ".join(shown.verdict.reasons) or "as asked"]
    lines = [line for text in words for line in wrapped(text, WIDTH - 2 * PAD)]
    pictures = [output for output in shown.outputs if not isinstance(output, str)]
    rows = -(-len(pictures) // 2)
    made = Image.new("RGB", (WIDTH, above.height + rows * (SIDE + PAD) + len(lines) * LINE + 3 * PAD), "white")
    made.paste(above, (0, 0))
    pen, y = ImageDraw.Draw(made), above.height
    for number, pixels in enumerate(pictures):
        x, top = PAD + number % 2 * (SIDE + PAD), y + number // 2 * (SIDE + PAD)
        made.paste(Image.fromarray(pixels), (x, top))
        pen.rectangle((x - 1, top - 1, x + SIDE, top + SIDE), outline=ink)
    y += rows * (SIDE + PAD)
    for line in lines:
        pen.text((PAD, y), line, ink, font())
        y += LINE
    pen.line((0, made.height - 1, WIDTH, made.height - 1), (220, 220, 220))
    return made


def sheet(shown: Sequence[Shown], columns: int = 5) -> Image.Image:
    """Pages one below the other, each in the column that is shortest so far."""
    heights = [0] * columns
    places = []
    pages = [page(each) for each in shown]
    for picture in pages:
        column = heights.index(min(heights))
        places.append((column * WIDTH, heights[column]))
        heights[column] += picture.height
    made = Image.new("RGB", (columns * WIDTH, max(max(heights), 1)), "white")
    for picture, place in zip(pages, places, strict=True):
        made.paste(picture, place)
    return made
