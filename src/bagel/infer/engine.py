"""The engine: many contexts read or look at something in one pass of the model.

A job (a request on its way) is a generator that yields lists of `Read`, receives what came out of them, and
yields events on the way. `run` packs what all jobs want next into one pass: prompts being read, tokens being
written and images being denoised go together, on one copy of the weights.

Letters: D model width.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Generator, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bagel.errors import InputError
from bagel.infer.attention import CacheAttention, FastAttention, Window
from bagel.infer.context import Context
from bagel.infer.flow_step import FlowSteps
from bagel.infer.token_step import MOST_CONTEXTS, Draw, TokenStep, Wish
from bagel.model.bagel import BagelModel
from bagel.model.decoder import Read as Rows
from bagel.model.decoder import one_by_one
from bagel.model.kernels import forms, has_triton
from bagel.pack import LatentPart, Pack, PackRules, Part, TextPart, pack


class Choice(NamedTuple):
    """draw: how a token is drawn, None for the likeliest; more: whether the one behind it will be wanted too, unless
    the text ends with it."""

    draw: Draw | None
    more: bool


@dataclass(eq=False)
class Read:
    """One thing for one context to read. With `keep` the context goes on behind it; without (an image being
    denoised) the context stays as it was. `what` names it for comparing contexts; text names itself. choice: for one
    token of a text, how the one behind it will be chosen."""

    context: Context
    part: Part
    keep: bool = True
    what: Hashable = None
    choice: Choice | None = None

    @property
    def name(self) -> Hashable:
        return tuple(self.part.ids) if isinstance(self.part, TextPart) else self.what

    @property
    def is_written(self) -> bool:
        """Whether it is one token of a text, as while an answer is written."""
        return isinstance(self.part, TextPart) and len(self.part.ids) == 1 and self.keep


class Seen(NamedTuple):
    """The residual stream after a read: of its last und token [1, D], and of latent tokens that it does not keep
    [., D]; of those kept it may be empty. logits: [1, V] of the last token where the pass made them anyway, good until
    the next pass. chosen: the token behind it where the engine has made the read's choice; then there is no stream."""

    last: Tensor
    latents: Tensor
    logits: Tensor | None = None
    chosen: int | None = None

    def kept(self) -> Seen:
        """The same, good beyond the next pass."""
        return self._replace(last=self.last.clone(), logits=None if self.logits is None else self.logits.clone())


@dataclass(frozen=True)
class Beside:
    """Something to be made while the passes of other jobs go on, in the engine's thread for that."""

    make: Callable[[], Any]


Job = Generator[Any, Any, Any]
"""Yields lists of Read (answered by lists of Seen), a Claim to room before it begins, what is made Beside the passes
(answered by what that gives), and events; returns its result."""


@dataclass
class Engine:
    """Runs reads through the model, at most `max_tokens` new tokens in a pass (a longer read goes alone).
    fast: on a GPU, kernels made for it and captured graphs; the plain path, PyTorch's operations one by one, is the
    reference. ahead: while text is written, the next token is begun before the last one is read."""

    model: BagelModel
    rules: PackRules
    max_tokens: int = 16640
    fast: bool = True
    ahead: bool = True
    passes: int = field(default=0, init=False)
    _token_step: TokenStep | None = field(default=None, init=False, repr=False)
    _flow_steps: FlowSteps | None = field(default=None, init=False, repr=False)

    @functools.cached_property
    def beside(self) -> ThreadPoolExecutor | None:
        """A thread for what needs no pass, on the CPU, where it is a core's work that others need not wait for. A GPU
        does one thing after the other anyway: there it is made on the spot."""
        return ThreadPoolExecutor(1, "bagel-beside") if self.model.device.type == "cpu" else None

    def aside(self, make: Callable[..., Any], *arguments: Any) -> Job:
        """For a job: make(*arguments), beside the passes where there is a thread for it."""
        if self.beside is None:
            return make(*arguments)
        return (yield Beside(functools.partial(make, *arguments)))

    def new_context(self) -> Context:
        return Context(self.model.local, self.model.dtype, self.model.layer_devices or self.model.device)

    @torch.inference_mode()
    def forward(self, reads: Sequence[Read]) -> list[Seen]:
        """One answer a read, in order. Several reads of one context are read one behind the other, in one pass
        where it has room.

        Raises InputError where a context would grow beyond the positions that the model knows.
        """
        self.check(reads)
        *earlier, last = [list(batch) for batch in self._batches(reads)] or [[]]
        kept = [seen.kept() for batch in earlier for seen in self._pass(batch)]
        return [*kept, *(self._pass(last) if last else [])]

    def _batches(self, reads: Sequence[Read]) -> Iterator[list[Read]]:
        batch: list[Read] = []
        tokens = 0
        for read in reads:
            length = read.part.segment.length
            # Something read and not kept must not be seen by what the same context reads next.
            clash = any(read.context is other.context and not (read.keep and other.keep) for other in batch)
            if batch and (clash or tokens + length > self.max_tokens):
                yield batch
                batch, tokens = [], 0
            batch.append(read)
            tokens += length
        if batch:
            yield batch

    def _pass(self, reads: Sequence[Read]) -> list[Seen]:
        with forms(self.fast):
            return self._pass_of(reads)

    def _pass_of(self, reads: Sequence[Read]) -> list[Seen]:
        self.passes += 1
        if self._writes_only(reads):
            return self._write_step(reads)
        if self._denoises_only(reads):
            return self._flow_step(reads)
        drawn = [self._drawn(read) for read in reads]
        inputs, windows = self._prepare(reads)
        inputs = inputs.to(self.model.device)
        wanted = self._wanted(reads, windows)
        if self._fast():
            und, gen = self.model(inputs, FastAttention(windows, inputs.layout.num_und, self.model.device), wanted)
        else:
            attention = CacheAttention(windows)
            und, gen = self.model(inputs, attention, wanted)
            attention.finish()
        for read in reads:
            _advance(read)
        if wanted is None:
            und = und[_last_rows(windows, und.device)]
        seen = self._seen(reads, windows, und, gen)
        return [one if token is None else one._replace(chosen=token) for one, token in zip(seen, drawn, strict=True)]

    def _wanted(self, reads: Sequence[Read], windows: Sequence[Window]) -> Rows | None:
        """What is read behind the last layer: the last und token of every read, and latents that are not kept."""
        model = self.model
        if model.decoder.through is not one_by_one or model.layer_devices is not None:
            return None
        denoises = any(isinstance(read.part, LatentPart) and not read.keep for read in reads)
        nothing = torch.empty(0, dtype=torch.int64, device=model.device)
        return Rows(_last_rows(windows, model.device), None if denoises else nothing)

    def _drawn(self, read: Read) -> int | None:
        """The choice of a read where an earlier pass has made it ahead."""
        if self._token_step is None or read.choice is None or not isinstance(read.part, TextPart):
            return None
        return self._token_step.held(read.context, read.part.ids[0])

    def logits(self, last: Tensor) -> Tensor:
        """Of residual streams [., D] behind the last layer -> [., V]."""
        with forms(self.fast):
            return self.model.logits(last)

    def velocity(self, latents: Tensor) -> Tensor:
        """Of residual streams [., D] behind the last layer -> float32 [., Z]."""
        with forms(self.fast):
            return self.model.velocity(latents)

    def _seen(self, reads: Sequence[Read], windows: Sequence[Window], und: Tensor, gen: Tensor) -> list[Seen]:
        """Of tokens being written the logits too, for all of them in one product. und: [reads, D]."""
        written = [row for row, read in enumerate(reads) if read.is_written]
        logits: dict[int, Tensor] = {}
        if len(written) > 1:
            these = und[torch.tensor(written, device=und.device)]
            logits = dict(zip(written, self.model.logits(these).split(1), strict=True))
        return [Seen(und[row : row + 1], gen[w.span.gen], logits.get(row)) for row, w in enumerate(windows)]

    def _prepare(self, reads: Sequence[Read]) -> tuple[Pack, list[Window]]:
        """The reads as a pack, a sample for each context, and for each read its place in the context's storage."""
        by_context: dict[Context, list[Read]] = {}
        for read in reads:
            by_context.setdefault(read.context, []).append(read)
        samples = [[read.part for read in group] for group in by_context.values()]
        inputs = pack(samples, self.rules, [context.position for context in by_context])
        spans, windows = iter(inputs.layout.spans), {}
        for context, group in by_context.items():
            store, at = context.reserve(sum(read.part.segment.length for read in group)), context.length
            for read in group:
                windows[read] = Window(store, at, next(spans))
                at = windows[read].end
        return inputs, [windows[read] for read in reads]

    def _denoises_only(self, reads: Sequence[Read]) -> bool:
        return self._fast() and all(isinstance(r.part, LatentPart) and r.part.noised and not r.keep for r in reads)

    def _flow_step(self, reads: Sequence[Read]) -> list[Seen]:
        self._flow_steps = self._flow_steps or FlowSteps(self.model)
        latents = [(read.context, read.part) for read in reads if isinstance(read.part, LatentPart)]
        gen = self._flow_steps(latents, lambda: self._prepare(reads))
        return [Seen(gen[:0], part) for part in gen.split([len(part.latents) for _, part in latents])]

    def _writes_only(self, reads: Sequence[Read]) -> bool:
        """Whether every read is one token of text, on a device where that step can be captured."""
        return self.separates and len(reads) <= MOST_CONTEXTS and all(read.is_written for read in reads)

    @property
    def separates(self) -> bool:
        """Whether words and updates of pictures are faster in passes of their own: captured graphs serve them."""
        return self._fast() and self.model.capturable

    def close(self) -> None:
        """Lets go of what is not this process's: see `LeadEngine`."""

    def forget(self) -> None:
        """Drops the captured graphs and their memory; they are made again when wanted."""
        self._token_step = self._flow_steps = None

    def _fast(self) -> bool:
        """Whether the kernels for a GPU can be used; they are written for 16-bit numbers."""
        half = self.model.dtype in (torch.bfloat16, torch.float16) and self.model.layer_devices is None
        return self.fast and half and self.model.device.type == "cuda" and has_triton()

    def _write_step(self, reads: Sequence[Read]) -> list[Seen]:
        step = self._token_step = self._token_step or TokenStep(self.model)
        asked = [(read, read.part.ids[0]) for read in reads if isinstance(read.part, TextPart)]
        wishes = [Wish(r.context, token, *r.choice) for r, token in asked if self._chooses(r) and r.choice is not None]
        plain = [(read.context, token) for read, token in asked if not self._chooses(read)]
        chosen = iter(step.choose(wishes) if wishes else ())
        rows = zip(*(x.split(1) for x in step(plain)), strict=True) if plain else iter(())
        none = torch.empty(0, self.model.config.llm.hidden_size, dtype=self.model.dtype, device=self.model.device)
        answers = []
        for read in reads:
            _advance(read)
            if self._chooses(read):
                answers.append(Seen(none, none, chosen=next(chosen)))
            else:
                stream, logits = next(rows)
                answers.append(Seen(stream, none, logits))
        return answers

    def _chooses(self, read: Read) -> bool:
        return self.ahead and read.choice is not None

    def check(self, reads: Sequence[Read]) -> None:
        """Raises InputError where a context would grow beyond the positions that the model knows."""
        limit = self.model.config.llm.max_position_embeddings
        ends: dict[Context, int] = {}
        for read in reads:
            used = read.part.segment.positions if read.keep else 1
            ends[read.context] = ends.get(read.context, read.context.position) + max(used, 1)
        end = max(ends.values(), default=0)
        if end > limit:
            raise InputError(
                f"the context would need {end:,} positions, the model knows {limit:,} "
                "(max_position_embeddings); shorten the text or begin a new session."
            )


def _last_rows(windows: Sequence[Window], device: torch.device) -> Tensor:
    """Of every window the row of its last und token, int64 [windows]."""
    return torch.tensor([window.span.und.stop - 1 for window in windows], device=device)


def _advance(read: Read) -> None:
    if read.keep:
        read.context.advance(read.part.segment, read.name)


def run(engine: Engine, jobs: Sequence[Job]) -> Iterator[tuple[int, Any]]:
    """Runs jobs side by side to their end; yields (number of the job, event) as events come, and each job's
    result, wrapped in `Finished`, as its last. An error of one ends all. Closing this iterator closes the jobs."""
    from bagel.infer.scheduler import Failed, Limits, Scheduler

    scheduler = Scheduler(engine, Limits(active=len(jobs), places=sys.maxsize, together=True))
    number = {scheduler.submit(job): index for index, job in enumerate(jobs)}
    try:
        while scheduler.busy:
            for ticket, event in scheduler.step():
                if isinstance(event, Failed):
                    raise event.error
                yield number[ticket], event
    finally:
        scheduler.close()


@dataclass(frozen=True)
class Finished:
    """A job's result."""

    result: Any
