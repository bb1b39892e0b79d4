"""Where the time of a piece of work goes, kernel by kernel, as PyTorch's profiler sees it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile

Kinds = Sequence[tuple[str, str]]
"""Kinds of work, each with a pattern of its kernels' names; the first that is found counts."""

PRODUCTS = r"gemm|nvjet|cutlass|cublas|xmma|wgmma|aten::(mm|addmm|bmm|matmul)|splitk|linear_pointwise"
CONVOLUTIONS = r"conv(?!ert)|fprop|implicit_gemm|nchw|nhwc"
COPIES = r"memcpy|memset|copy_kernel|aten::copy_|CatArray"
INFERENCE: Kinds = (
    ("attention", r"flash|fmha|sdpa|attention|^_attend|^_merge$|^_forward$|^_of_(queries|keys)$"),
    ("autoencoder", CONVOLUTIONS + r"|^_(sums|scales|apply|add)$"),
    ("products", PRODUCTS + r"|^_(gemv|skinny|product)$"),
    ("quantising and widening", r"^_(quantise_row|widen|sizes)$"),
    ("SwiGLU", r"^_swiglu"),
    ("copies", COPIES),
    ("norms, rotation and the rest", r"."),
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


@dataclass(frozen=True)
class Account:
    """kinds: milliseconds a step by kind of work; kernels: those that took longest; busy: milliseconds a step in
    which at least one kernel ran. Kernels on side streams overlap: the sum of the kinds may exceed `busy`."""

    kinds: dict[str, float]
    kernels: list[Kernel]
    busy: float


def kind_of(kernel: str, kinds: Kinds) -> str:
    """The kind of work that a kernel (on a CPU: an operator) does, by its name."""
    return next(kind for kind, pattern in kinds if re.search(pattern, kernel, re.IGNORECASE))


def profiled(step: Callable[[], object], device: torch.device, steps: int, kinds: Kinds) -> Account:
    """Runs `step` so many times under the profiler. On a GPU the times are the kernels' own."""
    gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]
    with profile(activities=activities) as prof:
        for _ in range(steps):
            step()
        if gpu:
            torch.cuda.synchronize(device)
    spent: dict[str, float] = defaultdict(float)
    named: dict[str, list[float]] = defaultdict(list)
    spans: list[tuple[float, float]] = []
    for event in prof.events() or ():
        on_gpu = event.device_type == torch.autograd.DeviceType.CUDA
        if on_gpu == gpu and not (getattr(event, "is_user_annotation", False) or _RANGE.match(event.name)):
            took = event.device_time if gpu else event.self_cpu_time_total
            spent[kind_of(event.name, kinds)] += took
            named[event.name].append(took)
            spans.append((event.time_range.start, event.time_range.end))
    longest = sorted(named, key=lambda name: -sum(named[name]))[:LONGEST]
    return Account(
        {kind: spent[kind] / 1000 / steps for kind, _ in kinds if spent[kind] > 0},
        [Kernel(name[:120], sum(named[name]) / 1000 / steps, len(named[name]) / steps) for name in longest],
        covered(spans) / 1000 / steps,
    )


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """The length of the union of (start, end)."""
    length, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        length += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return length
