"""The decoder's layers on the host, taking turns in a few slots on the device.

A unit is one expert's half of a layer, in one piece of pinned memory. A pass needs its units in a known order:
those of the understanding expert where nothing is drawn, those of both where something is. Of that order as many
as there are slots stay where they are; the rest, spread evenly between them, share a ring of slots: as soon as
one has been used, the next is copied over it on a stream of its own, while the layers between compute. When
reading turns into drawing, the slots are given to the other order: the experts are swapped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bagel.model.attention import Attend
from bagel.model.decoder import Angles, Block, Decoder, Read

_ALIGN, _RING = 256, 3


class _Piece(NamedTuple):
    owner: nn.Module
    key: str
    start: int
    size: int
    dtype: torch.dtype
    shape: torch.Size


class Unit:
    """The tensors of one expert in one layer; `seen`: modules that another unit has, by id."""

    def __init__(self, expert: nn.Module, seen: set[int], pin: bool) -> None:
        self.pieces: list[_Piece] = []
        self.bound: Tensor | None = None
        values: list[Tensor] = []
        self.size = 0
        for owner in [module for module in expert.modules() if id(module) not in seen]:
            seen.add(id(owner))
            for key, value in (*owner._parameters.items(), *owner._buffers.items()):
                if value is None:
                    continue
                size = value.numel() * value.element_size()
                self.pieces.append(_Piece(owner, key, self.size, size, value.dtype, value.shape))
                values.append(value.detach())
                self.size += -(-size // _ALIGN) * _ALIGN
        self.host = torch.empty(self.size, dtype=torch.uint8, pin_memory=pin)
        for piece, value in zip(self.pieces, values, strict=True):
            _view(self.host, piece).copy_(value)
        self.bind(self.host)

    def bind(self, memory: Tensor) -> None:
        """Lets the modules read their weights there."""
        if self.bound is memory:
            return
        self.bound = memory
        for piece in self.pieces:
            value = _view(memory, piece)
            if piece.key in piece.owner._parameters:
                piece.owner._parameters[piece.key] = nn.Parameter(value, requires_grad=False)
            else:
                piece.owner._buffers[piece.key] = value


def _view(memory: Tensor, piece: _Piece) -> Tensor:
    return memory[piece.start : piece.start + piece.size].view(piece.dtype).view(piece.shape)


def ring_of(count: int, num_slots: int) -> tuple[int, int]:
    """Slots of the ring, and how many of `count` units pass through them in turn."""
    ring = min(_RING, num_slots) if count > num_slots else 0
    return ring, count - (num_slots - ring) if ring else 0


def fetched(count: int, num_slots: int) -> int:
    """Units copied in a pass that is like the one before: those that share their slot."""
    ring, passing = ring_of(count, num_slots)
    return min(passing, 2 * (passing - ring))


class Slot:
    """Memory on the device for one unit. used: the device has passed the last layer that read it; ready: the
    copy has arrived."""

    def __init__(self, size: int, device: torch.device) -> None:
        self.memory = torch.empty(size, dtype=torch.uint8, device=device)
        self.holds: Unit | None = None
        self.used: Any = torch.cuda.Event() if device.type == "cuda" else None
        self.ready: Any = torch.cuda.Event() if device.type == "cuda" else None


class Stream:
    """Units by layer and expert, and the slots they pass through. fetched: bytes copied so far."""

    def __init__(self, layers: Sequence[dict[str, Unit]], num_slots: int, device: torch.device) -> None:
        self.layers = list(layers)
        size = max((unit.size for layer in layers for unit in layer.values()), default=0)
        self.slots = [Slot(size, device) for _ in range(num_slots)]
        self.side = torch.cuda.Stream(device) if device.type == "cuda" else None
        if self.side is not None:  # the slots' memory may still be read by what held it before
            self.side.wait_stream(torch.cuda.current_stream(device))
        self.device = device
        self.fetched = 0
        self._drawing: bool | None = None
        self._slot: dict[int, Slot] = {}
        self._next: dict[int, Unit] = {}

    def begin(self, drawing: bool) -> None:
        """Before the first layer of a pass."""
        if drawing == self._drawing:
            return
        self._drawing = drawing
        wanted = ("und", "gen") if drawing else ("und",)
        order = [layer[name] for layer in self.layers for name in wanted if name in layer]
        for unit in self._assign(order):
            self._fetch(unit)

    def _assign(self, order: list[Unit]) -> list[Unit]:
        """Gives every unit of an order its slot; -> those that are to be there first, in order. What already lies
        in a slot and may stay there does."""
        count, num_slots = len(order), len(self.slots)
        ring, passing = ring_of(count, num_slots)
        turns = [order[(2 * i + 1) * count // (2 * passing)] for i in range(passing)]
        taking_turns = {id(unit) for unit in turns}
        staying = [unit for unit in order if id(unit) not in taking_turns]
        held = {id(slot.holds): slot for slot in self.slots if slot.holds is not None}
        self._slot = {id(unit): held[id(unit)] for unit in staying if id(unit) in held}
        kept = {id(slot) for slot in self._slot.values()}
        free = [slot for slot in self.slots if id(slot) not in kept]
        for unit in staying:
            if id(unit) not in self._slot:
                self._slot[id(unit)] = free.pop(0)
        self._next = {}
        for i, unit in enumerate(turns):
            self._slot[id(unit)] = free[i % ring]
            self._next[id(unit)] = turns[i + ring if i + ring < passing else i % ring]
        early = taking_turns - {id(unit) for unit in turns[ring:]}
        return [unit for unit in order if id(unit) not in taking_turns or id(unit) in early]

    def need(self, layer: int) -> None:
        """Before a layer: its weights are there when the device comes to it."""
        for unit in self._units(layer):
            self._fetch(unit)
            if self.side is not None:
                torch.cuda.current_stream(self.device).wait_event(self._slot[id(unit)].ready)

    def done(self, layer: int) -> None:
        """Behind a layer: its slots may be written again, and are."""
        for unit in self._units(layer):
            slot = self._slot[id(unit)]
            if slot.used is not None:
                slot.used.record(torch.cuda.current_stream(self.device))
            if id(unit) in self._next:
                self._fetch(self._next[id(unit)])

    def _units(self, layer: int) -> list[Unit]:
        return [unit for name, unit in self.layers[layer].items() if name == "und" or self._drawing]

    def _fetch(self, unit: Unit) -> None:
        slot = self._slot[id(unit)]
        if slot.holds is unit:
            unit.bind(slot.memory)  # a pass that broke off may have left it in two slots
            return
        slot.holds = unit
        self.fetched += unit.size
        target = slot.memory[: unit.size]
        if self.side is None:
            target.copy_(unit.host)
        else:
            with torch.cuda.stream(self.side):
                self.side.wait_event(slot.used)
                target.copy_(unit.host, non_blocking=True)
                slot.ready.record(self.side)
        unit.bind(slot.memory)


class StreamedBlock(nn.Module):
    """A layer whose weights are fetched before it and given back behind it."""

    def __init__(self, block: Block, stream: Stream) -> None:
        super().__init__()
        self.block, self.stream = block, stream

    def forward(
        self, und: Tensor, gen: Tensor, und_angles: Angles, gen_angles: Angles, attend: Attend, read: Read | None = None
    ) -> tuple[Tensor, Tensor]:
        layer = self.block.layer
        if layer == 0:
            self.stream.begin(len(gen) > 0)
        self.stream.need(layer)
        out = self.block(und, gen, und_angles, gen_angles, attend, read)
        self.stream.done(layer)
        return out


def stream(decoder: Decoder, parts: Sequence[str], num_slots: int, device: torch.device) -> Stream:
    """Puts the weights of these experts' layers on the host and streams them from there."""
    seen: set[int] = set()
    layers: list[dict[str, Unit]] = []
    pin = device.type == "cuda"
    for block in decoder.layers:
        experts: dict[str, Any] = {"und": block.und, "gen": block.gen}
        wanted = [name for name in ("und", "gen") if name in parts]
        if block.gen is block.und:
            wanted = ["und"]
        units = {name: Unit(experts[name], seen, pin) for name in wanted}
        layers.append({name: unit for name, unit in units.items() if unit.size})
    made = Stream(layers, max(2, min(num_slots, sum(map(len, layers)))), device)
    for index, block in enumerate(decoder.layers):
        decoder.layers[index] = StreamedBlock(block, made)  # type: ignore[arg-type]
    return made
