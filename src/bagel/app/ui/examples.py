"""What to try: sentences that the loaded model understands, and pictures to try them on."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw

from bagel.app.ui.texts import LANGUAGES
from bagel.model.config import ModelConfig
from bagel.world.render import draw
from bagel.world.scene import Scene, Thing

Pair = tuple[str, str]

_SMALL: dict[str, Sequence[Pair]] = {
    "draw": (
        ("Draw a red circle and a blue square.", "画一个红色的圆形和一个蓝色的正方形。"),
        ("Draw three green triangles.", "画三个绿色的三角形。"),
        ("Draw a star in the colour of a lemon.", "画一个五角星,颜色和柠檬一样。"),
    ),
    "edit": (
        ("Make the red circle green.", "把红色的圆形变成绿色。"),
        ("Remove the blue square.", "去掉蓝色的正方形。"),
        ("Swap the colours of the circle and the square.", "交换圆形和正方形的颜色。"),
    ),
    "chat": (
        ("How many circles are there?", "有几个圆形?"),
        ("What colour is the square?", "正方形是什么颜色?"),
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
    """The picture for an instruction; two where it speaks of both; one of the small model's world for its sentences."""
    if any(instruction in pairs for pairs in _SMALL.values()):
        return [Image.fromarray(draw(_WORLD))]
    scene = _scene(((220, 40, 40), (40, 70, 220)))
    return [scene, _scene(((240, 190, 40), (60, 150, 80)))] if "both" in instruction[0] else [scene]


_WORLD = Scene((Thing("circle", "red", 40, 52, 16), Thing("square", "blue", 92, 70, 16)), "grey")


def _scene(colours: tuple[tuple[int, int, int], tuple[int, int, int]], scale: int = 4) -> Image.Image:
    """A circle and a square on grey."""
    image = Image.new("RGB", (128 * scale, 96 * scale), (208, 208, 208))
    pen = ImageDraw.Draw(image)
    pen.ellipse([scale * x for x in (16, 24, 64, 72)], fill=colours[0])
    pen.rectangle([scale * x for x in (80, 32, 112, 64)], fill=colours[1])
    return image
