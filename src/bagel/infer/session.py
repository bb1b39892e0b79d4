"""Many turns over one kept context."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from PIL import Image

from bagel.errors import InputError
from bagel.infer import jobs, turns
from bagel.infer.conversation import Conversation, Runtime
from bagel.infer.demand import demand_of
from bagel.infer.engine import Finished, Job, run
from bagel.infer.inputs import as_input, check_size, split_fields
from bagel.infer.result import Result
from bagel.options import ImageOptions, TextOptions, make, settle

Progress = Callable[[int, Any], None]
"""Called with (number of the request, event) while requests run."""


class Session:
    """Reads text and pictures, draws and answers in any order; what it made is part of what it has read.

    A fork goes on by itself and shares what both have read; leaving the `with` block, or dropping the last
    reference, frees the context. A turn that fails or is interrupted leaves the session as it was before it.
    """

    def __init__(
        self, runtime: Runtime, conversation: Conversation | None = None, *, progress: Progress | None = None
    ) -> None:
        self._runtime, self._progress = runtime, progress
        self._conversation: Conversation | None = conversation or Conversation(runtime)

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._conversation = None

    @property
    def conversation(self) -> Conversation:
        if self._conversation is None:
            raise InputError("the session is closed; open a new one with model.session().")
        return self._conversation

    def fork(self) -> Session:
        return Session(self._runtime, self.conversation.fork(), progress=self._progress)

    def read(self, item: Any, *, latents: bool = True) -> None:
        """Text, or a picture (PIL, path, bytes). latents: a picture's latents are read too, which drawing from
        it needs; answering does not, and without them it reads as in `Bagel.chat`."""
        value = as_input(item)
        self._check([value])
        self._turn(turns.read(self.conversation, [value], latents=latents))

    def draw(self, options: ImageOptions | None = None, *, keep: bool = True, **fields: Any) -> Result:
        """The next picture, as big as the last one read unless told. keep: read it back, so that the next turn
        goes on from it."""
        config, size = self._runtime.checkpoint.config, self.conversation.size
        job = "edit" if size else "draw"
        settled = check_size(settle(make(ImageOptions, options, fields), job, config.presets), config)
        self._check([], settled)
        result = Result(seed=jobs.seed_of(settled))
        self._turn(turns.draw(self.conversation, settled, result, keep=keep))
        return result

    def say(self, options: TextOptions | None = None, *, keep: bool = True, **fields: Any) -> Result:
        """The next answer. think, here and in `draw`: the system prompt for thinking is read in this turn alone."""
        presets = self._runtime.checkpoint.config.presets
        settled = settle(make(TextOptions, options, fields), "chat", presets)
        self._check([], text=settled)
        result = Result(seed=jobs.seed_of(settled))
        self._turn(turns.say(self.conversation, settled, result, keep=keep))
        return result

    def go_on(self, parts: Sequence[str] | None = None, *, max_images: int = 8, **fields: Any) -> Result:
        """Text and pictures in turn, all kept. parts: "text" and "image" in the order wanted; without them the
        model decides. fields: of ImageOptions and TextOptions."""
        config = self._runtime.checkpoint.config
        image, text = split_fields(fields)
        job = "edit" if self.conversation.size else "draw"
        drawn = check_size(settle(image, job, config.presets), config)
        result = Result(seed=jobs.seed_of(drawn), text="")
        written = settle(text, "chat", config.presets)
        plan = jobs.Plan(parts, max_images)
        self._check([], drawn, written)
        self._turn(turns.go_on(self.conversation, plan, drawn, written, result))
        return result

    def _check(
        self, inputs: Sequence[str | Image.Image], image: ImageOptions | None = None, text: TextOptions | None = None
    ) -> None:
        """Raises MemoryPlanError where a turn would not fit to its end; nothing has been done then."""
        runtime, conversation = self._runtime, self.conversation
        if runtime.room.free is not None:
            held, size = conversation.cond.length, conversation.size
            runtime.room.check(demand_of(runtime.checkpoint, inputs, image, text, held=held, size=size))

    def _turn(self, job: Job) -> None:
        """Runs a turn, and goes on from where it has led once it is done."""
        for index, event in run(self._runtime.engine, [job]):
            if isinstance(event, Finished):
                self._conversation = event.result
            elif self._progress:
                self._progress(index, event)
