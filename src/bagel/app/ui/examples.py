"""What to try: sentences that the loaded model understands, and pictures to try them on."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw

from bagel.app.ui.texts import LANGUAGES
from bagel.model.config import ModelConfig

Pair = tuple[str, str]

_SMALL: dict[str, Sequence[Pair]] = {
    "draw": (
        ("a red circle above a blue square", "蓝色正方形上面有一个红色圆形"),
        ("two green triangles", "两个绿色三角形"),
        ("the only shape with three corners", "唯一有三个角的图形"),
    ),
    "edit": (
        ("make the circle green", "把圆形变成绿色"),
        ("remove the square", "去掉正方形"),
        ("put both pictures together", "把两张图合在一起"),
    ),
    "chat": (
        ("How many shapes are there?", "有几个图形？"),
        ("What colour is the circle?", "圆形是什么颜色？"),
    ),
}
_LARGE: dict[str, Sequence[Pair]] = {
    "draw": (
        ("A small wooden boat on a calm lake at dawn, mist over the water", "黎明平静的湖面上有一条小木船，水上有薄雾"),
        ("A street cafe in the rain, watercolour", "雨中的街边咖啡馆，水彩画"),
        ('A chalk board that says "open today"', "一块写着 open today 的黑板"),
    ),
    "edit": (
        ("Turn the circle into an orange, as a photograph", "把圆形变成一个橙子，像照片一样"),
        ("Remove the square", "去掉正方形"),
        ("Put both pictures together", "把两张图合在一起"),
    ),
    "chat": (
        ("Describe the picture.", "描述这张图片。"),
        ("What is to the right of the circle?", "圆形右边是什么？"),
    ),
}


def examples(job: str, config: ModelConfig) -> Sequence[Pair]:
    """English and Chinese, for a tab. A model that reads pictures of at most 256 pixels is one of little shapes."""
    return (_SMALL if config.images.vae.max_size <= 256 else _LARGE)[job]


def wording(pair: Pair, language: str) -> str:
    return pair[list(LANGUAGES).index(language)]


def example_pictures(instruction: Pair) -> list[Image.Image]:
    """The picture for an instruction; two where it speaks of both."""
    scene = _scene(((220, 40, 40), (40, 70, 220)))
    return [scene, _scene(((240, 190, 40), (60, 150, 80)))] if "both" in instruction[0] else [scene]


def _scene(colours: tuple[tuple[int, int, int], tuple[int, int, int]], scale: int = 4) -> Image.Image:
    """A circle and a square on grey."""
    image = Image.new("RGB", (128 * scale, 96 * scale), (208, 208, 208))
    pen = ImageDraw.Draw(image)
    pen.ellipse([scale * x for x in (16, 24, 64, 72)], fill=colours[0])
    pen.rectangle([scale * x for x in (80, 32, 112, 64)], fill=colours[1])
    return image
