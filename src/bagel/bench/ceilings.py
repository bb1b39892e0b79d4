"""What a device does at most, measured on the shapes of a model's layer; each figure is the median of several runs.

Letters: T rows, N query heads, H head width.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bagel.model.attention import attend
from bagel.model.config import LLMConfig
from bagel.model.fp8 import can_multiply, quantise
from bagel.model.kernels import linear

PLAIN, FP8 = "plain", "fp8"
ROWS = 4096
"""Latent tokens of a picture of 1024 x 1024."""
_SMALL_ROWS = 64  # on a CPU
SUSTAINED = 6.0
"""Seconds that a drawing keeps a GPU busy, about."""
Maker = Callable[[int, int], Callable[[], object]]
"""A product to call, of so many inputs and outputs."""
PREFIX = 104
"""Tokens that such a picture looks at besides its own: a short prompt and two markers."""


@dataclass(frozen=True)
class Ceilings:
    """copy: bytes read and written a second; products: FLOP/s, `plain` (in what the model computes in) and, where the
    device multiplies it, `fp8`: the mean of a layer's shapes weighted by work; attention: FLOP/s; shapes: FLOP/s of
    each product by "plain TxKxN"; sustained: FLOP/s of the products after some seconds of nothing else, on a GPU: what
    its power allows, where the others are what it does from rest."""

    copy: float
    products: dict[str, float]
    attention: float
    shapes: dict[str, float] = field(default_factory=dict)
    sustained: dict[str, float] = field(default_factory=dict)

    def rounded(self) -> dict[str, object]:
        """For a report: TB/s and TFLOP/s."""
        tera = {name: round(rate / 1e12, 4) for name, rate in self.products.items()}
        shapes = {name: round(rate / 1e12, 4) for name, rate in self.shapes.items()}
        return {
            "copy_tb_per_s": round(self.copy / 1e12, 4),
            "products_tflops": tera,
            "sustained_tflops": {name: round(rate / 1e12, 4) for name, rate in self.sustained.items()},
            "attention_tflops": round(self.attention / 1e12, 4),
            "products_by_shape_tflops": shapes,
        }


def measure(config: LLMConfig, device: torch.device, dtype: torch.dtype) -> Ceilings:
    """dtype: what the model computes in. fp8 is measured where the device multiplies it."""
    rows = ROWS if device.type == "cuda" else _SMALL_ROWS
    shapes: dict[str, float] = {}
    makers: dict[str, Maker] = {PLAIN: lambda k, n: _plain(rows, k, n, device, dtype)}
    if can_multiply(device):
        makers[FP8] = lambda k, n: _fp8(rows, k, n, device)
    products = {name: _products(config, rows, make, shapes, name, device) for name, make in makers.items()}
    attention = _attention(config, rows, device, dtype)
    sustained = {name: _sustained(config, rows, make) for name, make in makers.items()} if rows == ROWS else {}
    return Ceilings(copy_rate(device), products, attention, shapes, sustained)


def layer_shapes(config: LLMConfig) -> list[tuple[int, int]]:
    """Inputs and outputs of the products of one expert's half of a layer."""
    width, inner = config.hidden_size, config.intermediate_size
    heads = config.num_attention_heads * config.head_dim
    qkv = heads + 2 * config.num_key_value_heads * config.head_dim
    return [(width, 2 * inner), (inner, width), (width, qkv), (heads, width)]


def copy_rate(device: torch.device) -> float:
    """Bytes read and written a second from a place of the device to another."""
    size = 2**30 if device.type == "cuda" else 2**22
    source = torch.randint(0, 255, (size,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / seconds(lambda: target.copy_(source), device)


def _products(
    config: LLMConfig,
    rows: int,
    make: Maker,
    shapes: dict[str, float],
    name: str,
    device: torch.device,
) -> float:
    work = spent = 0.0
    for inputs, outputs in layer_shapes(config):
        took, flop = seconds(make(inputs, outputs), device), 2.0 * rows * inputs * outputs
        shapes[f"{name} {rows}x{inputs}x{outputs}"] = flop / took
        work, spent = work + flop, spent + took
    return work / spent


def _sustained(config: LLMConfig, rows: int, make: Maker) -> float:
    """FLOP/s over the second half of `SUSTAINED` seconds of a layer's products, one after the other."""
    shapes = layer_shapes(config)
    calls = [make(inputs, outputs) for inputs, outputs in shapes]
    work = sum(2.0 * rows * inputs * outputs for inputs, outputs in shapes)
    rates, begin = [], time.perf_counter()
    while (now := time.perf_counter()) - begin < SUSTAINED:
        for call in calls * 20:
            call()
        torch.cuda.synchronize()
        rates.append((now - begin, 20 * work / (time.perf_counter() - now)))
    return statistics.median(rate for start, rate in rates if start >= SUSTAINED / 2)


def _plain(rows: int, inputs: int, outputs: int, device: torch.device, dtype: torch.dtype) -> Callable[[], Tensor]:
    x, w = (torch.randn(n, inputs, device=device, dtype=dtype) for n in (rows, outputs))
    return torch.inference_mode()(lambda: linear(x, w))


def _fp8(rows: int, inputs: int, outputs: int, device: torch.device) -> Callable[[], Tensor]:
    """A scale for each row and each output, as the model has them."""
    x, w = (quantise(torch.randn(n, inputs, device=device)) for n in (rows, outputs))
    scales = x.scale[:, None], w.scale[None]
    return lambda: torch._scaled_mm(
        x.values, w.values.t(), scale_a=scales[0], scale_b=scales[1], out_dtype=torch.bfloat16, use_fast_accum=True
    )


def _attention(config: LLMConfig, rows: int, device: torch.device, dtype: torch.dtype) -> float:
    heads, kept = config.num_attention_heads, config.num_key_value_heads
    shapes = (rows, heads), (rows + PREFIX, kept), (rows + PREFIX, kept)
    q, k, v = (torch.randn(*shape, config.head_dim, device=device, dtype=dtype) for shape in shapes)
    return 4.0 * rows * (rows + PREFIX) * heads * config.head_dim / seconds(lambda: attend(q, k, v), device)


def seconds(call: Callable[[], object], device: torch.device, times: int = 10, warm: int = 3) -> float:
    """Median time of a call, after `warm` calls."""
    for _ in range(warm):
        call()
    if device.type != "cuda":
        taken = []
        for _ in range(times):
            begin = time.perf_counter()
            call()
            taken.append(time.perf_counter() - begin)
        return statistics.median(taken)
    events = [torch.cuda.Event(enable_timing=True) for _ in range(times + 1)]
    events[0].record()
    for event in events[1:]:
        call()
        event.record()
    torch.cuda.synchronize(device)
    return statistics.median(a.elapsed_time(b) / 1000 for a, b in itertools.pairwise(events))
