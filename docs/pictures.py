"""Draws the two pictures of the documentation: `python docs/pictures.py [FOLDER]`.

architecture.png shows the model; rules.png shows who sees whom, and its squares come from `bagel.sequence`.
"""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, ImageColor, ImageDraw, ImageFont

from bagel.sequence import Kind, Layout, Segment, visible

SCALE = 2  # drawn twice as large and shrunk, for smooth edges
INK, GREY, LINE, PAPER = "#1f2937", "#64748b", "#94a3b8", "#ffffff"
UND, UND_TINT, GEN, GEN_TINT, BOTH = "#2563eb", "#e8effd", "#ea580c", "#fdeee3", "#ede9fe"
SHADE = {Kind.TEXT: "#2563eb", Kind.VIT: "#0d9488", Kind.CLEAN: "#f59e0b", Kind.NOISED: "#dc2626"}
Box = tuple[float, float, float, float]


@dataclass
class Sheet:
    """A drawing surface in final pixels."""

    width: int
    height: int
    image: Image.Image = field(init=False)
    pen: ImageDraw.ImageDraw = field(init=False)

    def __post_init__(self) -> None:
        self.image = Image.new("RGB", (self.width * SCALE, self.height * SCALE), PAPER)
        self.pen = ImageDraw.Draw(self.image)

    def box(self, box: Box, fill: str, edge: str | None = None, radius: int = 10) -> None:
        scaled = [v * SCALE for v in box]
        self.pen.rounded_rectangle(scaled, radius * SCALE, fill, edge, 2 * SCALE if edge else 0)

    def text(self, x: float, y: float, text: str, size: int = 17, fill: str = INK, anchor: str = "mm") -> None:
        self.pen.text((x * SCALE, y * SCALE), text, fill, ImageFont.load_default(size * SCALE), anchor)

    def label(self, box: Box, title: str, below: str = "", size: int = 19, fill: str = INK) -> None:
        """A title in the middle of a box, and a smaller line under it."""
        x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        self.text(x, y - (12 if below else 0), title, size, fill)
        if below:
            self.text(x, y + 13, below, 15, GREY)

    def arrow(self, x: float, start: float, end: float) -> None:
        """Upwards, from `start` to `end`."""
        self.pen.line([x * SCALE, start * SCALE, x * SCALE, (end + 8) * SCALE], LINE, 3 * SCALE)
        tip = [(x - 7, end + 10), (x + 7, end + 10), (x, end)]
        self.pen.polygon([(a * SCALE, b * SCALE) for a, b in tip], LINE)

    def paste(self, picture: Image.Image, box: Box) -> None:
        left, top, right, bottom = (int(v * SCALE) for v in box)
        self.image.paste(picture.resize((right - left, bottom - top), Image.Resampling.NEAREST), (left, top))

    def save(self, path: Path) -> None:
        small = self.image.resize((self.width, self.height), Image.Resampling.LANCZOS)
        small.save(path, optimize=True)


def scene(colour: str) -> Image.Image:
    """A cube on a table."""
    image = Image.new("RGB", (200, 160), "#dbeafe")
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, 108, 200, 160), "#d6c3a5")
    pen.polygon([(65, 70), (100, 54), (135, 70), (100, 86)], colour)
    left, right = (tuple(int(c * part) for c in ImageColor.getrgb(colour)) for part in (0.75, 0.55))
    pen.polygon([(65, 70), (100, 86), (100, 128), (65, 112)], left)
    pen.polygon([(135, 70), (100, 86), (100, 128), (135, 112)], right)
    return image


def noise() -> Image.Image:
    chance = random.Random(0)
    image = Image.new("L", (25, 20))
    image.putdata([chance.randrange(70, 230) for _ in range(25 * 20)])
    return image.convert("RGB")


COLUMNS = [(60, 400), (440, 780), (820, 1160), (1200, 1540)]
"""Left and right edge of what belongs to text, ViT, clean latents and noised latents."""


def architecture() -> Sheet:
    sheet = Sheet(1600, 1000)
    middles = [(left + right) / 2 for left, right in COLUMNS]
    und, gen = (COLUMNS[0][0], COLUMNS[1][1]), (COLUMNS[2][0], COLUMNS[3][1])
    _inputs(sheet, middles)
    _tokens(sheet, middles)
    _decoder(sheet, und, gen)
    for middle in middles:
        sheet.arrow(middle, 612, 562)
    for (left, right), title, below in (
        (und, "norm, vocabulary: next token", "text, one token after the other"),
        (gen, "norm, Linear(64): velocity", "all tokens of a picture at once; n - 1 updates from noise to data"),
    ):
        middle, box = (left + right) / 2, (left + 130.0, 130.0, right - 130.0, 196.0)
        sheet.arrow(middle, 240, 198)
        sheet.box(box, PAPER, LINE)
        sheet.label(box, title, below)
        sheet.arrow(middle, 128, 98)
    sheet.box((240, 40, 600, 94), UND_TINT, UND)
    sheet.text(420, 67, "There is a cube on a table.", 18)
    sheet.paste(scene("#dc2626"), (1125, 8, 1235, 96))
    sheet.text(1255, 52, "autoencoder, decoding", 15, GREY, "lm")
    return sheet


def _inputs(sheet: Sheet, middles: list[float]) -> None:
    """What comes in, and what makes tokens of it."""
    (text, vit, clean, noised), picture = middles, (middles[1] + middles[2]) / 2
    sheet.box((90, 890, 370, 950), UND_TINT, UND)
    sheet.text(text, 920, "make the cube red", 18)
    sheet.paste(scene("#2563eb"), (picture - 70, 872, picture + 70, 984))
    sheet.paste(noise(), (noised - 70, 872, noised + 70, 984))
    for x, title, below in (
        (text, "tokenizer", "byte-level BPE"),
        (vit, "SigLIP NaViT, connector", "what is seen: 14 x 14 pixels a token"),
        (clean, "FLUX autoencoder", "how it looks: 16 x 16 pixels a token"),
        (noised, "noise at time t", "the picture that is being drawn"),
    ):
        box = (x - 165, 752.0, x + 165, 822.0)
        sheet.box(box, PAPER, LINE)
        sheet.label(box, title, below)
        sheet.arrow(x, 750, 704)
    sheet.arrow(text, 888, 824)
    sheet.arrow(noised, 870, 824)
    for x in (vit, clean):
        sheet.pen.line([picture * SCALE, 858 * SCALE, x * SCALE, 858 * SCALE], LINE, 3 * SCALE)
        sheet.arrow(x, 859, 824)
    sheet.pen.line([picture * SCALE, 872 * SCALE, picture * SCALE, 857 * SCALE], LINE, 3 * SCALE)


def _tokens(sheet: Sheet, middles: list[float]) -> None:
    """The sequence: a square a token; the first and last of each segment are markers."""
    names = ("text", "ViT", "clean latents", "noised latents")
    for middle, kind, name in zip(middles, Kind, names, strict=True):
        left = middle - 7 * 20
        for place in range(7):
            x = left + place * 40
            marker = place in (0, 6)
            sheet.box((x + 2, 646, x + 38, 682), UND_TINT if marker else SHADE[kind], UND if marker else None, 7)
        sheet.text(middle, 628, name, 17, SHADE[kind])


def _decoder(sheet: Sheet, und: tuple[float, float], gen: tuple[float, float]) -> None:
    sheet.box((30, 244, 1570, 558), "#f8fafc", LINE, 16)
    sheet.text(800, 264, "the decoder: 28 layers, two experts in each", 18, GREY)
    for (left, right), name, tint, edge in (
        (und, "understanding expert", UND_TINT, UND),
        (gen, "generation expert", GEN_TINT, GEN),
    ):
        sheet.box((left, 282, right, 540), tint, edge)
        sheet.text((left + right) / 2, 524, name, 20, edge)
        for top, title in ((300, "norm, MLP"), (462, "norm, query, key, value")):
            sheet.box((left + 150, top, right - 150, top + 46), PAPER, LINE)
            sheet.label((left + 150, top, right - 150, top + 46), title)
        sheet.arrow((left + right) / 2, 461, 430)
        sheet.arrow((left + right) / 2, 378, 348)
    sheet.box((und[0] + 20, 380, gen[1] - 20, 428), BOTH, "#7c3aed")
    sheet.text(800, 404, "one attention over the tokens of both", 20)


KINDS = [(Kind.TEXT, 4), (Kind.VIT, 5), (Kind.CLEAN, 5), (Kind.NOISED, 5), (Kind.TEXT, 3)]
STORY = [Segment(kind, length) for kind, length in KINDS]
NAMES = ["text", "ViT image", "clean latents", "noised latents", "text"]


def rules() -> Sheet:
    sheet, cell, left, top = Sheet(1180, 700), 28, 210, 56
    layout = Layout.of([STORY])
    place = layout.order.argsort()
    seen = visible(layout, layout)[place][:, place]
    position, gen = layout.position[place].tolist(), (place >= layout.num_und).tolist()
    kinds = [segment.kind for segment in STORY for _ in range(segment.length)]
    for q, row in enumerate(seen.tolist()):
        y = top + q * cell
        sheet.text(left - 52, y + cell / 2, str(position[q]), 15, INK)
        sheet.box((left - 36, y + 2, left - 12, y + cell - 2), GEN if gen[q] else UND, radius=5)
        for k, yes in enumerate(row):
            x = left + k * cell
            sheet.box(
                (x + 1.5, y + 1.5, x + cell - 1.5, y + cell - 1.5), SHADE[kinds[k]] if yes else "#eef2f7", radius=4
            )
    at = 0
    for name, segment in zip(NAMES, STORY, strict=True):
        middle = (at + segment.length / 2) * cell
        sheet.text(left - 76, top + middle, name, 17, SHADE[segment.kind], "rm")
        sheet.text(left + middle, top - 16, name.split()[0], 16, SHADE[segment.kind])
        at += segment.length
    sheet.text(left - 52, top - 16, "pos.", 14, GREY)
    _legend(sheet, left + len(kinds) * cell + 40, top)
    return sheet


def _legend(sheet: Sheet, x: float, y: float) -> None:
    sheet.text(x, y - 16, "rows see columns", 16, GREY, "lm")
    for number, (colour, line) in enumerate(((UND, "understanding expert"), (GEN, "generation expert"))):
        sheet.box((x, y + number * 32, x + 22, y + number * 32 + 22), colour, radius=5)
        sheet.text(x + 34, y + number * 32 + 11, line, 16, INK, "lm")
    lines = (
        "Text: causal, a position",
        "for every token.",
        "",
        "A picture: every token sees",
        "the whole of it; one position",
        "in all. Its markers belong to",
        "the understanding expert.",
        "",
        "Noised latents: seen by",
        "themselves alone; the position",
        "is not used up, and nothing",
        "of them is kept.",
    )
    for number, line in enumerate(lines):
        sheet.text(x, y + 110 + number * 25, line, 16, INK, "lm")


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    architecture().save(folder / "architecture.png")
    rules().save(folder / "rules.png")


if __name__ == "__main__":
    main()
