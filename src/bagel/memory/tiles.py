"""The autoencoder tile by tile, for pictures whose widest maps would not fit.

Tiles overlap and are blended by weights that fall linearly to their edges. A tile's group norms see the tile and
not the whole picture, so that the result is near the untiled one, not equal to it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bagel.model.vae import VAE


class Tiled(nn.Module):
    """An encoder or decoder whose input [B, C, height, width] is cut into tiles of side `tile` that overlap by at
    least `overlap`; up, down: how much larger or smaller the output's sides are."""

    def __init__(self, inner: nn.Module, tile: int, overlap: int, up: int = 1, down: int = 1) -> None:
        super().__init__()
        self.inner, self.tile, self.overlap, self.up, self.down = inner, tile, overlap, up, down

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        if max(height, width) <= self.tile:
            return self.inner(x)
        total = weight = None
        for top in self._starts(height):
            for left in self._starts(width):
                part = self.inner(x[:, :, top : top + self.tile, left : left + self.tile]).float()
                mask = _ramp(part.shape[2], self._out(self.overlap), x.device)[:, None]
                mask = mask * _ramp(part.shape[3], self._out(self.overlap), x.device)
                if total is None or weight is None:
                    total = part.new_zeros(*part.shape[:2], self._out(height), self._out(width))
                    weight = part.new_zeros(*total.shape[2:])
                rows = slice(self._out(top), self._out(top) + part.shape[2])
                columns = slice(self._out(left), self._out(left) + part.shape[3])
                total[:, :, rows, columns] += part * mask
                weight[rows, columns] += mask
        assert total is not None
        assert weight is not None
        return (total / weight).to(x.dtype)

    def _starts(self, length: int) -> list[int]:
        """Where the tiles of one axis begin: evenly spread, on whole cells of the output."""
        if length <= self.tile:
            return [0]
        count = -(-(length - self.overlap) // (self.tile - self.overlap))
        return [i * (length - self.tile) // (count - 1) // self.down * self.down for i in range(count)]

    def _out(self, side: int) -> int:
        return side * self.up // self.down


def _ramp(length: int, overlap: int, device: torch.device) -> Tensor:
    """1 in the middle, falling to nearly 0 over the middle half of the overlap: the outermost places, which see
    the tile's edge, count only where no other tile has them."""
    place = torch.arange(length, device=device, dtype=torch.float32) + 0.5
    inside = torch.minimum(place, length - place) - overlap / 4
    return (inside / max(overlap / 2, 1)).clamp(1e-4, 1.0)


def tile_vae(vae: VAE, tile: int) -> None:
    """tile: side in pixels of the picture's tiles; an eighth of it overlaps at the least, in decoding a quarter."""
    cell = vae.config.downsample
    vae.encoder = Tiled(vae.encoder, tile, tile // 8 // cell * cell, down=cell)  # type: ignore[assignment]
    vae.decoder = Tiled(vae.decoder, tile // cell, tile // 4 // cell, up=cell)  # type: ignore[assignment]
