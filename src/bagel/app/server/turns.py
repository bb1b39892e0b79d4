"""Jobs of the server: chats of several turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from bagel.infer import jobs
from bagel.infer.conversation import Conversation, Input, Runtime
from bagel.infer.demand import demand_of
from bagel.infer.engine import Job
from bagel.infer.result import Result
from bagel.memory.room import Claim
from bagel.options import ImageOptions, TextOptions


@dataclass(frozen=True)
class Turn:
    """What one side said. own: by the model or the system, which guidance never takes away."""

    items: Sequence[Input]
    own: bool = False


@dataclass
class Chat:
    """A conversation to be answered: with text, or by a plan with pictures too (`image` is set then). The
    result is a Result; `prompt_tokens` is filled when everything is read."""

    turns: Sequence[Turn]
    text: TextOptions
    image: ImageOptions | None = None
    plan: jobs.Plan = field(default_factory=jobs.Plan)
    prompt_tokens: int = 0

    def job(self, runtime: Runtime) -> Job:
        items = [item for turn in self.turns for item in turn.items]
        claim = Claim(runtime.room, demand_of(runtime.checkpoint, items, self.image, self.text))
        yield claim
        with claim.held():
            return (yield from self._job(runtime))

    def _job(self, runtime: Runtime) -> Job:
        chosen = self.image or self.text
        conversation, result = Conversation(runtime), Result(seed=jobs.seed_of(chosen))
        with result.stats.phase("read"):
            yield from self._read(conversation)
        self.prompt_tokens = conversation.cond.length
        if self.image is None:
            yield from jobs.answer_next(conversation, self.text, result)
        else:
            result.text = ""
            yield from jobs.interleave_next(conversation, self.plan, self.image, self.text, result)
        return result

    def _read(self, conversation: Conversation) -> Job:
        draws = self.image is not None
        if (self.image or self.text).think:
            yield from conversation.read_inputs([], latents=draws, think="image" if draws else "text")
        for turn in self.turns:
            if not turn.own:
                yield from conversation.read_inputs(turn.items, latents=draws)
                continue
            for item in turn.items:
                if isinstance(item, str):
                    yield from conversation.read_text(item, is_input=False)
                else:
                    yield from conversation.read_image(item, latents=draws)
