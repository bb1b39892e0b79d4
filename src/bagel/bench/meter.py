"""How much work the passes of an engine are, counted as they run, and the least time that a device's ceilings allow
for it. The autoencoder, norms, embeddings and what the host does are not counted: they are part of the distance
from that floor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from bagel.bench.ceilings import PLAIN, Ceilings, layer_shapes
from bagel.infer.context import Context
from bagel.infer.engine import Engine, Read, Seen
from bagel.memory.sizes import Weights, weights_of
from bagel.model.config import ModelConfig
from bagel.pack import VitPart
from bagel.sequence import Kind


@dataclass(frozen=True)
class Pass:
    """One forward. products, attention: FLOP; vit: FLOP of the ViT's products; read: bytes of weights and of keys
    and values that must be read at least once."""

    products: float
    attention: float
    vit: float
    read: float

    @property
    def flop(self) -> float:
        return self.products + self.attention + self.vit

    def floor(self, ceilings: Ceilings, precision: str) -> float:
        """Seconds: as if computing and reading overlapped wholly. What is kept in other numbers than fp8, or in fp8
        on a device that does not multiply it, is multiplied in the numbers that the model computes in."""
        plain = ceilings.products[PLAIN]
        computed = self.products / ceilings.products.get(precision, plain) + self.vit / plain
        # Copying reads and writes as many bytes; reading alone is taken to be as fast as both.
        return max(computed + self.attention / ceilings.attention, self.read / ceilings.copy)


class Meter:
    """Counts for one model."""

    def __init__(self, config: ModelConfig, dtype: torch.dtype, precision: str | None) -> None:
        self.config, self.item = config, dtype.itemsize
        self.weights: Weights = weights_of(config, dtype, precision)
        llm, vit = config.llm, config.vit
        self.per_token = 2.0 * llm.num_hidden_layers * sum(a * b for a, b in layer_shapes(llm))
        self.per_pair = 4.0 * llm.num_hidden_layers * llm.num_attention_heads * llm.head_dim
        self.kept_bytes = 2 * llm.num_hidden_layers * llm.num_key_value_heads * llm.head_dim * self.item
        self.head = 2.0 * llm.vocab_size * llm.hidden_size
        layer = 4 * vit.hidden_size**2 + 2 * vit.hidden_size * vit.intermediate_size
        into = vit.patch_width * vit.hidden_size + vit.hidden_size * llm.hidden_size + llm.hidden_size**2
        self.per_patch = 2.0 * (vit.num_built_layers * layer + into)
        self.vit_pair = 4.0 * vit.num_built_layers * vit.hidden_size

    def count(self, reads: Sequence[Read]) -> Pass:
        """Of reads that are about to go through the model together."""
        held: dict[Context, int] = {}
        products = attention = vit = read = 0.0
        used: set[str] = set()
        for one in reads:
            segment, before = one.part.segment, held.get(one.context, one.context.length)
            gen = segment.num_gen
            und, causal = segment.length - gen, segment.kind is Kind.TEXT
            pairs = und * before + und * (und + 1) / 2 if causal else (und + gen) * (before + und + gen)
            products += (und + gen) * self.per_token
            attention += pairs * self.per_pair
            read += before * self.kept_bytes
            used |= {"und"} if not gen else {"und", "gen"}
            if one.is_written:
                products += self.head
                used.add("head")
            if isinstance(one.part, VitPart):
                patches = len(one.part.patches)
                vit += patches * self.per_patch
                attention += patches**2 * self.vit_pair
                used.add("vit")
            if one.keep:
                held[one.context] = before + und + gen
        return Pass(products, attention, vit, read + sum(self.weights.parts[part] for part in used))


@dataclass
class CountedEngine(Engine):
    """An engine that notes what its passes are."""

    meter: Meter = field(kw_only=True)
    done: list[Pass] = field(default_factory=list, init=False)

    @classmethod
    def of(cls, engine: Engine, meter: Meter) -> CountedEngine:
        return cls(engine.model, engine.rules, engine.max_tokens, engine.fast, meter=meter)

    def forward(self, reads: Sequence[Read]) -> list[Seen]:
        self.done.append(self.meter.count(reads))
        return super().forward(reads)


@dataclass(frozen=True)
class Work:
    """Of a job: FLOP, the floor in seconds, and passes of the model."""

    flop: float = 0.0
    floor: float = 0.0
    passes: float = 0.0

    @classmethod
    def of(cls, passes: Sequence[Pass], ceilings: Ceilings, precision: str) -> Work:
        floor = sum(one.floor(ceilings, precision) for one in passes)
        return cls(sum(one.flop for one in passes), floor, len(passes))

    def less(self, other: Work, parts: float) -> Work:
        """What is left of the work without another's, divided in parts."""
        rest = self.flop - other.flop, self.floor - other.floor, self.passes - other.passes
        return Work(*(value / parts for value in rest))
