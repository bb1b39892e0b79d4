"""Sample -> the segments it becomes, with what is learnt at each: tokens, resized pictures, patches, the
dropout for guidance and the noise levels. All randomness comes from the generator that is passed in."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random

import torch
from PIL import Image
from torch import Tensor

from bagel.data.config import DataConfig, DatasetConfig
from bagel.data.limits import Rule, TextTokenizer, check_rule, pack_rules
from bagel.data.sample import Clip, Next, Picture, Sample, Text, Use
from bagel.errors import InputError
from bagel.images import patchify, to_levels
from bagel.model.config import ModelConfig
from bagel.pack import DroppedImage, LatentPart, Part, TextPart, VitPart

CLEAN = -math.inf
"""The draw of a clean picture: its sigmoid, the time, is 0."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One segment and what is learnt at it.

    labels: of the first tokens of a text; last: of the segment's last marker.
    picture: latents, which of the sample's pictures they encode.
    normal:  the draw behind the time of a noised picture; CLEAN for the others.
    """

    part: Part
    labels: tuple[int, ...] = ()
    last: int | None = None
    picture: int = -1
    normal: float = CLEAN
    noise_seed: int = 0


@dataclass(frozen=True, slots=True)
class Encoded:
    """A sample ready to be packed.

    pictures: uint8 [3, H, W] for the autoencoder, each once; seeds: for sampling their latents. length: in tokens.
    """

    name: str
    pieces: tuple[Piece, ...]
    pictures: tuple[Tensor, ...]
    seeds: tuple[int, ...]
    length: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "length", sum(piece.part.segment.length for piece in self.pieces))


class TooLongError(InputError):
    """A sample beyond `max_num_tokens_per_sample`."""


class Encoder:
    """Encodes the samples of one data set. Raises InputError for a picture beyond the position tables."""

    def __init__(
        self, config: DataConfig, dataset: DatasetConfig, model: ModelConfig, tokenizer: TextTokenizer
    ) -> None:
        self._config, self._model, self._tokenizer = config, model, tokenizer
        self._vae = Rule.of(model.images.vae, dataset.vae)
        self._vit = Rule.of(model.images.vit, dataset.vit)
        self.rules = pack_rules(model, tokenizer)
        check_rule(self._vae, "vae", model.latent_stride, model.max_latent_size, model, "max_latent_size")
        side = model.vit_max_num_patch_per_side
        check_rule(self._vit, "vit", model.vit.patch_size, side, model, "vit_max_num_patch_per_side")

    def encode(self, sample: Sample, rng: Random) -> Encoded:
        """Raises TooLongError before any picture is resized."""
        texts = self._tokenized(sample)
        self._check_length(sum(self._measured(sample, texts).values()))
        return _Encoding(self, rng).of(sample, texts)

    def measure(self, sample: Sample) -> dict[str, int]:
        """Tokens by kind, markers with the text, as if nothing were dropped; reads sizes, not pixels. Raises
        like `encode`."""
        counts = self._measured(sample, self._tokenized(sample))
        self._check_length(sum(counts.values()))
        return counts

    def _tokenized(self, sample: Sample) -> dict[int, list[int]]:
        return {
            index: self._tokenizer.encode(part.text)
            for index, part in enumerate(sample.parts)
            if isinstance(part, Text)
        }

    def _measured(self, sample: Sample, texts: dict[int, list[int]]) -> dict[str, int]:
        counts = {"text": sum(len(ids) + 2 for ids in texts.values()), "vit": 0, "latent": 0}
        for part in sample.parts:
            if isinstance(part, Picture):
                kind = "vit" if part.use is Use.LOOK else "latent"
                counts[kind] += math.prod(self.grid(part.image, part.use, part.share))
                counts["text"] += 2
            elif isinstance(part, Clip):
                counts["latent"] += sum(math.prod(self.grid(frame, Use.CONTEXT)) for frame in part.frames)
                counts["text"] += 2 * len(part.frames)
        return counts

    def _check_length(self, length: int) -> None:
        limit = self._config.max_num_tokens_per_sample
        if length > limit:
            raise TooLongError(
                f"the sample has {length} tokens, more than max_num_tokens_per_sample {limit}; raise that, or use "
                "fewer or smaller pictures or shorter texts"
            )

    def grid(self, image: Image.Image, use: Use, share: int = 1) -> tuple[int, int]:
        """Tokens of a picture, height x width. Raises InputError beyond the position table."""
        look = use is Use.LOOK
        width, height = (self._vit if look else self._vae).size(image, share)
        stride = self._model.vit.patch_size if look else self._model.latent_stride
        grid = height // stride, width // stride
        (self.rules.vit_index if look else self.rules.latent_index)(grid)
        return grid

    def patches(self, image: Image.Image, share: int) -> Tensor:
        """For the ViT: uint8 [P, numbers of a patch], a quarter of what the model reads."""
        return patchify(to_levels(self._vit.resize(image, share)), self._model.vit.patch_size)

    def levels(self, image: Image.Image) -> Tensor:
        """For the autoencoder: uint8 [3, H, W]."""
        return to_levels(self._vae.resize(image, 1))

    def chance(self, part: Text | Picture | Clip) -> float:
        if isinstance(part, Text):
            return self._config.text_dropout
        look = isinstance(part, Picture) and part.use is Use.LOOK
        return self._config.vit_dropout if look else self._config.vae_dropout

    def normal(self, rng: Random) -> float:
        """The draw behind a noise level."""
        return rng.gauss(0, self._config.timestep_spread)

    def label(self, then: Next | None) -> int | None:
        ids = self._tokenizer
        return then and {Next.IMAGE: ids.start_of_image, Next.TEXT: ids.bos, Next.END: ids.eos}[then]

    def text(self, part: Text, ids: list[int]) -> Piece:
        start, end = self._tokenizer.bos, self._tokenizer.eos
        return Piece(
            TextPart((start, *ids, end)),
            labels=(*ids, end) if part.loss else (),
            last=self.label(part.then),
        )


class _Encoding:
    """The encoding of one sample: what was drawn and resized so far."""

    def __init__(self, encoder: Encoder, rng: Random) -> None:
        self._encoder, self._rng = encoder, rng
        self._dropped: dict[int, bool] = {}
        self._numbers: dict[int, int] = {}
        self._pictures: list[Tensor] = []

    def of(self, sample: Sample, texts: dict[int, list[int]]) -> Encoded:
        pieces: list[Piece] = []
        for index, part in enumerate(sample.parts):
            dropped = self._is_dropped(part)
            if isinstance(part, Clip):
                pieces += self._clip(part, dropped)
            elif isinstance(part, Picture):
                pieces.append(Piece(DroppedImage()) if dropped else self._picture(part))
            elif not dropped:
                pieces.append(self._encoder.text(part, texts[index]))
        seeds = tuple(self._seed() for _ in self._pictures)
        return Encoded(sample.name, tuple(pieces), tuple(self._pictures), seeds)

    def _is_dropped(self, part: Text | Picture | Clip) -> bool:
        """One draw for all parts of a number."""
        if part.drop is None:
            return False
        if part.drop not in self._dropped:
            self._dropped[part.drop] = self._rng.random() < self._encoder.chance(part)
        return self._dropped[part.drop]

    def _picture(self, part: Picture) -> Piece:
        if part.use is Use.LOOK:
            grid = self._encoder.grid(part.image, part.use, part.share)
            seen: Part = VitPart(self._encoder.patches(part.image, part.share), grid)
            return Piece(seen, last=self._encoder.label(part.then))
        noised = part.use is Use.TARGET
        piece = self._latent(part.image, self._encoder.normal(self._rng) if noised else CLEAN)
        return replace(piece, last=self._encoder.label(part.then))

    def _clip(self, clip: Clip, dropped: bool) -> Iterator[Piece]:
        """Frames that see each other. A clip whose first frame says how far it moves on is seen by what
        follows even where it is noised, as upstream."""
        if dropped:
            yield from (Piece(DroppedImage(delta)) for delta in clip.deltas)
            return
        normal = self._encoder.normal(self._rng) if clip.loss else CLEAN
        shown = False if clip.deltas[0] is not None else None
        for number, (frame, delta) in enumerate(zip(clip.frames, clip.deltas, strict=True)):
            make = partial(LatentPart, advance=delta, joined=number > 0, hidden=shown)
            piece = self._latent(frame, normal, make)
            end = number == len(clip.frames) - 1
            yield replace(piece, last=self._encoder.label(clip.then) if end else None)

    def _latent(
        self, image: Image.Image, normal: float, make: type[LatentPart] | partial[LatentPart] = LatentPart
    ) -> Piece:
        """Latents are left empty: the trainer encodes the picture."""
        grid = self._encoder.grid(image, Use.CONTEXT)
        if id(image) not in self._numbers:
            self._numbers[id(image)] = len(self._pictures)
            self._pictures.append(self._encoder.levels(image))
        empty = torch.empty(grid[0] * grid[1], 0)
        noised = normal != CLEAN
        return Piece(
            make(empty, grid, noised=noised),
            picture=self._numbers[id(image)],
            normal=normal,
            noise_seed=self._seed() if noised else 0,
        )

    def _seed(self) -> int:
        return self._rng.getrandbits(62)
