"""Pictures of a pack -> noised latents and the velocities to learn. Every draw follows from seeds that the pack
carries, so that a pack is the same on every rank and after every resume.

Letters: G latent tokens, M of them with loss, Z latent width; B pictures of one size, H W pixels, C channels, h w
latent grid, P latent tokens of a picture.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bagel.data.packing import TrainPack
from bagel.images import from_levels, patchify
from bagel.model.vae import VAE
from bagel.train.config import LatentsPart

Size = tuple[int, int]
"""Of a picture in pixels, height and width."""


class LatentEncoder:
    """The frozen VAE over packs. Every picture is encoded alone in effect (pictures of one size go together);
    `padded` is upstream's way, as one zero-padded batch, and takes the posterior's mean."""

    def __init__(self, vae: VAE, part: LatentsPart, patch: int) -> None:
        self.vae, self.part, self.patch = vae, part, patch
        self._cache = _Cache(Path(part.cache), vae) if part.cache else None
        if next(vae.parameters()).is_cuda:  # as inference does, so that sampling changes nothing
            vae.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.no_grad()
    def __call__(self, batch: TrainPack) -> Tensor:
        """Clean latent tokens of all latent images, float32 [G, Z], on the pack's device."""
        width = self.patch**2 * self.vae.config.z_channels
        tokens = torch.zeros(len(batch.pack.image_of), width, device=batch.levels.device)
        if self.part.padded:
            for rows, latent in zip(batch.latent_rows, self._padded(batch), strict=True):
                tokens[rows] = patchify(latent, self.patch)
            return tokens
        numbers: dict[Size, list[int]] = defaultdict(list)
        for number, size in enumerate(batch.picture_sizes):
            numbers[size].append(number)
        shapes = {size: self._latent_shape(size) for size in numbers}
        levels = _by_size(batch.levels, batch.picture_sizes, {size: (3, *size) for size in numbers})
        draws = _by_size(batch.draws, batch.picture_sizes, shapes) if self.part.sample else [None] * len(numbers)
        for size, pictures, noise in zip(numbers, levels, draws, strict=True):
            latents = self._latents(from_levels(pictures), noise)
            _write(tokens, batch, numbers[size], patchify(latents, self.patch))
        return tokens

    def _latents(self, pictures: Tensor, noise: Tensor | None) -> Tensor:
        """pictures: [B, 3, H, W], noise: [B, C, h, w] to sample with -> [B, C, h, w]. Hundreds of small pictures are
        handled as one tensor: taken one by one they cost more launches than the model does."""
        moments = self.vae.moments(pictures) if self._cache is None else self._kept(self._cache, pictures)
        return self.vae.draw(moments, noise)

    def _latent_shape(self, size: Size) -> tuple[int, ...]:
        config = self.vae.config
        return config.z_channels, *(side // config.downsample for side in size)

    def _kept(self, cache: _Cache, pictures: Tensor) -> Tensor:
        known = [cache.get(picture) for picture in pictures]
        missing = [picture for picture, found in zip(pictures, known, strict=True) if found is None]
        made = iter(self.vae.moments(torch.stack(missing)) if missing else ())
        moments = []
        for picture, found in zip(pictures, known, strict=True):
            moments.append(next(made) if found is None else found)
            if found is None:
                cache.put(picture, moments[-1])
        return torch.stack(moments)

    def _padded(self, batch: TrainPack) -> list[Tensor]:
        if not batch.picture_of:
            return []
        latents = self.vae.encode(batch.padded_pictures())
        side = self.patch
        return [x[:, : h * side, : w * side] for x, (h, w) in zip(latents, batch.grids, strict=True)]


def _by_size(flat: Tensor, sizes: Sequence[Size], shapes: Mapping[Size, tuple[int, ...]]) -> Iterator[Tensor]:
    """Of what lies end to end, one stretch for each of `sizes`: those of each size in `shapes`, as [B, *shape], without
    a copy where there is one size alone."""
    if len(shapes) == 1:
        (shape,) = shapes.values()
        yield flat.view(-1, *shape)
        return
    lengths = {size: math.prod(shape) for size, shape in shapes.items()}
    stretches = flat.split([lengths[size] for size in sizes])
    for wanted, shape in shapes.items():
        alike = [stretch for stretch, size in zip(stretches, sizes, strict=True) if size == wanted]
        yield torch.cat(alike).view(-1, *shape)


def _write(tokens: Tensor, batch: TrainPack, numbers: list[int], made: Tensor) -> None:
    """Into `tokens` [G, Z] the tokens of these pictures, made [len(numbers), P, Z], wherever the pack shows them: one
    that appears noised and clean is encoded once."""
    place = {number: index for index, number in enumerate(numbers)}
    shown = [(rows.start, place[k]) for rows, k in zip(batch.latent_rows, batch.picture_of, strict=True) if k in place]
    if shown:  # two numbers a picture leave without waiting, and without pinned memory, which may wait to be made
        starts, which = torch.tensor(shown).to(tokens.device, non_blocking=True).unbind(1)
        tokens[starts[:, None] + torch.arange(made.shape[1], device=tokens.device)] = made[which]


def noised(batch: TrainPack, clean: Tensor, noise: Tensor | None = None) -> tuple[TrainPack, Tensor]:
    """x_t = (1 - t) x0 + t noise in the pack, and the velocities noise - x0 of the rows with loss, float32
    [M, Z]. clean: [G, Z]; noise: [G, Z], the pack's own unless given."""
    noise = batch.noise if noise is None else noise
    time = batch.pack.times[batch.pack.image_of][:, None]
    latents = (1 - time) * clean + time * noise
    return batch.with_latents(latents), (noise - clean)[batch.mse_rows]


class _Cache:
    """Posteriors on disk, one small file a picture, named by what the picture and the VAE are."""

    def __init__(self, folder: Path, vae: VAE) -> None:
        self.folder = folder
        first = next(vae.encoder.parameters()).detach().float().cpu().contiguous()
        self.maker = first.numpy().tobytes()
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, picture: Tensor) -> Tensor | None:
        path = self._path(picture)
        return load_file(path)["moments"].float().to(picture.device) if path.exists() else None

    def put(self, picture: Tensor, moments: Tensor) -> None:
        path = self._path(picture)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        save_file({"moments": moments.cpu().contiguous()}, partial)
        partial.replace(path)

    def _path(self, picture: Tensor) -> Path:
        digest = hashlib.blake2b(self.maker, digest_size=16)
        digest.update(repr(tuple(picture.shape)).encode())
        digest.update(((picture + 1) * 127.5).round().to(torch.uint8).cpu().numpy().tobytes())
        return self.folder / f"{digest.hexdigest()}.safetensors"
