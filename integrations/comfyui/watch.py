"""What a node shows while it works: progress, the picture as it becomes, text as it is written. And it stops the
work as soon as ComfyUI's cancel button is pressed."""

from __future__ import annotations

import time
from typing import Any

import comfy.model_management
import comfy.utils
from PIL import Image

from bagel import Bagel, ImageStep, TextDone, TextPiece
from bagel.app.previews import Pace

PREVIEW_SIDE = 512
"""Longest side of a preview, in pixels."""
TEXT_PAUSE = 0.1
"""Seconds between two looks at a text that is being written."""


class Watch:
    """The progress callback of a node's requests. node: ComfyUI's id of it. count: how many requests; the first is
    the one whose previews and text are shown. most_tokens: of each answer, where text is all that is made."""

    def __init__(self, model: Bagel, node: str | None, count: int = 1, most_tokens: int = 0) -> None:
        self._model, self._node, self._count = model, node, count
        self._most_tokens, self._tokens = most_tokens * count, 0
        self._updates: dict[int, int] = {}
        self._pace = Pace(lambda: count)
        self._bar = comfy.utils.ProgressBar(1)
        self._text, self._next_text = "", 0.0

    def __call__(self, request: int, event: Any) -> None:
        """Raises ComfyUI's InterruptProcessingException where the work is to stop."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        if isinstance(event, ImageStep):
            self._step(request, event)
        elif isinstance(event, TextPiece):
            self._piece(request, event)
        elif isinstance(event, TextDone) and request == 0:
            self._tell(event.text)

    def _step(self, request: int, step: ImageStep) -> None:
        self._updates[request] = step.update
        preview = None
        if request == 0 and self._pace.wants(step):
            began = time.perf_counter()
            preview = ("JPEG", self._decoded(step), PREVIEW_SIDE)
            self._pace.spent(time.perf_counter() - began)
        self._bar.update_absolute(sum(self._updates.values()), step.updates * self._count, preview)

    def _decoded(self, step: ImageStep) -> Image.Image:
        return self._model.runtime.decode(step.latent, step.grid)

    def _piece(self, request: int, piece: TextPiece) -> None:
        self._tokens += 1
        if self._most_tokens:
            self._bar.update_absolute(self._tokens, self._most_tokens)
        if request == 0:
            self._text += piece.text
            if time.perf_counter() >= self._next_text:
                self._next_text = time.perf_counter() + TEXT_PAUSE
                self._tell(self._text)

    def _tell(self, text: str) -> None:
        """Shows it below the node."""
        from server import PromptServer

        PromptServer.instance.send_progress_text(text, self._node, PromptServer.instance.client_id)


class LoadingWatch:
    """The same while a model is loaded."""

    def __init__(self) -> None:
        self._bar = comfy.utils.ProgressBar(1)

    def __call__(self, done: int, total: int) -> None:
        """Bytes read, bytes in all."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        self._bar.update_absolute(done, total)
