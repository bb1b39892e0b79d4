"""What lies where and what it will take, before anything is loaded.

A setup is a precision and the parts that are kept on the host. The experts of the decoder are *streamed*: their
layers take turns in as many slots as the card has room for, so that what fits stays and the rest is fetched
while the layers before it compute. ViT, autoencoder and head *visit*: they are on the card while they are used.
The embedding table's rows are looked up where it lies. Nothing is put on the host unless it was asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch

from bagel.devices import DTYPES, PACKED_PRECISIONS
from bagel.errors import InputError, MemoryPlanError
from bagel.memory.cards import Card
from bagel.memory.sizes import GIB, VISITS, Demand, Weights, phases, weights_of
from bagel.memory.stream import fetched
from bagel.model.config import Layers, ModelConfig
from bagel.parallel.shares import Cut

OFFLOADABLE = ("und", "gen", "vit", "vae", "embed", "head")
AUTO: tuple[tuple[str, ...], ...] = (
    (),
    ("vit",),
    ("vit", "vae"),
    ("vit", "vae", "embed"),
    ("und", "gen", "vit", "vae", "embed"),
    OFFLOADABLE,
)
"""What `offload="auto"` tries, in order."""

TILE = 512
FEWEST_SLOTS = 3


@dataclass(frozen=True)
class Setup:
    """precision: as in `bagel.devices.PRECISIONS`; dtype: what is computed in; offload: parts on the host; tile:
    side in pixels of the autoencoder's tiles, 0 for whole pictures; slots: of streamed layers; tensor: cards that
    share every layer."""

    precision: str
    dtype: torch.dtype
    offload: tuple[str, ...] = ()
    tile: int = 0
    slots: int = 0
    tensor: int = 1

    @property
    def packed(self) -> str | None:
        return self.precision if self.precision in PACKED_PRECISIONS else None

    @property
    def streamed(self) -> tuple[str, ...]:
        return tuple(part for part in self.offload if part in ("und", "gen"))

    @property
    def words(self) -> str:
        offload = f", offload {','.join(self.offload)}" if self.offload else ""
        shared = f", layers shared by {self.tensor} cards" if self.tensor > 1 else ""
        return f"precision {self.precision}{offload}{shared}"


@dataclass(frozen=True)
class Plan:
    """A setup on a card for a demand. phases: peak of each besides what stays; resident: bytes that stay; moved:
    bytes fetched from the host in a pass that draws."""

    setup: Setup
    card: Card
    demand: Demand
    weights: Weights
    phases: dict[str, int] = field(default_factory=dict)
    resident: int = 0
    moved: int = 0

    @property
    def work(self) -> int:
        return max(self.phases.values())

    @property
    def peak(self) -> int:
        return self.resident + self.work

    @property
    def headroom(self) -> int:
        return headroom(self.work)

    @property
    def fits(self) -> bool:
        return self.peak + self.headroom <= self.card.free

    def where(self, part: str) -> str:
        if part not in self.setup.offload:
            return "card"
        if part in ("und", "gen"):
            return f"host, streamed through {self.setup.slots} slots"
        return "host, rows looked up there" if part == "embed" else "host, visits the card"


def headroom(work: int) -> int:
    """Left free: the allocator's rounding and gaps grow with what comes and goes, weights leave none."""
    return int(0.3 * GIB + 0.1 * work)


def plan(config: ModelConfig, card: Card, demand: Demand, setup: Setup, num_tokens: int = 0) -> Plan:
    """The numbers of one setup, with as many slots as fit, whether it fits or not."""
    weights = weights_of(config, setup.dtype, setup.packed, num_tokens).shared(setup.tensor)
    config = replace(config, llm=Cut(0, setup.tensor).config(config.llm))
    widened = card.widens(setup.packed)
    visitors = {part: weights.parts[part] for part in VISITS if part in setup.offload}
    found = phases(config, demand, setup.dtype, widened=widened, tile=setup.tile, visitors=visitors)
    resident = sum(size for part, size in weights.parts.items() if part not in setup.offload)
    made = Plan(setup, card, demand, weights, found, resident)
    if not setup.streamed:
        return made
    # Text alone never asks for the generation expert.
    text_alone = not demand.height and not demand.latents and "und" in setup.streamed
    experts = 1 if config.llm.layers is Layers.DENSE or text_alone else len(setup.streamed)
    units = weights.num_layers * experts
    room = card.free - made.peak - made.headroom
    slots = setup.slots or min(units, max(FEWEST_SLOTS, room // weights.layer))
    moved = fetched(units, slots) * weights.layer
    return replace(made, setup=replace(setup, slots=slots), resident=resident + slots * weights.layer, moved=moved)


@dataclass(frozen=True)
class Ask:
    """What is asked of a setup. precision: None for the card's own; precision and offload may be "auto"; tensor: cards
    that share every layer."""

    precision: str | None = None
    offload: str | tuple[str, ...] | None = None
    tensor: int = 1

    def setups(self, card: Card) -> Iterator[Setup]:
        """What it allows, the best first. Raises InputError for an unknown part."""
        exact, by_need = own_precision(card), self.offload == "auto"
        precisions = [exact, *_smaller(card)] if self.precision == "auto" else [self.precision or exact]
        for tile in (0, TILE) if by_need else (0,):
            for parts in AUTO if by_need else (parts_of(self.offload),):
                for precision in precisions:
                    yield setup_for(card, precision, parts, tile, self.tensor)


def choose(config: ModelConfig, card: Card, demand: Demand, ask: Ask, num_tokens: int = 0) -> Plan:
    """The plan that was asked for, or the first that fits of what was left to us. Raises MemoryPlanError with the
    setups that would fit, InputError for an unknown part."""
    tried = [plan(config, card, demand, setup, num_tokens) for setup in ask.setups(card)]
    for one in tried:
        if one.fits:
            return one
    raise MemoryPlanError(refusal(tried[-1], list(alternatives(config, card, demand, num_tokens, ask.tensor))))


def setup_for(card: Card, precision: str, offload: tuple[str, ...] = (), tile: int = 0, tensor: int = 1) -> Setup:
    dtype = card.dtype if precision in PACKED_PRECISIONS else DTYPES[precision]
    return Setup(precision, dtype, offload, tile, tensor=tensor)


def own_precision(card: Card) -> str:
    return {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(card.dtype, "fp32")


def parts_of(offload: str | Sequence[str] | None) -> tuple[str, ...]:
    """Words like "und,vae", in a fixed order. Raises InputError."""
    words = offload.split(",") if isinstance(offload, str) else offload or ()
    if not isinstance(words, (list, tuple)):
        raise InputError(f"offload is {offload!r}; use auto or some of {', '.join(OFFLOADABLE)}.")
    words = tuple(str(word).strip() for word in words)
    for word in words:
        if word not in OFFLOADABLE:
            raise InputError(f"offload {word!r} is unknown; use auto or some of {', '.join(OFFLOADABLE)}.")
    return tuple(part for part in OFFLOADABLE if part in words)


def _smaller(card: Card) -> tuple[str, ...]:
    return ("fp8", "int8", "nf4") if card.fp8 else ("int8", "nf4")


def alternatives(
    config: ModelConfig, card: Card, demand: Demand, num_tokens: int = 0, tensor: int = 1
) -> Iterator[Plan]:
    """The setups we would recommend on this card, the best first, that fit: each precision on the card, then
    the smallest and the exact one with as little on the host as need be."""
    exact = own_precision(card)
    precisions = (exact, *_smaller(card))
    resident = [plan(config, card, demand, setup_for(card, p, tensor=tensor), num_tokens) for p in precisions]
    fitting = [one for one in resident if one.fits]
    yield from fitting
    for precision in ("nf4", exact):
        if any(one.setup.precision == precision for one in fitting):
            continue
        tried = (
            plan(config, card, demand, setup_for(card, precision, parts, tile, tensor), num_tokens)
            for tile in (0, TILE)
            for parts in AUTO[1:]
        )
        found = next((one for one in tried if one.fits), None)
        if found:
            yield found


def refusal(asked: Plan, others: list[Plan]) -> str:
    """The words of a MemoryPlanError."""
    setup, card = asked.setup, asked.card
    does = (
        f"{setup.words} needs {gib(asked.peak + asked.headroom)} for this job ({gib(asked.resident)} weights, "
        f"{gib(asked.work)} work, {gib(asked.headroom)} headroom), but {card.name} has {gib(card.free)} free"
    )
    if not others:
        return f"{does}, and no other setup fits either; ask for a smaller picture, fewer at once, or a shorter text."
    fitting = "; ".join(f"{one.setup.words} ({gib(one.peak + one.headroom)})" for one in others)
    return f"{does}. These would fit: {fitting}."


def gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB" if size >= GIB // 10 or not size else f"{size / 2**20:.1f} MiB"
