"""What is measured: sizes of models, and packs of random contents.

Sizes: those of the published models, and of the embedded one to try the command; `SMALL` is the one that the official
code was measured with.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch

from bagel.data.encode import CLEAN, Encoded, Piece, pack_rules
from bagel.data.packing import TrainPack, assemble
from bagel.infer.pipeline import find_model
from bagel.model.config import LLMConfig, ModelConfig
from bagel.model.published import SEVEN_B, SO400M
from bagel.pack import LatentPart, TextPart, VitPart
from bagel.tokens import Tokenizer

SMALL = LLMConfig(
    hidden_size=1536,
    intermediate_size=8960,
    num_hidden_layers=28,
    num_attention_heads=12,
    num_key_value_heads=2,
    vocab_size=151936,
)


def model_config(lora: bool, smoke: bool) -> ModelConfig:
    if smoke:
        return ModelConfig.from_folder(find_model("mini"))
    return SEVEN_B if lora else ModelConfig(llm=SMALL, vit=SO400M)


def tokenizer() -> Tokenizer:
    """Any will do: ids are random."""
    return Tokenizer.from_folder(find_model("mini"))


@dataclass(frozen=True)
class Mix:
    """How many samples of each kind, and sides of pictures in pixels: drawn or edited, seen of an edit, asked
    about. Texts: tokens between the markers."""

    draw: int = 5
    edit: int = 2
    ask: int = 3
    picture: int = 512
    seen: int = 518
    asked: int = 560
    prompt: int = 60
    instruction: int = 40
    question: int = 40
    answer: int = 100

    @classmethod
    def of(cls, lora: bool, smoke: bool) -> Mix:
        """With LoRA one picture less: 16.5k tokens."""
        if smoke:
            return cls(1, 1, 1, 64, 64, 64, 6, 4, 4, 10)
        return cls(draw=4) if lora else cls()


class Packs:
    """Packs without end, a few in turn; texts differ by some tokens, so that no two have the same shapes."""

    def __init__(self, config: ModelConfig, mix: Mix, count: int = 3, pinned: bool = False) -> None:
        made = [make_pack(config, mix, number) for number in range(count)]
        self.packs = [pack.pin_memory() for pack in made] if pinned else made
        self._next = 0

    def __iter__(self) -> Packs:
        return self

    def __next__(self) -> TrainPack:
        self._next += 1
        return self.packs[(self._next - 1) % len(self.packs)]

    def state_dict(self) -> dict[str, object]:
        return {}

    def load_state_dict(self, states: object) -> None:
        """There is nothing to go on from."""


def make_pack(config: ModelConfig, mix: Mix, number: int) -> TrainPack:
    maker = _Maker(config, mix, number)
    samples = [maker.draw() for _ in range(mix.draw)] + [maker.edit() for _ in range(mix.edit)]
    samples += [maker.ask() for _ in range(mix.ask)]
    return assemble(samples, pack_rules(config, tokenizer()), config.timestep_shift, False)


class _Maker:
    def __init__(self, config: ModelConfig, mix: Mix, number: int) -> None:
        self.config, self.mix, self.number = config, mix, number
        self.rng = random.Random(number)
        self.generator = torch.Generator().manual_seed(number)

    def draw(self) -> Encoded:
        return self._sample([self._text(self.mix.prompt), self._latent(0, noised=True)], pictures=1)

    def edit(self) -> Encoded:
        before, after = self._latent(0, noised=False), self._latent(1, noised=True)
        return self._sample([before, self._seen(self.mix.seen), self._text(self.mix.instruction), after], pictures=2)

    def ask(self) -> Encoded:
        question, answer = self._text(self.mix.question), self._text(self.mix.answer, loss=True)
        return self._sample([self._seen(self.mix.asked), question, answer], pictures=0)

    def _sample(self, pieces: list[Piece], pictures: int) -> Encoded:
        shape = 3, self.mix.picture, self.mix.picture
        levels = [torch.randint(0, 256, shape, dtype=torch.uint8, generator=self.generator) for _ in range(pictures)]
        return Encoded("random", tuple(pieces), tuple(levels), tuple(self.rng.getrandbits(62) for _ in levels))

    def _text(self, length: int, loss: bool = False) -> Piece:
        size = self.config.llm.vocab_size
        ids = tuple(self.rng.randrange(size) for _ in range(length + 2 + self.number))
        return Piece(TextPart(ids), labels=ids[1:] if loss else ())

    def _latent(self, picture: int, noised: bool) -> Piece:
        side = self.mix.picture // self.config.latent_stride
        part = LatentPart(torch.empty(side * side, 0), (side, side), noised=noised)
        normal = self.rng.gauss(0, 1) if noised else CLEAN
        return Piece(part, picture=picture, normal=normal, noise_seed=self.rng.getrandbits(62))

    def _seen(self, pixels: int) -> Piece:
        side = pixels // self.config.vit.patch_size
        patches = torch.randn(side * side, self.config.vit.patch_width, generator=self.generator)
        return Piece(VitPart(patches, (side, side)))
