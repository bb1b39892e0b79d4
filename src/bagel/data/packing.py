"""Samples -> one training pack: the model's input and what it is to learn.

Letters: C labelled rows of the und part, M noised rows of the gen part, G latent tokens, I latent images,
K pictures to be encoded (a picture that appears noised and clean is encoded once), H W pixels, Z latent width.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bagel.data.block import from_block, to_block
from bagel.data.encode import CLEAN, Encoded, Piece
from bagel.images import from_levels
from bagel.pack import DroppedImage, Pack, PackRules, pack
from bagel.runs import PackRuns
from bagel.sequence import Span


@dataclass(frozen=True, slots=True)
class TrainPack:
    """A pack and its targets. Rows are in stored order (see `bagel.sequence.Layout`).

    pack: `latents` are empty [G, 0] and `patches` uint8 until `with_latents`.
    runs: the pack's attention without a mask, where that is cheaper (see `bagel.runs`).
    ce_rows: int64 [C] und rows whose logits have the labels ce_labels: int64 [C], of weight
        ce_weights: float32 [C]; the loss is sum(ce x weight) / sum(weight), both over all ranks.
    mse_rows: int64 [M] gen rows with a velocity to learn.
    levels: uint8, the pixels of all pictures end to end; picture_sizes: (H, W) of each.
    picture_of: which picture each latent image shows; latent_rows: the gen rows it fills.
    grids: its tokens, height x width.
    normals: float32 [I] the draws behind `pack.times`; -inf is a clean image.
    noise: float32 [G, Z], follows the sample and not the pack; 0 for clean images.
    draws: float32, N(0, 1), for sampling the latents of all pictures end to end, those of a picture as [C, h, w];
        empty where they are not sampled.
    samples: where each sample came from; sample_lengths: its tokens.
    counts: tokens by kind (text with markers, vit, latent, ce, mse).
    skipped: rows passed over since the worker's last pack, a sentence each.
    state: of the data after this pack; from a `PackLoader` that of the whole rank, to be saved and loaded.
    """

    pack: Pack
    runs: PackRuns | None
    ce_rows: Tensor
    ce_labels: Tensor
    ce_weights: Tensor
    mse_rows: Tensor
    levels: Tensor
    picture_sizes: tuple[tuple[int, int], ...]
    picture_of: tuple[int, ...]
    latent_rows: tuple[slice, ...]
    grids: tuple[tuple[int, int], ...]
    normals: Tensor
    noise: Tensor
    draws: Tensor
    samples: tuple[str, ...]
    sample_lengths: tuple[int, ...]
    counts: Mapping[str, int]
    skipped: tuple[str, ...] = ()
    state: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.pack.layout)

    def picture(self, k: int) -> Tensor:
        """Pixels of a picture, float32 [3, H, W] in [-1, 1], on the device of the pack."""
        return from_levels(self.pictures()[k])

    def pictures(self) -> list[Tensor]:
        """All pictures, uint8 [3, H, W]; views of `levels`."""
        lengths = [height * width * 3 for height, width in self.picture_sizes]
        return [one.view(3, *size) for one, size in zip(self.levels.split(lengths), self.picture_sizes, strict=True)]

    def padded_pictures(self) -> Tensor:
        """One picture for each latent image, zero-padded right and below to the largest: [I, 3, H, W], as
        upstream encodes them."""
        pictures = self.pictures()
        shown = [from_levels(pictures[k]) for k in self.picture_of]
        height, width = (max(image.shape[side] for image in shown) for side in (1, 2))
        return torch.stack([F.pad(x, (0, width - x.shape[2], 0, height - x.shape[1])) for x in shown])

    def picture_key(self, k: int) -> str:
        """A name for the pixels of a picture, the same in every epoch, pack and data set: for a cache of
        latents. Needs the pack on the CPU."""
        digest = hashlib.blake2b(self.pictures()[k].numpy().tobytes(), digest_size=16).hexdigest()
        return "{}-{}x{}".format(digest, *self.picture_sizes[k])

    def with_latents(self, latents: Tensor, times: Tensor | None = None) -> TrainPack:
        """What the model reads: with the latent tokens [G, Z] in place, noised already, and patches as numbers in
        [-1, 1]."""
        times = self.pack.times if times is None else times
        patches = self.pack.patches
        if patches is not None and patches.dtype is torch.uint8:
            patches = from_levels(patches)
        return replace(self, pack=replace(self.pack, latents=latents, times=times, patches=patches))

    def to(self, device: torch.device | str) -> TrainPack:
        """All but `normals` moves, as one copy; what came from `pin_memory` moves without waiting. The pixels stay as
        long as the rest does, and the memory moved from no longer than the copy takes."""
        block, parts = to_block(self)
        moved: TrainPack = from_block(block.to(device, non_blocking=True), parts)
        return replace(moved, normals=self.normals.clone())

    def pin_memory(self) -> TrainPack:
        """For packs that come from no loader: what it hands out is pinned already where that is wanted."""
        block, parts = to_block(self)
        pinned: TrainPack = from_block(block.pin_memory(), parts)
        return pinned


def times_of(normals: Tensor, shift: float) -> Tensor:
    """Noise levels from normal draws: sigmoid, then the shift of training; -inf gives 0, a clean picture."""
    times = torch.sigmoid(normals)
    return shift * times / (1 + (shift - 1) * times)


def assemble(
    samples: Sequence[Encoded], rules: PackRules, shift: float, reweight: bool, draws: bool = True
) -> TrainPack:
    """Lays samples end to end. `reweight`: every text's labels weigh 1 / sqrt(their number) each; else 1. `draws`:
    whether latents will be sampled."""
    pieces = [piece for sample in samples for piece in sample.pieces]
    made = pack([[piece.part for piece in sample.pieces] for sample in samples], rules)
    latent = [piece for piece in pieces if piece.picture >= 0]
    normals = torch.tensor([piece.normal for piece in latent], dtype=torch.float32)
    present = [piece for piece in pieces if not isinstance(piece.part, DroppedImage)]
    targets = _Targets(reweight)
    for piece, span in zip(present, made.layout.spans, strict=True):
        targets.add(piece, span)
    spans = [span.gen for piece, span in zip(present, made.layout.spans, strict=True) if piece.picture >= 0]
    levels = [picture.flatten() for sample in samples for picture in sample.pictures]
    first = _firsts([len(sample.pictures) for sample in samples])
    ce_rows, mse_rows = _integers(targets.ce_rows), _integers(targets.mse_rows)
    layout = replace(made.layout, spans=())  # thousands of objects on their way from a worker, read by no one
    return TrainPack(
        pack=replace(made, layout=layout, times=times_of(normals, shift)),
        runs=PackRuns.of(made.layout),
        ce_rows=ce_rows,
        ce_labels=_integers(targets.labels),
        ce_weights=torch.tensor(targets.weights, dtype=torch.float32),
        mse_rows=mse_rows,
        levels=torch.cat(levels) if levels else torch.empty(0, dtype=torch.uint8),
        picture_sizes=tuple((p.shape[1], p.shape[2]) for sample in samples for p in sample.pictures),
        picture_of=tuple(
            start + piece.picture
            for start, sample in zip(first, samples, strict=True)
            for piece in sample.pieces
            if piece.picture >= 0
        ),
        latent_rows=tuple(spans),
        grids=tuple(piece.part.grid for piece in latent),  # type: ignore[union-attr]
        normals=normals,
        noise=_noise(latent, rules.latent_width),
        draws=_draws(samples, rules) if draws else torch.empty(0),
        samples=tuple(sample.name for sample in samples),
        sample_lengths=tuple(sample.length for sample in samples),
        counts={
            "text": len(made.text_ids),
            "vit": len(made.vit_index),
            "latent": len(made.latent_index),
            "ce": len(ce_rows),
            "mse": len(mse_rows),
        },
    )


class _Targets:
    """Collects labelled rows segment by segment."""

    def __init__(self, reweight: bool) -> None:
        self._reweight = reweight
        self.ce_rows: list[int] = []
        self.labels: list[int] = []
        self.weights: list[float] = []
        self.mse_rows: list[int] = []

    def add(self, piece: Piece, span: Span) -> None:
        count = len(piece.labels)
        self.ce_rows += range(span.und.start, span.und.start + count)
        self.labels += piece.labels
        self.weights += [count**-0.5 if self._reweight and count else 1.0] * count
        if piece.last is not None:
            self.ce_rows.append(span.und.stop - 1)
            self.labels.append(piece.last)
            self.weights.append(1.0)
        if piece.normal != CLEAN:
            self.mse_rows += range(span.gen.start, span.gen.stop)


def _noise(latent: Sequence[Piece], width: int) -> Tensor:
    """[G, Z], in the order of the latent images; 0 for clean ones."""
    made = [torch.zeros(math.prod(piece.part.grid), width) for piece in latent]  # type: ignore[union-attr]
    for rows, piece in zip(made, latent, strict=True):
        if piece.normal != CLEAN:
            torch.randn(rows.shape, generator=torch.Generator().manual_seed(piece.noise_seed), out=rows)
    return torch.cat(made) if made else torch.empty(0, width)


def _draws(samples: Sequence[Encoded], rules: PackRules) -> Tensor:
    """One N(0, 1) for every number of every picture's latents, from the picture's own seed."""
    made = []
    for sample in samples:
        for picture, seed in zip(sample.pictures, sample.seeds, strict=True):
            tokens = math.prod(side // rules.latent_stride for side in picture.shape[1:])
            made.append(torch.randn(tokens * rules.latent_width, generator=torch.Generator().manual_seed(seed)))
    return torch.cat(made) if made else torch.empty(0)


def _firsts(counts: Sequence[int]) -> list[int]:
    return [sum(counts[:i]) for i in range(len(counts))]


def _integers(values: Sequence[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)
