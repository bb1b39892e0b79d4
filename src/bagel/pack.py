"""A pack: samples laid end to end as the tensors that one forward of the model reads. Training packs whole
samples; inference packs what each request reads or denoises in this step.

Letters: T text tokens and markers, P ViT patches, G latent tokens, I latent images, Z latent width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from bagel.errors import InputError
from bagel.images import patch_index
from bagel.sequence import Kind, Layout, Segment


@dataclass(frozen=True, slots=True)
class TextPart:
    """Token ids as they are, with whichever markers belong to them."""

    ids: Sequence[int]

    @property
    def segment(self) -> Segment:
        return Segment(Kind.TEXT, len(self.ids))


@dataclass(frozen=True, slots=True)
class VitPart:
    """One picture for the ViT: patches float32 [h x w, numbers of a patch], or on their way to training uint8."""

    patches: Tensor
    grid: tuple[int, int]

    @property
    def segment(self) -> Segment:
        return Segment(Kind.VIT, len(self.patches) + 2)


@dataclass(frozen=True, slots=True)
class LatentPart:
    """One picture as latent tokens float32 [h x w, Z], clean (time 0) or noised to `time` in (0, 1].

    advance, joined, hidden: see `Segment`; video frames set them.
    """

    latents: Tensor
    grid: tuple[int, int]
    time: float = 0.0
    noised: bool = False
    advance: int | None = None
    joined: bool = False
    hidden: bool | None = None

    @property
    def segment(self) -> Segment:
        kind = Kind.NOISED if self.noised else Kind.CLEAN
        return Segment(kind, len(self.latents) + 2, self.advance, self.joined, self.hidden)


@dataclass(frozen=True, slots=True)
class DroppedImage:
    """A picture left out for guidance training: no tokens, but its position is used up."""

    advance: int | None = None

    @property
    def segment(self) -> Segment:
        return Segment(Kind.VIT, 0, self.advance)


Part = TextPart | VitPart | LatentPart | DroppedImage


@dataclass(frozen=True, slots=True)
class PackRules:
    """What packing needs to know of a model: the ids of the image markers, the position tables, and for training's
    noise the pixels along a latent token and the numbers in it."""

    start_of_image: int
    end_of_image: int
    vit_side: int
    latent_side: int
    interpolate: bool = False
    latent_stride: int = 16
    latent_width: int = 64

    def vit_index(self, grid: tuple[int, int]) -> Tensor:
        return self._index(grid, self.vit_side, "ViT patches", "vit_max_num_patch_per_side")

    def latent_index(self, grid: tuple[int, int]) -> Tensor:
        return self._index(grid, self.latent_side, "latent tokens", "max_latent_size")

    def _index(self, grid: tuple[int, int], side: int, what: str, setting: str) -> Tensor:
        if max(grid) > side and not self.interpolate:
            raise InputError(
                f"a picture of {grid[0]} x {grid[1]} {what} (height x width) is beyond the model's position "
                f"table, {side} a side ({setting}); use a smaller picture."
            )
        return patch_index(grid, side, self.interpolate)


@dataclass(frozen=True, slots=True)
class Pack:
    """Tensors in stored order (see `Layout`).

    text_ids: int64 [T] for `layout.text_rows`; patches: float32 [P, .] for `layout.vit_rows` (uint8 until
    `TrainPack.with_latents`), vit_index: int64 [P], vit_lengths: patches per picture; latents: float32 [G, Z],
    latent_index: int64 [G]; times: float32 [I], image_of: int64 [G] into times.
    """

    layout: Layout
    text_ids: Tensor
    patches: Tensor | None
    vit_index: Tensor
    vit_lengths: tuple[int, ...]
    latents: Tensor | None
    latent_index: Tensor
    times: Tensor
    image_of: Tensor

    def to(self, device: torch.device | str) -> Pack:
        def move(value: Any) -> Any:
            if isinstance(value, Tensor):
                return value.to(device, non_blocking=True)
            return value.to(device) if isinstance(value, Layout) else value

        return Pack(**{f.name: move(getattr(self, f.name)) for f in fields(self)})


def pack(samples: Sequence[Sequence[Part]], rules: PackRules, start: Sequence[int] | None = None) -> Pack:
    """Lays out samples and gathers their contents. `start`: first position of each sample (0).

    Raises InputError for a picture beyond the position tables.
    """
    parts = [part for sample in samples for part in sample]
    pictures = [part for part in parts if isinstance(part, VitPart)]
    latents = [part for part in parts if isinstance(part, LatentPart)]
    sizes = torch.tensor([len(part.latents) for part in latents], dtype=torch.int64)
    return Pack(
        layout=Layout.of([[part.segment for part in sample] for sample in samples], start),
        text_ids=torch.tensor(_text_ids(parts, rules), dtype=torch.int64),
        patches=torch.cat([part.patches for part in pictures]) if pictures else None,
        vit_index=_cat([rules.vit_index(part.grid) for part in pictures]),
        vit_lengths=tuple(len(part.patches) for part in pictures),
        latents=torch.cat([part.latents for part in latents]) if latents else None,
        latent_index=_cat([rules.latent_index(part.grid) for part in latents]),
        times=torch.tensor([part.time for part in latents], dtype=torch.float32),
        image_of=torch.repeat_interleave(torch.arange(len(latents)), sizes),
    )


def _text_ids(parts: Sequence[Part], rules: PackRules) -> list[int]:
    """Text ids and image markers in reading order, which is the order of `layout.text_rows`."""
    ids: list[int] = []
    for part in parts:
        if isinstance(part, TextPart):
            ids += part.ids
        elif not isinstance(part, DroppedImage):
            ids += (rules.start_of_image, rules.end_of_image)
    return ids


def _cat(indexes: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(indexes)) if indexes else torch.empty(0, dtype=torch.int64)
