"""The FLUX autoencoder: pictures in [-1, 1] to latents of 16 channels, an eighth of the size, and back.
Its tensors are named as in the published `ae.safetensors`.

Letters: B pictures, C channels, P places of a picture, h w latent grid. `pending`: the bias [C] that the convolution
before has left to be added to x, if it has (see `convolve`).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bagel.model.config import VAEConfig
from bagel.model.kernels import add_pictures, convolve, group_norm


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels, eps=1e-6)


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1 if stride == 1 else 0)


class ResnetBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = _norm(inputs), _conv(inputs, outputs)
        self.norm2, self.conv2 = _norm(outputs), _conv(outputs, outputs)
        if inputs != outputs:
            self.nin_shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, pending: Tensor | None = None) -> Tensor:
        h, bias = convolve(group_norm(x, self.norm1, silu=True, bias=pending), self.conv1)
        h, bias = convolve(group_norm(h, self.norm2, silu=True, bias=bias), self.conv2)
        kept, kept_bias = convolve(x, self.nin_shortcut, pending) if hasattr(self, "nin_shortcut") else (x, pending)
        return add_pictures(h, kept, bias, kept_bias)


class AttnBlock(nn.Module):
    """Single-head attention over all places of the grid."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _norm(channels)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        rows = group_norm(x, self.norm, silu=False).flatten(2).transpose(1, 2)
        q, k, v = (_product(rows, conv)[:, None] for conv in (self.q, self.k, self.v))
        seen = _product(F.scaled_dot_product_attention(q, k, v)[:, 0], self.proj_out)
        return x + seen.transpose(1, 2).unflatten(2, x.shape[2:])


def _product(rows: Tensor, conv: nn.Conv2d) -> Tensor:
    """A convolution of 1 x 1 over rows [B, P, C]: as a plain product it adds its bias without another pass."""
    return F.linear(rows, conv.weight.flatten(1), conv.bias)


class Middle(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block_1 = ResnetBlock(channels, channels)
        self.attn_1 = AttnBlock(channels)
        self.block_2 = ResnetBlock(channels, channels)

    def forward(self, x: Tensor, pending: Tensor | None = None) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x, pending)))


class Downsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = _conv(channels, channels, stride=2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        return convolve(F.pad(x, (0, 1, 0, 1)), self.conv)


class Upsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = _conv(channels, channels)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        return convolve(F.interpolate(x, scale_factor=2.0, mode="nearest"), self.conv)


class Level(nn.Module):
    """The blocks of one resolution and the step to the next, if there is one."""

    def __init__(self, widths: Iterable[tuple[int, int]], step: tuple[str, nn.Module] | None) -> None:
        super().__init__()
        self.block = nn.ModuleList(ResnetBlock(inputs, outputs) for inputs, outputs in widths)
        self.step = step[0] if step else None
        if step:
            self.add_module(*step)

    def forward(self, x: Tensor, pending: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        for block in self.block:
            x, pending = block(x, pending), None
        return getattr(self, self.step)(x) if self.step else (x, None)


class Encoder(nn.Module):
    """Pixels [B, 3, H, W] to mean and log-variance, along channels [B, 2 C, h, w]."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths = [config.ch * m for m in config.ch_mult]
        self.conv_in = _conv(config.in_channels, config.ch)
        self.down = nn.ModuleList()
        for i, (before, width) in enumerate(zip([config.ch, *widths], widths, strict=False)):
            step = ("downsample", Downsample(width)) if i + 1 < len(widths) else None
            pairs = [(before, width)] + [(width, width)] * (config.num_res_blocks - 1)
            self.down.append(Level(pairs, step))
        self.mid = Middle(widths[-1])
        self.norm_out = _norm(widths[-1])
        self.conv_out = _conv(widths[-1], 2 * config.z_channels)

    def forward(self, x: Tensor) -> Tensor:
        x, pending = convolve(x, self.conv_in)
        for level in self.down:
            x, pending = level(x, pending)
        return self.conv_out(group_norm(self.mid(x), self.norm_out, silu=True))


class Decoder(nn.Module):
    """Latents [B, C, h, w] to pixels [B, 3, H, W]; one block a level more than the encoder."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths = [config.ch * m for m in config.ch_mult]
        self.conv_in = _conv(config.z_channels, widths[-1])
        self.mid = Middle(widths[-1])
        self.up = nn.ModuleList()
        for i, (width, before) in enumerate(zip(widths, [*widths[1:], widths[-1]], strict=True)):
            step = ("upsample", Upsample(width)) if i else None
            pairs = [(before, width)] + [(width, width)] * config.num_res_blocks
            self.up.append(Level(pairs, step))
        self.norm_out = _norm(widths[0])
        self.conv_out = _conv(widths[0], config.out_ch)

    def forward(self, z: Tensor) -> Tensor:
        x, pending = self.mid(*convolve(z, self.conv_in)), None
        for level in reversed(self.up):
            x, pending = level(x, pending)
        return self.conv_out(group_norm(x, self.norm_out, silu=True))


class VAE(nn.Module):
    """Encoder and decoder with the scale and shift that bring latents to unit variance."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        for module in self.modules():
            if isinstance(module, nn.GroupNorm):
                module.num_groups = config.norm_groups

    def encode(self, pixels: Tensor) -> Tensor:
        """pixels [B, 3, H, W] in [-1, 1] -> latents float32 [B, C, h, w]: the posterior's mean."""
        return self.draw(self.moments(pixels))

    def moments(self, pixels: Tensor) -> Tensor:
        """pixels [B, 3, H, W] -> the posterior, mean and log-variance along channels, float32 [B, 2 C, h, w]."""
        return self.encoder(pixels.to(self.dtype)).float()

    def draw(self, moments: Tensor, noise: Tensor | None = None) -> Tensor:
        """Latents from the posterior: its mean, or, given N(0, 1) of the latents' shape, a sample (training)."""
        mean, log_variance = moments.chunk(2, dim=1)
        if noise is not None:
            mean = mean + torch.exp(0.5 * log_variance) * noise
        return self.config.scale_factor * (mean - self.config.shift_factor)

    def decode(self, latents: Tensor) -> Tensor:
        """latents [B, C, h, w] -> pixels float32 [B, 3, H, W], about [-1, 1], not clamped."""
        z = latents.float() / self.config.scale_factor + self.config.shift_factor
        return self.decoder(z.to(self.dtype)).float()

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype
