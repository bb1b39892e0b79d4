"""The engine of a crew's leader: every pass is made by all ranks. It alone knows of requests; the others are told
what their contexts read (`bagel.infer.follow`), so that jobs, the scheduler, sessions and the server are the same
on one GPU and on many.

What a context keeps is read by every branch of the grid. What it does not keep, the updates of pictures, is dealt
out over them, and the results come back to the leader, who guides, draws tokens and decodes.
"""

from __future__ import annotations

import itertools
import signal
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bagel.errors import DeviceError
from bagel.infer.context import Context, Devices, Mark
from bagel.infer.engine import Engine, Read, Seen
from bagel.model.config import LLMConfig
from bagel.pack import LatentPart, Part, VitPart
from bagel.parallel.crew import Crew

Notes = deque[tuple[Any, ...]]
"""What has become of contexts since the last pass: ("new", number), ("fork", child, parent, length, position),
("back", number, length, position), ("drop", number); and of the pass itself: ("failed",), ("forget",)."""


class PassOrder(NamedTuple):
    """What the followers are told before a pass. reads: (number of the context, part without its tensor, index of
    the tensor or None, keep); tensors: (shape, dtype) of what follows over the devices."""

    notes: list[tuple[Any, ...]]
    reads: list[tuple[int, Part, int | None, bool]]
    tensors: list[tuple[tuple[int, ...], torch.dtype]]
    fast: bool


_numbers = itertools.count()


class LeadContext(Context):
    """A context that the followers have too."""

    def __init__(self, config: LLMConfig, dtype: torch.dtype, device: Devices, notes: Notes) -> None:
        super().__init__(config, dtype, device)
        self._begin(notes, "new")

    def _begin(self, notes: Notes, word: str, *about: int) -> None:
        self.notes, self.number = notes, next(_numbers)
        notes.append((word, self.number, *about))
        weakref.finalize(self, notes.append, ("drop", self.number)).atexit = False

    def fork(self, at: Mark | None = None) -> Context:
        child = super().fork(at)
        assert isinstance(child, LeadContext)
        child._begin(self.notes, "fork", self.number, child.length, child.position)
        return child

    def back_to(self, mark: Mark) -> None:
        super().back_to(mark)
        self.notes.append(("back", self.number, mark.length, mark.position))


@dataclass
class LeadEngine(Engine):
    """As Engine, for all ranks of a crew. broken: why no pass can be made any more; ending: what ends the crew."""

    ahead: bool = False  # the others begin a step when they are told to
    crew: Crew | None = None
    broken: str = ""
    ending: Callable[[], object] | None = None
    _notes: Notes = field(default_factory=deque, init=False, repr=False)

    def new_context(self) -> Context:
        return LeadContext(self.model.local, self.model.dtype, self.model.device, self._notes)

    def close(self) -> None:
        """Ends the other processes, which free their devices."""
        self.broken = self.broken or "the model is closed; load it again."
        if self.ending is not None:
            self.ending()

    def forget(self) -> None:
        super().forget()
        self._notes.append(("forget",))

    def _pass(self, reads: Sequence[Read]) -> list[Seen]:
        """Raises DeviceError where a process of the crew has ended."""
        with undisturbed():
            return self._made(reads)

    def _made(self, reads: Sequence[Read]) -> list[Seen]:
        assert self.crew is not None
        if self.broken:
            raise DeviceError(self.broken)
        self._tell(self.crew, reads)
        owners = deal(reads, self.crew.grid.branches)
        mine = [read for read, owner in zip(reads, owners, strict=True) if owner in (None, 0)]
        try:
            seen = iter(super()._pass(mine) if mine else [])
        except Exception:
            self._notes.append(("failed",))
            raise
        return [next(seen) if owner in (None, 0) else self._received(read, owner) for read, owner in
                zip(reads, owners, strict=True)]  # fmt: skip

    def _tell(self, crew: Crew, reads: Sequence[Read]) -> None:
        tensors: dict[int, Tensor] = {}
        told = []
        for read in reads:
            assert isinstance(read.context, LeadContext)
            part, tensor = without_tensor(read.part)
            index = None
            if tensor is not None:
                known = list(tensors)
                index = known.index(id(tensor)) if id(tensor) in tensors else len(known)
                tensors[id(tensor)] = tensor
            told.append((read.context.number, part, index, read.keep))
        notes = [self._notes.popleft() for _ in range(len(self._notes))]
        about = [(tuple(tensor.shape), tensor.dtype) for tensor in tensors.values()]
        crew.order(PassOrder(notes, told, about, self.fast))
        crew.share_out([tensor.to(crew.device).contiguous() for tensor in tensors.values()])

    def _received(self, read: Read, owner: int | None) -> Seen:
        """What another branch's first rank computed: the stream of the latents."""
        assert self.crew is not None
        assert owner is not None
        assert isinstance(read.part, LatentPart)
        shape = len(read.part.latents), self.model.config.llm.hidden_size
        latents = torch.empty(shape, dtype=self.model.dtype, device=self.model.device)
        self.crew.receive(latents, self.crew.grid.rank(owner))
        return Seen(latents[:0], latents)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Ctrl-C is heard behind a pass: within it, the ranks wait for each other."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[tuple[int, Any]] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: heard.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if heard and callable(before):
            before(*heard[0])


def deal(reads: Sequence[Read], branches: int) -> list[int | None]:
    """Which branch of the grid makes each read; None: every one, since its context keeps it. The longest first, to
    the branch that has least to do."""
    owners: list[int | None] = [None] * len(reads)
    load = [0] * branches
    dealt = [index for index, read in enumerate(reads) if not read.keep]
    for index in sorted(dealt, key=lambda index: -reads[index].part.segment.length):
        owner = load.index(min(load))
        owners[index] = owner
        load[owner] += reads[index].part.segment.length
    return owners


def without_tensor(part: Part) -> tuple[Part, Tensor | None]:
    """A part to be told over the hosts, and the tensor that goes over the devices."""
    if isinstance(part, VitPart):
        return replace(part, patches=_NONE), part.patches
    if isinstance(part, LatentPart):
        return replace(part, latents=_NONE), part.latents
    return part, None


def with_tensor(part: Part, tensor: Tensor | None) -> Part:
    """The part again."""
    if isinstance(part, VitPart):
        assert tensor is not None
        return replace(part, patches=tensor)
    if isinstance(part, LatentPart):
        assert tensor is not None
        return replace(part, latents=tensor)
    return part


_NONE = torch.empty(0)


def applied(notes: Iterable[tuple[Any, ...]], contexts: dict[int, Context], engine: Engine) -> bool:
    """A follower does what its leader's contexts did; -> whether the leader's last pass failed."""
    failed = False
    for word, *about in notes:
        if word == "new":
            contexts[about[0]] = engine.new_context()
        elif word == "fork":
            contexts[about[0]] = contexts[about[1]].fork(Mark(about[2], about[3], ()))
        elif word == "back":
            contexts[about[0]].back_to(Mark(about[1], about[2], ()))
        elif word == "drop":
            del contexts[about[0]]
        elif word == "forget":
            engine.forget()
        else:
            failed = True
    return failed
