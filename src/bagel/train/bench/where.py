"""The ceilings of a device, and where the time of a step goes."""

from __future__ import annotations

from collections.abc import Callable

import torch

from bagel.bench import account
from bagel.bench.account import CONVOLUTIONS, COPIES, PRODUCTS, Account
from bagel.bench.ceilings import copy_rate, seconds
from bagel.model.config import ModelConfig

KINDS = (
    ("attention", r"flex|triton_tem|flash|fmha|sdpa|attention|^_forward$|^_of_(queries|keys)$|^_sum_copies$"),
    ("VAE (convolutions and norms)", CONVOLUTIONS + r"|^_(sums|scales|apply|add)$"),
    ("products", PRODUCTS),
    ("optimiser", r"adam|multi_tensor|foreach|lerp|^_update$"),
    ("copies", COPIES),
    ("sums between ranks", r"nccl"),
    ("elementwise", r"."),
)


def profiled(step: Callable[[], object], device: torch.device, steps: int) -> Account:
    """`account.profiled` with the kinds of work of a training step."""
    return account.profiled(step, device, steps, KINDS)


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
