"""The ceilings of a device, and where the time of a step goes."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile

from bagel.bench.ceilings import copy_rate, seconds
from bagel.model.config import ModelConfig

_KINDS = (
    ("attention", r"flex|triton_tem|flash|fmha|sdpa|attention"),
    ("VAE (convolutions and norms)", r"conv(?!ert)|fprop|implicit_gemm|nchw|nhwc"),
    ("products", r"gemm|nvjet|cutlass|cublas|xmma|wgmma|aten::(mm|addmm|bmm|matmul)|splitk"),
    ("optimiser", r"adam|multi_tensor|foreach|lerp"),
    ("copies", r"memcpy|memset|copy_kernel|aten::copy_|CatArray"),
    ("sums between ranks", r"nccl"),
    ("elementwise", r"."),
)


_RANGE = re.compile(r"ProfilerStep|bench:|## |Torch-Compiled|Optimizer\.")
"""Names that stand for a stretch of time and not for work of their own."""


LONGEST = 40
"""How many kernels are listed."""


class Kernel(NamedTuple):
    """Milliseconds and calls a step."""

    name: str
    ms: float
    calls: float


def kind_of(kernel: str) -> str:
    """The kind of work that a kernel (on a CPU: an operator) does, by its name."""
    return next(kind for kind, pattern in _KINDS if re.search(pattern, kernel, re.IGNORECASE))


def profiled(step: Callable[[], object], device: torch.device, steps: int) -> tuple[dict[str, float], list[Kernel]]:
    """Milliseconds a step by kind of work, and the kernels that took longest. On a GPU the kernels' own times, which
    overlap on side streams: their sum may exceed the step."""
    gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]
    with profile(activities=activities) as prof:
        for _ in range(steps):
            step()
        if gpu:
            torch.cuda.synchronize(device)
    spent: dict[str, float] = defaultdict(float)
    named: dict[str, list[float]] = defaultdict(list)
    for event in prof.events() or ():
        on_gpu = event.device_type == torch.autograd.DeviceType.CUDA
        if on_gpu == gpu and not (getattr(event, "is_user_annotation", False) or _RANGE.match(event.name)):
            took = event.device_time if gpu else event.self_cpu_time_total
            spent[kind_of(event.name)] += took
            named[event.name].append(took)
    kinds = {kind: spent[kind] / 1000 / steps for kind, _ in _KINDS if spent[kind] > 0}
    longest = sorted(named, key=lambda name: -sum(named[name]))[:LONGEST]
    return kinds, [Kernel(name[:120], sum(named[name]) / 1000 / steps, len(named[name]) / steps) for name in longest]


def with_update(kinds: dict[str, float], ms: float) -> dict[str, float]:
    """A compiled optimiser's kernels have names like any other's: `ms`, what the update took by itself, is counted
    as the optimiser's and no longer as elementwise."""
    moved = max(0.0, min(ms - kinds.get("optimiser", 0.0), kinds.get("elementwise", 0.0)))
    return {**kinds, "optimiser": kinds.get("optimiser", 0.0) + moved, "elementwise": kinds["elementwise"] - moved}


def ceilings(config: ModelConfig, rows: int, device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    """copy: bytes read and written a second; products: TFLOP/s of the three shapes of a layer at `rows` rows, and
    their mean weighted by work; as `seconds` are measured: median of several."""
    width, inner = config.llm.hidden_size, config.llm.intermediate_size
    qkv = width + 2 * config.llm.num_key_value_heads * config.llm.head_dim
    found = {"copy TB/s": copy_rate(device) / 1e12}
    work = spent = 0.0
    for inputs, outputs in ((width, 2 * inner), (inner, width), (width, qkv)):
        x, w = (torch.randn(n, inputs, device=device, dtype=dtype) for n in (rows, outputs))
        took = seconds(lambda x=x, w=w: x @ w.T, device)  # type: ignore[misc]
        flop = 2 * rows * inputs * outputs
        work, spent = work + flop, spent + took
        found[f"product {rows}x{inputs}x{outputs} TFLOP/s"] = flop / took / 1e12
    found["products TFLOP/s"] = work / spent / 1e12
    return found
