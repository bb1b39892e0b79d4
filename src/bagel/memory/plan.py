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

from bagel.devices import DTYPES, PACKED_PRECISIONS, check_precision
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


def plan(
    config: ModelConfig, card: Card, demand: Demand, setup: Setup, num_tokens: int = 0, others: Sequence[Demand] = ()
) -> Plan:
    """The numbers of one setup, with as many slots as fit, whether it fits or not. others: demands that may come
    instead; each phase is as large as in the largest of them."""
    weights = weights_of(config, setup.dtype, setup.packed, num_tokens).shared(setup.tensor)
    config = replace(config, llm=Cut(0, setup.tensor).config(config.llm))
    widened = card.widens(setup.packed)
    visitors = {part: weights.parts[part] for part in VISITS if part in setup.offload}
    found: dict[str, int] = {}
    for each in (demand, *others):
        for name, size in phases(
            config, each, setup.dtype, widened=widened, tile=setup.tile, visitors=visitors
        ).items():
            found[name] = max(size, found.get(name, 0))
    resident = sum(size for part, size in weights.parts.items() if part not in setup.offload)
    made = Plan(setup, card, demand, weights, found, resident)
    if not setup.streamed:
        return made
    # Text alone never asks for the generation expert.
    draws = any(each.height or each.latents for each in (demand, *others))
    text_alone = not draws and "und" in setup.streamed
    experts = 1 if config.llm.layers is Layers.DENSE or text_alone else len(setup.streamed)
    units = weights.num_layers * experts
    room = card.free - made.peak - made.headroom
    slots = setup.slots or min(units, max(FEWEST_SLOTS, room // weights.layer))
    moved = fetched(units, slots) * weights.layer
    return replace(made, setup=replace(setup, slots=slots), resident=resident + slots * weights.layer, moved=moved)


@dataclass(frozen=True)
class Ask:
    """What is asked of a setup. precision: None for the card's own; precision and offload may be "auto"; tensor: cards
    that share every layer; packed: the weights are stored in this precision and in no other."""

    precision: str | None = None
    offload: str | tuple[str, ...] | None = None
    tensor: int = 1
    packed: bool = False

    def setups(self, card: Card) -> Iterator[Setup]:
        """What it allows, the best first. Raises InputError for an unknown precision or part."""
        by_need = self.offload == "auto"
        precisions = recommended(card) if self.precision == "auto" else [self.named(card)]
        for tile in (0, TILE) if by_need else (0,):
            for parts in AUTO if by_need else (parts_of(self.offload),):
                for precision in precisions:
                    yield setup_for(card, precision, parts, tile, self.tensor)

    def named(self, card: Card) -> str:
        """The one precision that was asked for. Raises InputError for one that is not there."""
        check_precision(self.precision)
        return own_precision(card) if self.precision is None else self.precision


def choose(
    config: ModelConfig, card: Card, demand: Demand, ask: Ask, num_tokens: int = 0, others: Sequence[Demand] = ()
) -> Plan:
    """The plan that was asked for, or the first that fits of what was left to us. Raises MemoryPlanError with the
    setups that would fit, InputError for an unknown precision or part. others: see `plan`."""
    tried = [plan(config, card, demand, setup, num_tokens, others) for setup in ask.setups(card)]
    for one in tried:
        if one.fits:
            return one
    raise MemoryPlanError(refusal(tried[-1], list(alternatives(config, card, demand, ask, num_tokens))))


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


def recommended(card: Card) -> list[str]:
    """The precisions that we would take on a card, the nearest to exact first."""
    return [own_precision(card), *(("fp8",) if card.fp8 else ()), "int8", "nf4"]


def alternatives(
    config: ModelConfig, card: Card, demand: Demand, ask: Ask | None = None, num_tokens: int = 0
) -> Iterator[Plan]:
    """The setups we would recommend on this card instead of what was asked for, the best first, that fit: each
    precision on the card, then the smallest, the one that was asked for in fewer bits, and the exact one, with as
    little on the host as need be."""
    ask = ask or Ask()
    wanted = (ask.precision,) if ask.precision in PACKED_PRECISIONS else ()
    whole = wanted if ask.packed else recommended(card)
    moved = dict.fromkeys(wanted if ask.packed else ("nf4", *wanted, own_precision(card)))

    def first(precision: str | None, offload: str | None) -> Plan | None:
        setups = Ask(precision, offload, ask.tensor).setups(card)
        return next((one for s in setups if (one := plan(config, card, demand, s, num_tokens)).fits), None)

    fitting = [found for precision in whole if (found := first(precision, None))]
    yield from fitting
    for precision in moved:
        if all(one.setup.precision != precision for one in fitting) and (found := first(precision, "auto")):
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
    return f"{does}. These would fit: {'; '.join(map(_recommended, others))}."


def _recommended(one: Plan) -> str:
    """A setup as it is to be asked for: tiles cannot be, and come with `auto` alone."""
    setup, size = one.setup, gib(one.peak + one.headroom)
    if not (setup.offload or setup.tile):
        return f"{setup.words} ({size})"
    host = f", {','.join(setup.offload)} on the host" if setup.offload else ""
    tiles = f", the autoencoder in tiles of {setup.tile} pixels" if setup.tile else ""
    return f"{replace(setup, offload=('auto',)).words} ({size}{host}{tiles})"


def gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB" if size >= GIB // 10 or not size else f"{size / 2**20:.1f} MiB"
