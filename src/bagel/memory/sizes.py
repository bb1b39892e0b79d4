"""Bytes, from a model's configuration alone: its weights by part, keys and values, and the peaks of a pass, of
reading and of the autoencoder.

The formulas count the tensors that live at once in `model/` and `infer/`; three numbers were fitted to peaks
measured on an H100 at 7B size (PyTorch 2.11, `torch.cuda.max_memory_allocated`): DECODE_MAPS and ENCODE_MAPS,
since the convolutions' workspace cannot be read from the code, and WORKSPACE, of the matrix library.

Letters: U und tokens, G gen tokens, D model width, I inner width, N heads, M key/value heads, H head width.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch
from torch import nn

from bagel.checkpoint import build
from bagel.model.config import ModelConfig, VAEConfig
from bagel.model.packed import GROUP
from bagel.model.quantise import is_quantised

GIB = 2**30
JOBS = ("draw", "edit", "chat")
PARTS = ("und", "gen", "embed", "head", "vit", "vae", "rest")
DECODE_MAPS, ENCODE_MAPS = 6.2, 4.5
"""Maps of height x width x the autoencoder's first width that live at its largest step."""
WORKSPACE = 64 * 2**20
_GRAIN = 256  # of a context's storage
_LONG_MLP, _MLP_SLICE = 6144, 4096  # of `bagel.model.kernels`
_MOST = 16640  # tokens of a pass, of `bagel.infer.engine`
_DIFFERENCES = 7  # that a step cache keeps, of `bagel.infer.reuse`
_WIDENING = 128 * 2**20  # of `bagel.model.packed`
VISITS = {"vit": ("read",), "vae": ("encode", "decode"), "head": ("write",)}
"""Parts that, kept on the host, are on the card while they are used, and in which phases that is."""


@dataclass(frozen=True)
class Weights:
    """Bytes by part, and of the largest layer of one expert."""

    parts: dict[str, int]
    layer: int
    num_layers: int

    @property
    def total(self) -> int:
        return sum(self.parts.values())

    def shared(self, count: int) -> Weights:
        """Of one of `count` cards that share every layer."""
        parts = {part: size // count if part in ("und", "gen") else size for part, size in self.parts.items()}
        return replace(self, parts=parts, layer=self.layer // count)


def weights_of(config: ModelConfig, dtype: torch.dtype, precision: str | None, num_tokens: int = 0) -> Weights:
    """precision: bf11, fp8, int8 or nf4; None keeps all in `dtype`."""
    return _weights_of(replace(config, presets=()), dtype, precision, num_tokens)  # type: ignore[arg-type]


@functools.lru_cache(maxsize=64)
def _weights_of(config: ModelConfig, dtype: torch.dtype, precision: str | None, num_tokens: int) -> Weights:
    model, vae = _built(config, num_tokens)
    size = dtype.itemsize
    parts, layers = dict.fromkeys(PARTS, 0), {"und": 0, "gen": 0}
    for name, owner in model.named_modules():
        part = _part_of(name)
        packed = precision if precision and is_quantised(model, owner, precision) else None
        here = sum(allocated(x) for key, p in _own(owner) for x in _bytes(key, p, packed, size, part))
        parts[part] += here
        if name.startswith("decoder.layers.0.") and part in layers:
            layers[part] += here
    vae_size = 4 if dtype is torch.float16 else size
    parts["vae"] = sum(allocated(p.numel() * vae_size) for p in vae.parameters())
    return Weights(parts, max(layers.values()), config.llm.num_hidden_layers)


@functools.lru_cache(maxsize=2)
def _built(config: ModelConfig, num_tokens: int) -> tuple[nn.Module, nn.Module]:
    return build(config, num_tokens)


def _own(owner: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    return ((key, p) for key, p in owner._parameters.items() if p is not None)


def _part_of(name: str) -> str:
    if name.startswith("decoder.layers."):
        return "gen" if ".gen" in name else "und"
    if name.startswith(("vit.", "connector.")) or name == "vit":
        return "vit"
    return {"embed": "embed", "lm_head": "head"}.get(name, "rest")


def _bytes(key: str, value: torch.Tensor, packed: str | None, size: int, part: str) -> list[int]:
    """Of the tensors that keep a parameter."""
    if packed is None or key != "weight":
        return [value.numel() * size]
    rows, inputs = value.shape
    if packed == "nf4" and part not in ("embed", "head"):
        groups = -(-inputs // GROUP)
        return [rows * groups * GROUP // 2, rows * groups * 2]
    if packed == "bf11":
        filled = -(-inputs // 8) * 8
        return [rows * filled, rows * filled * 3 // 8, rows * 4]
    return [rows * inputs, rows * 4]


def allocated(size: int) -> int:
    """What PyTorch's allocator counts for a tensor: memory comes in pieces of 2 MiB, and a rest below 1 MiB is
    not split off."""
    whole = -(-size // 2**21) * 2**21
    return whole if size >= 10 * 2**20 and whole - size <= 2**20 else -(-size // 512) * 512


@dataclass(frozen=True)
class Demand:
    """What a request asks of memory. height, width: of the picture drawn, 0 for text alone; branches: contexts
    that guidance computes; text, latents, patches: tokens read; encoded: the largest picture read as latents;
    max_tokens: written; batch: like requests side by side; held: tokens that a session holds already;
    cached: branches with a step cache."""

    height: int = 0
    width: int = 0
    branches: int = 1
    text: int = 64
    latents: int = 0
    patches: int = 0
    encoded: tuple[int, int] = (0, 0)
    max_tokens: int = 0
    batch: int = 1
    held: int = 0
    cached: int = 0

    @classmethod
    def of(
        cls, config: ModelConfig, job: str, height: int = 1024, width: int = 1024, *, batch: int = 1, context: int = 64
    ) -> Demand:
        """The usual request of a job: `draw`, `edit` (a picture of the same size), `chat` (a picture as large as
        the rules allow, 512 tokens). context: tokens of text read."""
        if job == "draw":
            return cls(height, width, 2, context, batch=batch)
        vit = config.images.vit.max_size // config.vit.patch_size
        if job == "chat":
            return cls(text=context, patches=vit * vit + 2, max_tokens=512, batch=batch)
        latents = height * width // config.latent_stride**2 + 2
        return cls(height, width, 3, context, latents, vit * vit + 2, (height, width), batch=batch)

    def drawn(self, config: ModelConfig) -> int:
        return self.height * self.width // config.latent_stride**2

    @property
    def read(self) -> int:
        return self.text + self.latents + self.patches


def kv_bytes(config: ModelConfig, tokens: int, dtype: torch.dtype) -> int:
    """Of one storage that holds so many tokens."""
    llm = config.llm
    held = -(-tokens // _GRAIN) * _GRAIN
    return held * llm.num_hidden_layers * 2 * llm.num_key_value_heads * llm.head_dim * dtype.itemsize


def pass_bytes(config: ModelConfig, und: int, gen: int, dtype: torch.dtype, *, widened: bool = False) -> int:
    """Peak of one pass besides keys and values: the residual stream before and behind attention, what attention
    gave, the result, and the widest values of the MLP. widened: packed weights are widened for their product."""
    llm, rows = config.llm, max(und, gen)
    width, inner = llm.hidden_size, llm.intermediate_size
    long = rows > _LONG_MLP
    streams = (und + gen) * width * (5 if long else 4)
    mlp = (_MLP_SLICE if long else rows) * (3 * inner + width)
    wide = 3 * inner * width * dtype.itemsize + _WIDENING if widened else 0
    return (streams + mlp) * dtype.itemsize + wide + WORKSPACE


def vae_bytes(config: VAEConfig, size: tuple[int, int], dtype: torch.dtype, maps: float) -> int:
    item = 4 if dtype is torch.float16 else dtype.itemsize
    return int(size[0] * size[1] * config.ch * item * maps)


def held_bytes(config: ModelConfig, demand: Demand, dtype: torch.dtype) -> tuple[int, int]:
    """Keys and values of a request: of what was read, and with the branches that draw or the text that is
    written behind it."""
    read = demand.held + demand.read
    base = kv_bytes(config, read, dtype) if demand.read else 0
    pictures = demand.held + demand.latents + demand.patches
    if pictures and demand.height:  # guidance holds the texts alone as well
        base += kv_bytes(config, demand.text, dtype)
    grown = 0
    if demand.height:
        fresh = demand.drawn(config) + 2
        lengths = [read, read if pictures else 0, demand.held + demand.text if pictures else 0][: demand.branches]
        grown = sum(kv_bytes(config, max(length + fresh, length * 3 // 2), dtype) for length in lengths)
        grown += demand.cached * _DIFFERENCES * fresh * config.llm.hidden_size * dtype.itemsize
    if demand.max_tokens:
        grown = max(grown, kv_bytes(config, max(read + demand.max_tokens, read * 3 // 2), dtype))
    return base * demand.batch, (base + grown) * demand.batch


def phases(
    config: ModelConfig,
    demand: Demand,
    dtype: torch.dtype,
    *,
    widened: bool = False,
    most: int = _MOST,
    tile: int = 0,
    visitors: Mapping[str, int] = MappingProxyType({}),
) -> dict[str, int]:
    """Peak of each phase of a request besides the weights that stay. most: tokens of a pass (a longer read goes
    alone); tile: side of a tile in pixels where the autoencoder works tile by tile; visitors: bytes of the parts that
    visit the card."""

    def rows(one: int, all_: int) -> int:
        return min(all_, max(most, one))

    def area(size: tuple[int, int]) -> tuple[int, int]:
        return (min(size[0], tile), min(size[1], tile)) if tile else size

    base, full = held_bytes(config, demand, dtype)
    und = rows(demand.text + demand.patches, (demand.text + demand.patches) * demand.batch)
    latents = rows(demand.latents, demand.latents * demand.batch)
    found = {"read": base + pass_bytes(config, und, latents, dtype, widened=widened)}
    if demand.encoded[0]:
        encoding = vae_bytes(config.vae, area(demand.encoded), dtype, ENCODE_MAPS)
        found["encode"] = base * (demand.batch - 1) // demand.batch + encoding + WORKSPACE
    if demand.max_tokens:
        found["write"] = full + pass_bytes(config, demand.batch, 0, dtype, widened=widened)
    if demand.height:
        drawn = demand.drawn(config)
        gen = rows(drawn, drawn * demand.branches * demand.batch)
        found["draw"] = full + pass_bytes(config, 2 * demand.branches * demand.batch, gen, dtype, widened=widened)
        others = (full - base) * (demand.batch - 1) // demand.batch
        pixels = demand.height * demand.width * 4 * 3 * 3  # the picture in float32, on its way to levels
        found["decode"] = (
            base + others + vae_bytes(config.vae, area((demand.height, demand.width)), dtype, DECODE_MAPS) + WORKSPACE
        ) + (pixels if tile else 0)
    return {name: size + sum(_visiting(visitors, name)) for name, size in found.items()}


def _visiting(visitors: Mapping[str, int], phase: str) -> list[int]:
    return [size for part, size in visitors.items() if phase in VISITS[part]]


def needed(
    config: ModelConfig,
    demands: list[Demand],
    dtype: torch.dtype,
    *,
    widened: bool = False,
    tile: int = 0,
    visitors: Mapping[str, int] = MappingProxyType({}),
) -> int:
    """Of several requests side by side, besides the weights that stay: the contexts of all, grown, and the largest
    work of any pass or picture. Of a single one its largest phase."""
    each = [phases(config, demand, dtype, widened=widened, tile=tile, visitors=visitors) for demand in demands]
    if len(demands) == 1:
        return max(each[0].values())
    held = [held_bytes(config, demand, dtype) for demand in demands]
    alone = max(max(found.values()) - full for found, (_, full) in zip(each, held, strict=True))
    gen = sum(demand.drawn(config) * demand.branches * demand.batch for demand in demands)
    und = sum((demand.text + demand.patches) * demand.batch for demand in demands)
    together = pass_bytes(config, min(und, _MOST), min(gen, _MOST), dtype, widened=widened)
    together += sum(max(_visiting(visitors, phase), default=0) for phase in ("read", "write"))
    return sum(full for _, full in held) + max(alone, together)
