"""Pictures of a pack -> noised latents and the velocities to learn. Every draw follows from seeds that the pack
carries, so that a pack is the same on every rank and after every resume.

Letters: G latent tokens, M of them with loss, Z latent width, C channels, h w latent grid.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bagel.data.packing import TrainPack
from bagel.images import patchify
from bagel.model.vae import VAE
from bagel.train.config import LatentsPart


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
        latents = self._padded(batch) if self.part.padded else self._alone(batch)
        for rows, latent in zip(batch.latent_rows, latents, strict=True):
            tokens[rows] = patchify(latent, self.patch)
        return tokens

    def _alone(self, batch: TrainPack) -> list[Tensor]:
        """Latents [C, h, w] of each latent image; a picture that appears twice is encoded once."""
        alike: dict[tuple[int, int], list[int]] = defaultdict(list)
        for number, size in enumerate(batch.picture_sizes):
            alike[size].append(number)
        latents: dict[int, Tensor] = {}
        for numbers in alike.values():
            moments = self._moments([batch.picture(number) for number in numbers])
            if not self.part.sample:  # many small pictures: few launches
                latents |= dict(zip(numbers, self.vae.draw(torch.stack(moments)), strict=True))
                continue
            for number, one in zip(numbers, moments, strict=True):
                seed = batch.picture_seeds[number]
                generator = torch.Generator(one.device).manual_seed(seed)
                latents[number] = self.vae.draw(one[None], generator)[0]
        return [latents[number] for number in batch.picture_of]

    def _moments(self, pictures: list[Tensor]) -> list[Tensor]:
        if self._cache is None:
            return list(self.vae.moments(torch.stack(pictures)))
        known = [self._cache.get(picture) for picture in pictures]
        missing = [picture for picture, found in zip(pictures, known, strict=True) if found is None]
        made = iter(self.vae.moments(torch.stack(missing)) if missing else ())
        moments = []
        for picture, found in zip(pictures, known, strict=True):
            moments.append(next(made) if found is None else found)
            if found is None:
                self._cache.put(picture, moments[-1])
        return moments

    def _padded(self, batch: TrainPack) -> list[Tensor]:
        if not batch.picture_of:
            return []
        latents = self.vae.encode(batch.padded_pictures())
        side = self.patch
        return [x[:, : h * side, : w * side] for x, (h, w) in zip(latents, batch.grids, strict=True)]


def noised(batch: TrainPack, clean: Tensor, noise: Tensor | None = None) -> tuple[TrainPack, Tensor]:
    """x_t = (1 - t) x0 + t noise in the pack, and the velocities noise - x0 of the rows with loss, float32
    [M, Z]. clean: [G, Z]; noise: [G, Z], the pack's own unless given."""
    if noise is None:
        noise = batch.noise(clean.shape[1])
        noise = (noise.pin_memory() if clean.is_cuda else noise).to(clean.device, non_blocking=True)
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
