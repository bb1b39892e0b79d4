"""The nodes: load, knobs, draw, edit, ask. Those of conversations are in `talk`."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from bagel import ImageOptions, TextOptions
from bagel.options import settle

from . import inputs, talk
from .inputs import CATEGORY, IMAGE_KNOBS, MODEL, TEXT_KNOBS
from .knobs import knobs_of, options_of
from .models import Loaded, adapters, model_names, model_path, register_folder
from .pictures import to_image
from .watch import Watch

DEFAULT = "default"
PRECISIONS = [DEFAULT, "auto", "bf16", "fp16", "fp32", "fp8", "int8", "nf4"]


class Load:
    """A model: its files, and how it is kept in memory."""

    CATEGORY, FUNCTION = CATEGORY, "run"
    DESCRIPTION = "Loads a BAGEL model. Nothing is downloaded. mini is embedded, and small."
    RETURN_TYPES, RETURN_NAMES = (MODEL,), ("model",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 - ComfyUI's name
        return {
            "required": {
                "model": (
                    model_names(),
                    {
                        "default": "mini",
                        "tooltip": "mini, or a folder in ComfyUI's models/bagel in the official layout.",
                    },
                ),
                "precision": (
                    PRECISIONS,
                    {
                        "default": DEFAULT,
                        "tooltip": "What the weights are kept in. default: 16 bits on a GPU; fp8, int8, nf4: less "
                        "memory; auto: the first of bf16, fp8, int8, nf4 that fits.",
                    },
                ),
                "offload": (
                    "STRING",
                    {
                        "default": "",
                        "tooltip": "Parts kept in the computer's memory: some of und,gen,vit,vae,embed,head, or auto, "
                        "as few as need be. Empty: none.",
                    },
                ),
                "device": (
                    "STRING",
                    {"default": "auto", "tooltip": "auto: ComfyUI's. Or cpu, cuda:1, mps, or several: cuda:0,cuda:1."},
                ),
            },
            "optional": {
                "path": (
                    "STRING",
                    {"default": "", "tooltip": "A folder or file elsewhere; wins over the choice above."},
                ),
                "lora": (
                    "STRING",
                    {
                        "default": "",
                        "multiline": True,
                        "tooltip": "Adapter folders, one a line, with a weight behind a colon: adapters/ink:0.8",
                    },
                ),
            },
        }

    def run(
        self, model: str, precision: str, offload: str, device: str, path: str = "", lora: str = ""
    ) -> tuple[Loaded]:
        loaded = Loaded(
            {
                "model": path.strip() or model_path(model),
                "precision": None if precision == DEFAULT else precision,
                "offload": offload.strip() or None,
                "device": device.strip() or "auto",
                "lora": adapters(lora),
            }
        )
        loaded.get()
        return (loaded,)


class Unload:
    """Frees a model's memory once something else is done, such as the picture that comes out of it."""

    CATEGORY, FUNCTION = CATEGORY, "run"
    DESCRIPTION = "Frees the model's memory as soon as `after` is there; it is loaded again when it is wanted again."
    RETURN_TYPES, RETURN_NAMES = ("*",), ("after",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        after = ("*", {"tooltip": "What must be done before, a picture for one. It is handed on."})
        return {"required": {"model": inputs.MODEL_INPUT, "after": after}}

    @classmethod
    def VALIDATE_INPUTS(cls, input_types: dict[str, str]) -> bool:  # noqa: N802
        """Takes anything."""
        return True

    def run(self, model: Loaded, after: Any) -> tuple[Any]:
        model.unload()
        return (after,)


class DrawKnobs:
    """How to draw."""

    CATEGORY, FUNCTION = CATEGORY, "run"
    DESCRIPTION = "The knobs of drawing, at the official app's values."
    RETURN_TYPES, RETURN_NAMES = (IMAGE_KNOBS,), ("knobs",)
    job = "draw"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        return {"required": knobs_of(ImageOptions, cls.job)}

    def run(self, **values: Any) -> tuple[ImageOptions]:
        return (options_of(ImageOptions, values),)


class EditKnobs(DrawKnobs):
    """How to edit: the same knobs, other values."""

    DESCRIPTION = "The knobs of editing, at the official app's values."
    job = "edit"


class TextKnobs:
    """How to write."""

    CATEGORY, FUNCTION = CATEGORY, "run"
    DESCRIPTION = "The knobs of writing, at the official app's values."
    RETURN_TYPES, RETURN_NAMES = (TEXT_KNOBS,), ("knobs",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        return {"required": knobs_of(TextOptions, "chat")}

    def run(self, **values: Any) -> tuple[TextOptions]:
        return (options_of(TextOptions, values),)


class Draw:
    """Pictures of what the prompt says."""

    CATEGORY, FUNCTION = CATEGORY, "run"
    DESCRIPTION = "Draws pictures from a prompt, several in one batch."
    RETURN_TYPES, RETURN_NAMES = ("IMAGE", "STRING"), ("image", "thought")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        count = ("INT", {"default": 1, "min": 1, "max": 64, "tooltip": "Pictures, with seeds one apart."})
        return {
            "required": {
                "model": inputs.MODEL_INPUT,
                "prompt": inputs.text("What to draw.", "a red cube on a table"),
                "seed": inputs.SEED,
                **inputs.SIDES,
                "count": count,
                "think": inputs.THINK,
            },
            "optional": {"knobs": inputs.IMAGE_KNOBS_INPUT},
            "hidden": inputs.NODE_ID,
        }

    def run(
        self,
        model: Loaded,
        prompt: str,
        seed: int,
        width: int,
        height: int,
        count: int,
        think: bool,
        knobs: ImageOptions | None = None,
        node: str | None = None,
    ) -> tuple[Tensor, str]:
        bagel = model.get()
        results = bagel.draw(
            [prompt] * count,
            knobs,
            seed=inputs.seeds(seed, count),
            think=think,
            progress=Watch(bagel, node, count),
            **inputs.sides(width, height),
        )
        return to_image([result.images[-1] for result in results]), _thoughts(results)


class Edit:
    """Pictures made from others by an instruction."""

    CATEGORY, FUNCTION = CATEGORY, "run"
    DESCRIPTION = "Changes each picture of a batch as the instruction says. Further pictures go with each of them."
    RETURN_TYPES, RETURN_NAMES = ("IMAGE", "STRING"), ("image", "thought")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        return {
            "required": {
                "model": inputs.MODEL_INPUT,
                "image": ("IMAGE", {"tooltip": "The picture to change; of a batch, each by itself."}),
                "instruction": inputs.text("What to change.", "make it blue"),
                "seed": inputs.SEED,
                **inputs.SIDES,
                "think": inputs.THINK,
            },
            "optional": {"knobs": inputs.IMAGE_KNOBS_INPUT, **inputs.MORE_PICTURES},
            "hidden": inputs.NODE_ID,
        }

    def run(
        self,
        model: Loaded,
        image: Tensor,
        instruction: str,
        seed: int,
        width: int,
        height: int,
        think: bool,
        knobs: ImageOptions | None = None,
        node: str | None = None,
        **more: Tensor,
    ) -> tuple[Tensor, str]:
        pictures = inputs.groups([image, *(more[name] for name in sorted(more))])
        bagel = model.get()
        results = bagel.edit(
            pictures,
            [instruction] * len(pictures),
            knobs,
            seed=inputs.seeds(seed, len(pictures)),
            think=think,
            progress=Watch(bagel, node, len(pictures)),
            **inputs.sides(width, height),
        )
        return to_image([result.images[-1] for result in results]), _thoughts(results)


class Ask:
    """Answers, about pictures or without."""

    CATEGORY, FUNCTION = CATEGORY, "run"
    DESCRIPTION = "Answers a question about pictures, or without any."
    RETURN_TYPES, RETURN_NAMES, OUTPUT_IS_LIST = ("STRING",), ("answer",), (True,)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        return {
            "required": {
                "model": inputs.MODEL_INPUT,
                "question": inputs.text("What to answer.", "What is in this picture?"),
                "seed": inputs.SEED,
                "think": inputs.THINK,
                "together": (
                    "BOOLEAN",
                    {
                        "default": False,
                        "tooltip": "A batch is read as the pictures of one question, frames of a video for one. "
                        "Otherwise there is an answer for each.",
                    },
                ),
            },
            "optional": {
                "image": ("IMAGE", {"tooltip": "What the question is about."}),
                "knobs": inputs.TEXT_KNOBS_INPUT,
                **inputs.MORE_PICTURES,
            },
            "hidden": inputs.NODE_ID,
        }

    def run(
        self,
        model: Loaded,
        question: str,
        seed: int,
        think: bool,
        together: bool,
        image: Tensor | None = None,
        knobs: TextOptions | None = None,
        node: str | None = None,
        **more: Tensor,
    ) -> tuple[list[str]]:
        images = [image, *(more[name] for name in sorted(more))]
        pictures = [[p for one in images for (p,) in inputs.groups([one])]] if together else inputs.groups(images)
        requests = [[*group, inputs.as_text(question)] for group in pictures or [[]]]
        bagel = model.get()
        most = settle(knobs or TextOptions(), "chat", bagel.config.presets).max_tokens
        results = bagel.chat(
            requests,
            knobs,
            seed=inputs.seeds(seed, len(requests)),
            think=think,
            progress=Watch(bagel, node, len(requests), most or 0),
        )
        return ([result.text for result in results],)


def _thoughts(results: list[Any]) -> str:
    return "\n\n".join(result.text for result in results if result.text)


register_folder()

_NODES: dict[str, tuple[type, str]] = {
    "BagelMotLoad": (Load, "BAGEL Load Model"),
    "BagelMotUnload": (Unload, "BAGEL Unload Model"),
    "BagelMotDrawKnobs": (DrawKnobs, "BAGEL Drawing Knobs"),
    "BagelMotEditKnobs": (EditKnobs, "BAGEL Editing Knobs"),
    "BagelMotTextKnobs": (TextKnobs, "BAGEL Writing Knobs"),
    "BagelMotDraw": (Draw, "BAGEL Draw"),
    "BagelMotEdit": (Edit, "BAGEL Edit"),
    "BagelMotAsk": (Ask, "BAGEL Ask"),
    "BagelMotTalk": (talk.NewTalk, "BAGEL New Conversation"),
    "BagelMotTalkRead": (talk.Read, "BAGEL Conversation: Read"),
    "BagelMotTalkDraw": (talk.DrawTurn, "BAGEL Conversation: Draw"),
    "BagelMotTalkSay": (talk.SayTurn, "BAGEL Conversation: Answer"),
    "BagelMotTalkGoOn": (talk.FreeTurn, "BAGEL Conversation: Go On"),
}
NODE_CLASS_MAPPINGS = {key: cls for key, (cls, _) in _NODES.items()}
NODE_DISPLAY_NAME_MAPPINGS = {key: name for key, (_, name) in _NODES.items()}
