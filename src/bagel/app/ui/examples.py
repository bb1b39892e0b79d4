"""What to try: sentences that the loaded model understands, and pictures to try them on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from bagel.app.ui.texts import LANGUAGES
from bagel.model.config import ModelConfig
from bagel.world.room import Prop, Room, Stand
from bagel.world.sample import State, pixels_of
from bagel.world.scene import Scene, Thing

_THINGS = Scene((Thing("circle", "red", 40, 52, 16), Thing("square", "blue", 92, 70, 16)), "grey")
_ROOM = Stand(Room(("sand", "moss", "slate", "coral"), (Prop("cone", "purple", 0.72, 4.0),)), 2.75, 3.5, heading=5)


@dataclass(frozen=True)
class Example:
    """What to ask, in English and Chinese. think: whether the model is to think first; shown: a state of the small
    model's world that it is asked about."""

    english: str
    chinese: str
    think: bool = False
    shown: State | None = None

    def wording(self, language: str) -> str:
        return (self.english, self.chinese)[list(LANGUAGES).index(language)]


_SMALL: dict[str, Sequence[Example]] = {
    "draw": (
        Example("Draw a yellow star.", "画一个黄色的五角星。"),
        Example("Draw three green triangles.", "画三个绿色的三角形。"),
        Example("Draw a heart in the colour of a frog.", "画一个心形,颜色和青蛙一样。", think=True),
    ),
    "edit": (
        Example("Make the red circle green.", "把红色的圆形变成绿色。", shown=_THINGS),
        Example("Remove the blue square.", "去掉蓝色的正方形。", shown=_THINGS),
        Example("Swap the colours of the circle and the square.", "交换圆形和正方形的颜色。", shown=_THINGS),
        Example("You turn left. Show your new view.", "你向左转。之后你看到什么?", shown=_ROOM),
    ),
    "chat": (
        Example("How many circles are there?", "有几个圆形?", shown=_THINGS),
        Example("What colour is the square?", "正方形是什么颜色?", shown=_THINGS),
        Example("Describe the picture.", "描述这张图片。", shown=_THINGS),
    ),
}
_LARGE: dict[str, Sequence[Example]] = {
    "draw": (
        Example(
            "A small wooden boat on a calm lake at dawn, mist over the water",
            "黎明平静的湖面上有一条小木船，水上有薄雾",
        ),
        Example("A street cafe in the rain, watercolour", "雨中的街边咖啡馆，水彩画"),
        Example('A chalk board that says "open today"', "一块写着 open today 的黑板"),
    ),
    "edit": (
        Example("Turn the circle into an orange, as a photograph", "把圆形变成一个橙子，像照片一样"),
        Example("Remove the square", "去掉正方形"),
        Example("Put both pictures together", "把两张图合在一起"),
    ),
    "chat": (
        Example("Describe the picture.", "描述这张图片。"),
        Example("What is to the right of the circle?", "圆形右边是什么？"),
    ),
}


def is_little(config: ModelConfig) -> bool:
    """Whether the model reads pictures of at most 256 pixels: then it is one of little shapes."""
    return config.images.vae.max_size <= 256


def examples(job: str, config: ModelConfig) -> Sequence[Example]:
    """For a tab."""
    return (_SMALL if is_little(config) else _LARGE)[job]


def example_pictures(example: Example) -> list[Image.Image]:
    """The picture for an instruction; two where it speaks of both."""
    if example.shown is not None:
        return [Image.fromarray(pixels_of(example.shown))]
    scene = _scene(((220, 40, 40), (40, 70, 220)))
    return [scene, _scene(((240, 190, 40), (60, 150, 80)))] if "both" in example.english else [scene]


def _scene(colours: tuple[tuple[int, int, int], tuple[int, int, int]], scale: int = 4) -> Image.Image:
    """A circle and a square on grey."""
    image = Image.new("RGB", (128 * scale, 96 * scale), (208, 208, 208))
    pen = ImageDraw.Draw(image)
    pen.ellipse([scale * x for x in (16, 24, 64, 72)], fill=colours[0])
    pen.rectangle([scale * x for x in (80, 32, 112, 64)], fill=colours[1])
    return image
