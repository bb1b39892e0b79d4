"""Attention of a training pack on this GPU: over runs against FlexAttention, and which tiles suit its backward.

    PYTHONPATH=src python benchmarks/train_attention.py [--lora | --mini] [--flex]

The packs are those of `bagel bench train`; the ViT's pictures are the pack's. `--mini`: runs as a pack of `bagel.mini`
has them, the kernels alone. Milliseconds a layer; each pass of the backward is timed by itself, as the profiler saw its
kernel. Under a minute, most of it Triton's compiler (FlexAttention compiles half a minute more).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor
from triton.runtime.errors import OutOfResources

from bagel.model import run_tiles, triton_runs, varlen
from bagel.model.attention import QKV, PackAttention, RunAttention
from bagel.model.config import ModelConfig
from bagel.model.run_tiles import Shape
from bagel.runs import Runs
from bagel.train.bench.shapes import Mix, make_pack, model_config
from bagel.train.bench.where import profiled, seconds

GPU = torch.device("cuda")
Tiles = tuple[list[Shape], list[Shape]]
"""What is tried for the queries' pass, and for the forward, and for the keys' pass."""
TILES: Tiles = (
    [Shape(128, 64, 8, 3), Shape(128, 128, 8, 2), Shape(64, 128, 4, 2), Shape(128, 64, 8, 2)],
    [Shape(64, 128, 8, 2), Shape(32, 128, 8, 3), Shape(64, 128, 8, 3), Shape(64, 64, 4, 2), Shape(32, 64, 4, 3)],
)
FORWARD_TILES = [Shape(128, 128, 8, 3), Shape(64, 64, 4, 3), Shape(64, 128, 4, 3)]
MINI_TILES: Tiles = (
    [Shape(128, 64, 4, 3), Shape(64, 64, 4, 3), Shape(64, 32, 4, 3), Shape(32, 64, 4, 3), Shape(32, 64, 2, 3),
     Shape(16, 64, 2, 3)],
    [Shape(64, 128, 8, 2), Shape(64, 64, 4, 2), Shape(32, 128, 4, 3), Shape(32, 64, 4, 3), Shape(32, 32, 2, 3),
     Shape(16, 64, 4, 3)],
)  # fmt: skip
"""66 queries take one tile of 128, two of 64, three of 32 or five of 16, of which they fill 52, 52, 69 and 82 %."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--lora", action="store_true", help="heads of the 7B size")
    size.add_argument("--mini", action="store_true", help="heads of 32 and short runs")
    parser.add_argument("--flex", action="store_true", help="FlexAttention beside it")
    given = parser.parse_args()
    if given.mini:
        mini()
    else:
        large(given.lora, given.flex)


def large(lora: bool, flex: bool) -> None:
    config = model_config(lora, False)
    pack = make_pack(config, Mix.of(lora, False), 0).to(GPU)
    assert pack.runs is not None
    whole(config, pack, flex)
    heads = config.llm.num_attention_heads, config.llm.num_key_value_heads
    for name, runs, keys, count, width, causal in (
        ("full runs", pack.runs.full, pack.runs.num_full_keys, heads, config.llm.head_dim, False),
        ("causal runs", pack.runs.causal, len(pack.runs.keys) - pack.runs.num_full_keys, heads, 128, True),
        ("ViT", pictures(pack), pack.counts["vit"], (config.vit.num_attention_heads,) * 2, 72, False),
    ):
        kernels(name, runs, keys, count, width, causal, TILES)


def mini() -> None:
    """In the numbers of one pack, lengths drawn at random; how many pictures its ViT reads is a guess."""
    generator = np.random.default_rng(0)
    full = np.minimum(66 + generator.exponential(94, 1900), 811).astype(int)
    full[0] = 811  # the longest decides how many programs there are
    texts = generator.integers(20, 91, 1060)
    seen = np.full(600, 64)
    heads = 8, 4
    for name, queries, keys, count, causal in (
        ("full runs", np.full_like(full, 66), full, heads, False),
        ("causal runs", texts, texts, heads, True),
        ("ViT", seen, seen, (6, 6), False),
    ):
        kernels(name, Runs.of(queries, keys).to(GPU), int(keys.sum()), count, 32, causal, MINI_TILES)


def pictures(pack: object) -> Runs:
    lengths = np.array(pack.pack.vit_lengths)  # type: ignore[attr-defined]
    return Runs.of(lengths, lengths).to(GPU)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, device=GPU, dtype=torch.bfloat16)


def whole(config: ModelConfig, pack: object, flex: bool) -> None:
    """Queries, keys and values of both experts to what they receive, and back."""
    layout, llm = pack.pack.layout, config.llm  # type: ignore[attr-defined]
    counts = layout.num_und, len(layout) - layout.num_und
    made = [
        QKV(*(normal(count, n, llm.head_dim).requires_grad_() for n in (llm.num_attention_heads, *(kv,) * 2)))
        for count in counts
        for kv in (llm.num_key_value_heads,)
    ]
    weight = normal(len(layout), llm.num_attention_heads, llm.head_dim)
    ways = {"runs": RunAttention(pack.runs)}  # type: ignore[attr-defined]
    if flex:
        ways["flex"] = PackAttention(layout)  # type: ignore[assignment]
    received = {}
    for name, attend in ways.items():

        def forward(attend: RunAttention = attend) -> Tensor:
            return torch.cat(attend(0, *made))

        def both(forward: object = forward) -> tuple[Tensor, ...]:
            return torch.autograd.grad((forward() * weight).sum(), [*made[0], *made[1]])  # type: ignore[operator]

        received[name] = [forward(), *both()]
        same = all(map(torch.equal, both(), both()))
        print(
            f"{name}: forward {1000 * seconds(forward, GPU, 5):.2f} ms, with backward "
            f"{1000 * seconds(both, GPU, 5):.2f} ms, same bits twice: {same}"
        )
    if flex:
        errors = [float((a - b).norm() / b.norm()) for a, b in zip(received["runs"], received["flex"], strict=True)]
        print("distance, output and gradients:", ", ".join(f"{error:.1e}" for error in errors))


def kernels(name: str, runs: Runs, keys: int, heads: tuple[int, int], width: int, causal: bool, tiles: Tiles) -> None:
    queries = int(runs.query_ends[-1])
    lengths = [(ends[1:] - ends[:-1]).double() for ends in (runs.query_ends, runs.key_ends)]
    pairs = float((lengths[0] * lengths[1]).sum())
    product = 2 * pairs * heads[0] * width / 1e12
    q, k, v = normal(queries, heads[0], width), normal(keys, heads[1], width), normal(keys, heads[1], width)
    ends = runs.query_ends, runs.key_ends, runs.longest_query, runs.longest_key, causal
    print(f"{name}: {queries} queries, {keys} keys")
    took = seconds(lambda: torch.ops.aten._flash_attention_forward(q, k, v, *ends[:4], 0.0, causal, False), GPU, 5)
    print(f"    FlashAttention-2, forward: {1000 * took:.3f} ms, {2 * product / took:.0f} TFLOP/s")
    made = torch.empty_like(q), q.new_empty(heads[0], queries, dtype=torch.float32)
    chosen_forward = run_tiles.forward_shape(run_tiles.widths(width)[0], ends[2], causal)
    for tile in dict.fromkeys([chosen_forward, *tiles[0], *FORWARD_TILES]):
        call = partial(triton_runs.forward, q, k, v, *ends[:3], causal, made, chosen=tile)
        ms = kernel_ms("_forward", call)
        rate = f"{ms:.3f} ms, {2 * product / ms * 1000:.0f} TFLOP/s" if ms else "-"
        print(f"    forward, {tile}: {rate}{' (chosen)' if tile == chosen_forward else ''}", flush=True)
    varlen.forward(made, q, k, v, *ends)
    out, sums = made
    grad, into = normal(*out.shape), (torch.empty_like(q), torch.empty_like(k), torch.empty_like(v))
    chosen = run_tiles.shapes(run_tiles.widths(width)[0], *ends[2:])
    for number, (of, kernel, products) in enumerate((("queries", "_of_queries", 3), ("keys", "_of_keys", 4))):
        for tile in dict.fromkeys([chosen[number], *tiles[number]]):
            both = (tile, chosen[1]) if number == 0 else (chosen[0], tile)
            ms = kernel_ms(kernel, partial(triton_runs.backward, grad, q, k, v, out, sums, *ends, into, chosen=both))
            rate = f"{ms:.3f} ms, {products * product / ms * 1000:.0f} TFLOP/s" if ms else "-"
            print(f"    {of}' pass, {tile}: {rate}{' (chosen)' if tile == chosen[number] else ''}", flush=True)
    zeros = torch.zeros(2, dtype=torch.uint64, device=GPU)
    known = grad, q, k, v, out, sums, *ends[:4], 0.0, causal, zeros, zeros
    took = seconds(lambda: torch.ops.aten._flash_attention_backward(*known), GPU, 5)
    rate = f"{1000 * took:.3f} ms, {5 * product / took:.0f} TFLOP/s of five products"
    print(f"    FlashAttention-2, backward with atomic sums: {rate}")


def kernel_ms(kernel: str, call: Callable[[], object]) -> float | None:
    """Milliseconds of one kernel of a call; None where its tile wants more shared memory than there is."""
    try:
        for _ in range(3):
            call()
    except OutOfResources:
        return None
    return next(found.ms for found in profiled(call, GPU, 10).kernels if kernel in found.name)


if __name__ == "__main__":
    main()
