"""Conversations: each turn is a node that goes on from what came before and leaves that as it was, so that ComfyUI
runs again only the turns that were changed, and turns may branch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from comfy_execution.graph_utils import ExecutionBlocker
from torch import Tensor

from bagel import ImageOptions, InputError, Session, TextOptions
from bagel.options import settle

from . import inputs
from .inputs import CATEGORY, TALK
from .knobs import given
from .models import Loaded
from .pictures import to_image, to_pil
from .watch import Watch

Act = Callable[[Session], Any]
"""What a turn does with its session."""


class Talk:
    """A conversation up to a turn. When its model is unloaded it forgets; when it is wanted again its turns are run
    again, and give what they gave."""

    def __init__(self, loaded: Loaded, begin: Callable[[], Session], session: Session | None = None) -> None:
        self.loaded, self._begin, self._session = loaded, begin, session
        loaded.keep(self)

    @classmethod
    def new(cls, loaded: Loaded) -> Talk:
        return cls(loaded, lambda: loaded.get().session(progress=loaded.tell))

    @property
    def session(self) -> Session:
        if self._session is None:
            self._session = self._begin()
        return self._session

    def turn(self, act: Act, node: str | None, most_tokens: int = 0) -> tuple[Talk, Any]:
        """The conversation behind the turn, and what the turn has made."""
        bagel = self.loaded.get()

        def begin() -> Session:
            session = self.session.fork()
            act(session)
            return session

        with self.loaded.watched(Watch(bagel, node, most_tokens=most_tokens)):
            session = self.session.fork()
            made = act(session)
        return Talk(self.loaded, begin, session), made

    def forget(self) -> None:
        self._session = None


class NewTalk:
    """A conversation in which nothing has been read yet."""

    CATEGORY, FUNCTION = CATEGORY, "run"
    DESCRIPTION = "Begins a conversation: pictures and text in turn, each drawn or written by all that came before."
    RETURN_TYPES, RETURN_NAMES = (TALK,), ("conversation",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        return {"required": {"model": inputs.MODEL_INPUT}}

    def run(self, model: Loaded) -> tuple[Talk]:
        return (Talk.new(model),)


_MESSAGE = inputs.text("What you say. May be empty.")
_PICTURES = {"image": ("IMAGE", {"tooltip": "Pictures that you send, read before the message."})}


class Read:
    """Pictures and text from the user, without an answer."""

    CATEGORY, FUNCTION = CATEGORY, "run"
    DESCRIPTION = "Adds pictures and text to a conversation, without an answer."
    RETURN_TYPES, RETURN_NAMES = (TALK,), ("conversation",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        required = {"conversation": inputs.TALK_INPUT, "message": _MESSAGE}
        return {"required": required, "optional": _PICTURES, "hidden": inputs.NODE_ID}

    def run(
        self, conversation: Talk, message: str, image: Tensor | None = None, node: str | None = None
    ) -> tuple[Talk]:
        if image is None and not message.strip():
            raise InputError("there is nothing to read; give a message, a picture or both.")
        talk, _ = conversation.turn(lambda session: read(session, message, image), node)
        return (talk,)


class DrawTurn:
    """The next picture of a conversation."""

    CATEGORY, FUNCTION = CATEGORY, "run"
    DESCRIPTION = "Reads a message and draws the next picture, from all that was read and made before."
    RETURN_TYPES, RETURN_NAMES = (TALK, "IMAGE", "STRING"), ("conversation", "image", "thought")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        return {
            "required": {
                "conversation": inputs.TALK_INPUT,
                "message": _MESSAGE,
                "seed": inputs.SEED,
                **inputs.SIDES,
                "think": inputs.THINK,
            },
            "optional": {**_PICTURES, "knobs": inputs.IMAGE_KNOBS_INPUT},
            "hidden": inputs.NODE_ID,
        }

    def run(
        self,
        conversation: Talk,
        message: str,
        seed: int,
        width: int,
        height: int,
        think: bool,
        image: Tensor | None = None,
        knobs: ImageOptions | None = None,
        node: str | None = None,
    ) -> tuple[Talk, Tensor, str]:
        def act(session: Session) -> Any:
            read(session, message, image)
            return session.draw(knobs, seed=seed, think=think, **inputs.sides(width, height))

        talk, result = conversation.turn(act, node)
        return talk, to_image(result.images), result.text or ""


class SayTurn:
    """The next answer of a conversation."""

    CATEGORY, FUNCTION = CATEGORY, "run"
    DESCRIPTION = "Reads a message and answers it, from all that was read and made before."
    RETURN_TYPES, RETURN_NAMES = (TALK, "STRING"), ("conversation", "answer")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        return {
            "required": {
                "conversation": inputs.TALK_INPUT,
                "message": _MESSAGE,
                "seed": inputs.SEED,
                "think": inputs.THINK,
            },
            "optional": {**_PICTURES, "knobs": inputs.TEXT_KNOBS_INPUT},
            "hidden": inputs.NODE_ID,
        }

    def run(
        self,
        conversation: Talk,
        message: str,
        seed: int,
        think: bool,
        image: Tensor | None = None,
        knobs: TextOptions | None = None,
        node: str | None = None,
    ) -> tuple[Talk, str]:
        def act(session: Session) -> Any:
            read(session, message, image)
            return session.say(knobs, seed=seed, think=think)

        presets = conversation.loaded.get().config.presets
        most = settle(knobs or TextOptions(), "chat", presets).max_tokens
        talk, result = conversation.turn(act, node, most or 0)
        return talk, result.text


class FreeTurn:
    """Text and pictures as the model decides, or in an order that is asked for."""

    CATEGORY, FUNCTION = CATEGORY, "run"
    DESCRIPTION = "Reads a message and goes on with text and pictures, as the model decides or as `parts` says."
    RETURN_TYPES, RETURN_NAMES = (TALK, "IMAGE", "STRING"), ("conversation", "images", "text")
    OUTPUT_IS_LIST = (False, True, False)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        return {
            "required": {
                "conversation": inputs.TALK_INPUT,
                "message": _MESSAGE,
                "seed": inputs.SEED,
                **inputs.SIDES,
                "parts": (
                    "STRING",
                    {"default": "", "tooltip": "What is to come: text,image for one. Empty: the model decides."},
                ),
                "max_images": ("INT", {"default": 4, "min": 0, "max": 64, "tooltip": "Most pictures."}),
            },
            "optional": {**_PICTURES, "image_knobs": inputs.IMAGE_KNOBS_INPUT, "text_knobs": inputs.TEXT_KNOBS_INPUT},
            "hidden": inputs.NODE_ID,
        }

    def run(
        self,
        conversation: Talk,
        message: str,
        seed: int,
        width: int,
        height: int,
        parts: str,
        max_images: int,
        image: Tensor | None = None,
        image_knobs: ImageOptions | None = None,
        text_knobs: TextOptions | None = None,
        node: str | None = None,
    ) -> tuple[Talk, list[Any], str]:
        fields = {**given(image_knobs), **given(text_knobs), **inputs.sides(width, height), "seed": seed}
        order = [part.strip() for part in parts.split(",") if part.strip()] or None

        def act(session: Session) -> Any:
            read(session, message, image)
            return session.go_on(order, max_images=max_images, **fields)

        talk, result = conversation.turn(act, node)
        pictures = [to_image([picture]) for picture in result.images]
        return talk, pictures or [ExecutionBlocker(None)], result.text or ""


def read(session: Session, message: str, image: Tensor | None) -> None:
    """Pictures, then the message, as far as there are any."""
    for picture in to_pil(image) if image is not None else ():
        session.read(picture)
    if message.strip():
        session.read(inputs.as_text(message))
