"""Inputs that several nodes have."""

from __future__ import annotations

from typing import Any

from PIL import Image
from torch import Tensor

from bagel import InputError, Text

from .knobs import MOST_SEED, Input
from .pictures import to_pil

MODEL, TALK = "BAGEL_MODEL", "BAGEL_CONVERSATION"
IMAGE_KNOBS, TEXT_KNOBS = "BAGEL_IMAGE_KNOBS", "BAGEL_TEXT_KNOBS"
CATEGORY = "BAGEL"
NODE_ID = {"node": "UNIQUE_ID"}

MODEL_INPUT: Input = (MODEL, {"tooltip": "From BAGEL Load Model."})
TALK_INPUT: Input = (
    TALK,
    {"tooltip": "From BAGEL New Conversation, or from an earlier turn. Several turns may go on from one."},
)
SEED: Input = (
    "INT",
    {
        "default": 0,
        "min": 0,
        "max": MOST_SEED,
        "control_after_generate": True,
        "tooltip": "Seed of this request's own generator. The same seed gives the same result.",
    },
)
THINK: Input = ("BOOLEAN", {"default": False, "tooltip": "Write a thought first, then answer or draw by it."})
IMAGE_KNOBS_INPUT: Input = (IMAGE_KNOBS, {"tooltip": "From a knobs node; without one, the model's own presets."})
TEXT_KNOBS_INPUT: Input = (TEXT_KNOBS, {"tooltip": "From BAGEL Writing Knobs; without them, the model's own presets."})
_ANOTHER: Input = ("IMAGE", {"tooltip": "Another picture of the same request."})
MORE_PICTURES: dict[str, Input] = {"image_2": _ANOTHER, "image_3": _ANOTHER, "image_4": _ANOTHER}


def text(tooltip: str, default: str = "") -> Input:
    return "STRING", {"multiline": True, "default": default, "dynamicPrompts": True, "tooltip": tooltip}


def side(name: str) -> Input:
    return "INT", {
        "default": 0,
        "min": 0,
        "max": 4096,
        "step": 16,
        "tooltip": f"{name} in pixels, a multiple of 16. 0: the last picture's; without a picture, the model's preset.",
    }


SIDES = {"width": side("Width"), "height": side("Height")}


def sides(width: int, height: int) -> dict[str, Any]:
    """The fields of the options that were set."""
    return {name: value for name, value in (("width", width), ("height", height)) if value}


def as_text(words: str) -> Text:
    """Words even where they look like a picture's name."""
    return Text(words)


def seeds(first: int, count: int) -> list[int]:
    """One apart."""
    return [(first + number) % (MOST_SEED + 1) for number in range(count)]


def groups(images: list[Tensor | None]) -> list[list[Image.Image]]:
    """The pictures of each request: one of each batch; a batch of one picture goes with all. Raises InputError for
    batches that do not fit each other."""
    batches = [to_pil(image) for image in images if image is not None]
    count = max((len(batch) for batch in batches), default=0)
    for batch in batches:
        if len(batch) not in (1, count):
            raise InputError(f"a batch has {len(batch)} pictures, another {count}; they must have as many, or one.")
    return [[batch[number % len(batch)] for batch in batches] for number in range(count)]
