"""Attention of a training pack on this GPU: over runs against FlexAttention, and which tiles suit its backward.

    PYTHONPATH=src python benchmarks/train_attention.py [--lora] [--flex]

The packs are those of `bagel bench train`; the ViT's pictures are the pack's. Milliseconds a layer, under a minute
(FlexAttention compiles half a minute more).
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor
from triton.runtime.errors import OutOfResources

from bagel.model import triton_runs, varlen
from bagel.model.attention import QKV, PackAttention, RunAttention
from bagel.model.config import ModelConfig
from bagel.model.triton_runs import Shape
from bagel.runs import Runs
from bagel.train.bench.shapes import Mix, make_pack, model_config
from bagel.train.bench.where import seconds

GPU = torch.device("cuda")
OF_QUERIES = [Shape(128, 64, 8, 3), Shape(128, 128, 8, 2), Shape(64, 128, 4, 2), Shape(128, 64, 8, 2)]
OF_KEYS = [Shape(64, 128, 8, 2), Shape(32, 128, 8, 3), Shape(64, 128, 8, 3), Shape(64, 64, 4, 2), Shape(32, 64, 4, 3)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--lora", action="store_true", help="heads of the 7B size")
    parser.add_argument("--flex", action="store_true", help="FlexAttention beside it")
    given = parser.parse_args()
    config = model_config(given.lora, False)
    pack = make_pack(config, Mix.of(given.lora, False), 0).to(GPU)
    assert pack.runs is not None
    whole(config, pack, given.flex)
    heads = config.llm.num_attention_heads, config.llm.num_key_value_heads
    for name, runs, keys, count, width, causal in (
        ("full runs", pack.runs.full, pack.runs.num_full_keys, heads, config.llm.head_dim, False),
        ("causal runs", pack.runs.causal, len(pack.runs.keys) - pack.runs.num_full_keys, heads, 128, True),
        ("ViT", pictures(pack), pack.counts["vit"], (config.vit.num_attention_heads,) * 2, 72, False),
    ):
        kernels(name, runs, keys, count, width, causal)


def pictures(pack: object) -> Runs:
    import numpy as np

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


def kernels(name: str, runs: Runs, keys: int, heads: tuple[int, int], width: int, causal: bool) -> None:
    queries = int(runs.query_ends[-1])
    lengths = [(ends[1:] - ends[:-1]).double() for ends in (runs.query_ends, runs.key_ends)]
    pairs = float((lengths[0] * lengths[1]).sum())
    product = 2 * pairs * heads[0] * width / 1e12
    q, k, v = normal(queries, heads[0], width), normal(keys, heads[1], width), normal(keys, heads[1], width)
    ends = runs.query_ends, runs.key_ends, runs.longest_query, runs.longest_key, causal
    out, sums = varlen._attention(q, k, v, *ends)
    took = seconds(lambda: varlen._attention(q, k, v, *ends), GPU, 5)
    print(f"{name}: {queries} queries, {keys} keys; forward {1000 * took:.2f} ms, {2 * product / took:.0f} TFLOP/s")
    grad = normal(*out.shape)
    pairs_of_tiles = [(OF_QUERIES[0], one) for one in OF_KEYS] + [(one, OF_KEYS[1]) for one in OF_QUERIES[1:]]
    for tiles in pairs_of_tiles:
        took = backward_seconds((grad, q, k, v, out, sums), ends, tiles)
        print(
            f"    {tiles[0]} {tiles[1]}: "
            + (f"{1000 * took:.2f} ms, {7 * product / took:.0f} TFLOP/s" if took else "-")
        )
    zeros = torch.zeros(2, dtype=torch.uint64, device=GPU)
    took = seconds(
        lambda: torch.ops.aten._flash_attention_backward(
            grad, q, k, v, out, sums, *ends[:4], 0.0, causal, zeros, zeros
        ),
        GPU,
        5,
    )  # fmt: skip
    print(f"    FlashAttention-2, atomic sums: {1000 * took:.2f} ms, {5 * product / took:.0f} TFLOP/s of five products")


def backward_seconds(
    tensors: tuple[Tensor, ...], ends: tuple[Tensor, Tensor, int, int, bool], tiles: tuple[Shape, Shape]
) -> float | None:
    """None where the tiles want more shared memory than there is."""
    try:
        return seconds(lambda: triton_runs.backward(*tensors, *ends, chosen=tiles), GPU, 5)
    except OutOfResources:
        return None


if __name__ == "__main__":
    main()
