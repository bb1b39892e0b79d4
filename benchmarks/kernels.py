"""The GPU kernels of inference by themselves, at the 7B sizes, each beside the least time that its bytes take at the
device's copy speed; for those with a choice, the choices beside each other.

    python benchmarks/kernels.py [--only SECTION ...] [--out FILE]

    gemv    products of one row: cuts of the work (`triton_gemv.Shape`), started early or not
    skinny  products of four rows, as of the markers of a picture with two branches (`triton_skinny.Shape`)
    token   all between query, key and value and the next product, for a token at 5,000 tokens of context
    layer   a whole layer of writing text, by the kernels it is made of
    rows    what runs over the 8,196 rows of an update: SwiGLU, norms, rotation, quantising
    prompt  attention of 131 tokens behind 4,902: with a mask, and as a run
    step    the next token of the whole model (15 GB of random weights), with and without what is new

Every figure is of a captured graph of many calls, so gaps between kernels count as they do in a model. Weights take
turns, so that none is still in a cache.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bagel.bench.ceilings import copy_rate
from bagel.infer.context import Context
from bagel.infer.engine import Engine, Read
from bagel.infer.text import Sampler
from bagel.model import kernels
from bagel.model.attention import attend
from bagel.model.config import Layers
from bagel.model.fp8 import Fp8Weight, quantise
from bagel.model.layers import Rotary
from bagel.model.published import SEVEN_B
from bagel.pack import PackRules, TextPart

LLM = SEVEN_B.llm
WIDTH, INNER, HEADS, KV, HEAD = (
    LLM.hidden_size, LLM.intermediate_size, LLM.num_attention_heads, LLM.num_key_value_heads, LLM.head_dim,
)  # fmt: skip
QKV = (HEADS + 2 * KV) * HEAD
CONTEXT, ROWS, LAYERS = 5000, 8196, LLM.num_hidden_layers
_TURN = 120 * 2**20
"""Bytes of the weights that take turns: more than twice an H100's cache."""
CUDA = torch.device("cuda")
Weight = Tensor | Fp8Weight
Line = dict[str, Any]


def normal(*shape: int, scale: float = 1.0) -> Tensor:
    return torch.empty(*shape, device=CUDA, dtype=torch.bfloat16).normal_(0, scale)


class Board:
    """Prints and keeps what was measured."""

    def __init__(self) -> None:
        self.copy = copy_rate(CUDA)
        self.lines: list[Line] = []
        print(f"{torch.cuda.get_device_name()}: copies {self.copy / 1e12:.2f} TB/s", flush=True)

    def time(self, what: str, calls: Sequence[Callable[[], object]], bytes_each: float = 0.0) -> float:
        """Microseconds a call. bytes_each: read or written by one, at least."""
        try:
            taken = graphed(calls)
        except Exception as error:  # a choice that this device has no room for is a line of the table
            print(f"  {what:58} {type(error).__name__}: {str(error).splitlines()[0][:80]}", flush=True)
            self.lines.append({"what": what, "error": str(error)[:200]})
            return float("inf")
        line: Line = {"what": what, "us": round(taken, 2)}
        text = f"  {what:58} {taken:9.2f} us"
        if bytes_each:
            floor = bytes_each / self.copy * 1e6
            line |= {"floor_us": round(floor, 2), "tb_per_s": round(bytes_each / taken / 1e6, 3)}
            text += f"   floor {floor:9.2f}   {bytes_each / taken / 1e6:5.2f} TB/s"
        print(text, flush=True)
        self.lines.append(line)
        return taken


def graphed(calls: Sequence[Callable[[], object]], least: int = 24) -> float:
    """Median microseconds of a call, of a graph in which they follow each other, in turn."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for call in calls:
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph, count = torch.cuda.CUDAGraph(), -(-least // len(calls)) * len(calls)
    with torch.cuda.graph(graph):
        for call in itertools.islice(itertools.cycle(calls), count):
            call()
    taken = []
    for _ in range(6):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        taken.append(begin.elapsed_time(end) * 1000 / count)
    return statistics.median(taken[1:])


@contextmanager
def early(on: bool) -> Iterator[None]:
    """Kernels of a token's step start while the one before them ends."""
    from bagel.model import triton_token

    before, triton_token.OVERLAP = triton_token.OVERLAP, on
    try:
        yield
    finally:
        triton_token.OVERLAP = before


def in_turn(outputs: int, inputs: int, fp8: bool) -> list[Weight]:
    """Copies of a weight."""
    count = min(8, max(1, -(-_TURN // (outputs * inputs * (1 if fp8 else 2)))))
    made = [normal(outputs, inputs, scale=0.02) for _ in range(count)]
    return [quantise(weight) for weight in made] if fp8 else list(made)


def size_of(weight: Weight) -> int:
    return weight.nbytes if isinstance(weight, Tensor) else weight.values.nbytes


def products(rows: int) -> list[tuple[str, int, int, dict[str, Any]]]:
    """name, outputs and inputs of the weight, and what rides along."""
    norm = {"norm": (normal(WIDTH), 1e-6)}
    return [
        ("qkv", QKV, WIDTH, {**norm, "bias": normal(QKV)}),
        ("o", WIDTH, HEADS * HEAD, {"add": normal(rows, WIDTH)}),
        ("gate_up", 2 * INNER, WIDTH, {**norm, "gated": True}),
        ("down", WIDTH, INNER, {"add": normal(rows, WIDTH)}),
    ]


# --- sections ----------------------------------------------------------------------------------------------


def gemv(board: Board) -> None:
    from bagel.model.triton_gemv import Shape
    from bagel.model.triton_gemv import gemv as product

    cuts = [
        Shape(2, 512, 2, False), Shape(2, 512, 2, True), Shape(1, 512, 2, True), Shape(1, 1024, 2, True),
        Shape(4, 512, 2, True), Shape(2, 1024, 4, True), Shape(4, 512, 4, True), Shape(1, 512, 1, True),
    ]  # fmt: skip
    head = ("head", LLM.vocab_size, WIDTH, {"norm": (normal(WIDTH), 1e-6)})
    for fp8, (name, outputs, inputs, extra) in [
        *itertools.product((False, True), products(1)),
        (False, head),
    ]:
        weights, x = in_turn(outputs, inputs, fp8), normal(1, inputs)
        best: dict[str, float] = {}
        for cut, started_early in itertools.product(cuts, (False, True)):
            if started_early and not cut.ahead:
                continue
            with early(started_early):
                calls = [_call(product, x, weight, shape=cut, **extra) for weight in weights]
                what = f"{name} {'fp8' if fp8 else 'bf16'} {tuple(cut)}{' early' if started_early else ''}"
                best[what] = board.time(what, calls, size_of(weights[0]))
        print(f"  -> {min(best, key=lambda what: best[what])}")


def skinny(board: Board) -> None:
    """With the norm of its input in it, and behind a kernel of its own."""
    from bagel.model.triton_skinny import Shape
    from bagel.model.triton_skinny import skinny as product

    plain = [Shape(64, 128, 4, 8), Shape(32, 128, 6, 4), Shape(32, 256, 4, 4)]
    narrow = [Shape(32, 256, 4, 4), Shape(32, 256, 6, 4), Shape(64, 256, 4, 8), Shape(64, 256, 4, 4),
              Shape(32, 512, 3, 4), Shape(16, 512, 4, 4), Shape(128, 128, 4, 8)]  # fmt: skip
    for fp8, (name, outputs, inputs, extra) in itertools.product((False, True), products(4)):
        weights, x = in_turn(outputs, inputs, fp8), normal(4, inputs)
        best: dict[str, float] = {}
        for cut, apart in itertools.product(narrow if fp8 else plain, (False, True)):
            if apart and "norm" not in extra:
                continue
            calls = [_call(_behind_norm if apart else product, x, weight, shape=cut, **extra) for weight in weights]
            what = f"{name} {'fp8' if fp8 else 'bf16'} {tuple(cut)}{', norm apart' if apart else ''}"
            best[what] = board.time(what, calls, size_of(weights[0]))
        print(f"  -> {min(best, key=lambda what: best[what])}")


def _behind_norm(x: Tensor, weight: Weight, norm: tuple[Tensor, float], **named: Any) -> Tensor:
    from bagel.model.triton_kernels import rms_norm
    from bagel.model.triton_skinny import skinny as product

    return product(rms_norm(x, *norm), weight, **named)


def _call(product: Callable[..., Tensor], *given: Any, **named: Any) -> Callable[[], object]:
    return lambda: product(*given, **named)


def _decoding() -> tuple[Callable[[int], Tensor], Callable[[int], Tensor], Tensor, float]:
    """Everything between two products of a layer, as it was and as it is; bytes of the keys and values."""
    from bagel.model import triton_decode, triton_token

    store = normal(8, 2, CONTEXT + 56, KV, HEAD)
    address, length, capacity = (
        torch.tensor([value], device=CUDA) for value in (store.data_ptr(), CONTEXT, store.shape[2])
    )
    product, weights = normal(1, HEADS + 2 * KV, HEAD), (normal(HEAD), normal(HEAD))
    cos, sin = Rotary(HEAD, LLM.rope_theta)(torch.tensor([CONTEXT], device=CUDA))
    halves = [angle[:, 0, : HEAD // 2].contiguous() for angle in (cos, sin)]
    count, norms = length + 1, triton_token.Norms(*weights, 1e-6)

    def apart(layer: int) -> Tensor:
        q, k = kernels.norm_and_rotate(product, weights, (HEADS, KV), cos, sin, 1e-6)
        triton_decode.write(k, product[:, HEADS + KV :], address, length, capacity, layer)
        return triton_decode.attend(q, KV, address, count, capacity, layer)

    def at_once(layer: int) -> Tensor:
        places = triton_token.Places(address, length, capacity)
        return triton_token.attend(product, norms, halves[0], halves[1], places, layer, HEADS)

    return apart, at_once, store, 2.0 * CONTEXT * KV * HEAD * 2


_TOKEN_SHAPES = [(64, 4, 3), (32, 4, 4), (32, 2, 4), (128, 8, 2), (64, 8, 2), (64, 2, 3)]


def token(board: Board) -> None:
    from bagel.model import triton_token

    apart, at_once, store, read = _decoding()
    board.time("norms, rotation, writing, attention and join apart", [_call(apart, n) for n in range(len(store))], read)
    before, calls = (triton_token.PROGRAMS, triton_token.SHAPE), [_call(at_once, n) for n in range(len(store))]
    shapes = [triton_token.Shape(*numbers) for numbers in _TOKEN_SHAPES]
    for programs, shape, on in itertools.product((132, 264), shapes, (False, True)):
        if on and shape != before[1]:
            continue
        triton_token.PROGRAMS, triton_token.SHAPE = programs, shape
        with early(on):
            what = f"two kernels, {programs} programs, {tuple(shape)}{', early' if on else ''}"
            board.time(what, calls, read)
    triton_token.PROGRAMS, triton_token.SHAPE = before


def layer(board: Board) -> None:
    apart, at_once, store, read = _decoding()
    x = normal(1, WIDTH)
    norm = (normal(WIDTH), 1e-6)
    weights = [[normal(n, k, scale=0.02) for _, n, k, _ in products(1)] for _ in range(2)]
    bytes_each = read + sum(size_of(weight) for weight in weights[0])

    def one(between: Callable[[int], Tensor], number: int) -> Tensor:
        qkv, o, gate_up, down = weights[number % 2]
        kernels.norm_linear(x, norm, qkv)
        y = kernels.linear(between(number).flatten(1), o, add=x)
        return kernels.mlp(y, norm, gate_up, down)

    for what, between, on in (
        ("8 kernels", apart, False), ("6 kernels", at_once, False), ("6 kernels, early", at_once, True),
    ):  # fmt: skip
        with early(on):
            taken = board.time(what, [_call(one, between, n) for n in range(len(store))], bytes_each)
            print(f"  -> {LAYERS} layers {taken * LAYERS / 1000:.2f} ms")


def rows(board: Board) -> None:
    from bagel.model import triton_fp8, triton_kernels

    gate_up, x, norm = normal(4096, 2 * INNER), normal(ROWS, WIDTH), (normal(WIDTH), 1e-6)
    heads, weights = normal(ROWS, HEADS + 2 * KV, HEAD), (normal(HEAD), normal(HEAD))
    cos, sin = Rotary(HEAD, LLM.rope_theta)(torch.arange(ROWS, device=CUDA))
    row, turned = 2 * WIDTH, 4 * (HEADS + KV) * HEAD + 8 * HEAD
    out = torch.empty_like(x)
    for what, call, read in (
        ("SwiGLU, 4,096 rows", lambda: triton_kernels.swiglu(gate_up), 4096 * INNER * 6),
        ("SwiGLU to fp8, a row read once", lambda: triton_fp8.swiglu(gate_up), 4096 * INNER * 5),
        ("SwiGLU to fp8, a row read twice", lambda: triton_fp8.swiglu(gate_up, 1), 4096 * INNER * 5),
        ("RMSNorm", lambda: triton_kernels.rms_norm(x, *norm), ROWS * row * 2),
        ("RMSNorm to fp8", lambda: triton_fp8.quantise(x, norm), ROWS * row * 3 / 2),
        ("to fp8", lambda: triton_fp8.quantise(x), ROWS * row * 3 / 2),
        ("sum in place", lambda: out.add_(x), ROWS * row * 3),
        (
            "norms and rotation",
            lambda: triton_kernels.norm_and_rotate(heads, weights, (HEADS, KV), cos, sin, 1e-6),
            ROWS * turned,
        ),
    ):
        board.time(what, [call], read)
        out.copy_(x)
    inner, down = normal(ROWS // 2, INNER), normal(WIDTH, INNER, scale=0.002)
    kept = normal(ROWS // 2, WIDTH, scale=0.01)
    board.time("down with its sum in a new place", [lambda: kernels.linear(inner, down, add=kept)])
    board.time("down with its sum in place", [lambda: kernels.linear(inner, down, add=kept, into=True)])


def prompt(board: Board) -> None:
    import numpy as np

    from bagel.model.varlen import run_attention
    from bagel.runs import Runs

    q, k, v = normal(131, HEADS, HEAD), normal(5033, KV, HEAD), normal(5033, KV, HEAD)
    runs = Runs.of(np.array([131]), np.array([5033])).to(CUDA)
    board.time("131 tokens behind 4,902, a mask", [lambda: attend(q, k, v, causal=True)])
    board.time("131 tokens behind 4,902, a run", [lambda: run_attention(q, k, v, runs, causal=True)])
    q = normal(4902, HEADS, HEAD)
    board.time("4,902 tokens of a picture, all see all", [lambda: attend(q, k[:4902], v[:4902])])


@torch.inference_mode()
def step(board: Board) -> None:
    from bagel.bench.subject import random_checkpoint

    made = random_checkpoint(replace(SEVEN_B, llm=replace(LLM, layers=Layers.DENSE)), CUDA, torch.bfloat16)
    model, tokenizer = made.model, made.tokenizer
    rules = PackRules(tokenizer.start_of_image, tokenizer.end_of_image, 70, 64)
    ids = torch.randint(0, 1000, (CONTEXT,), generator=torch.Generator().manual_seed(0)).tolist()
    bytes_each = sum(p.nbytes for p in (*model.decoder.parameters(), *model.lm_head.parameters()))
    for ahead, on, drawn in ((False, False, False), (True, False, False), (True, True, False), (True, True, True)):
        engine = Engine(model, rules, ahead=ahead)
        context = engine.new_context()
        engine.forward([Read(context, TextPart(ids))])
        sampler = Sampler(drawn, 1.0, 0, CUDA)
        with early(on):
            mean = _seconds_a_token(engine, context, sampler) * 1e6
        what = (
            f"token, {'ahead' if ahead else 'chosen by the host'}{', early' if on else ''}{', drawn' if drawn else ''}"
        )
        floor = bytes_each / board.copy * 1e6
        print(f"  {what:58} {mean:9.2f} us   floor {floor:9.2f}", flush=True)
        board.lines.append({"what": what, "us": round(mean, 1), "floor_us": round(floor, 1)})


def _seconds_a_token(engine: Engine, context: Context, sampler: Sampler, count: int = 80, warm: int = 20) -> float:
    """With what the host does for it, but for making text of it."""
    token, began = 7, 0.0
    for number in range(count):
        if number == warm:
            began = time.perf_counter()
        choice = sampler.choice(more=number + 1 < count)
        seen = engine.forward([Read(context, TextPart([token]), choice=choice)])[0]
        if seen.chosen is not None:
            token = seen.chosen
        else:
            assert seen.logits is not None
            token = sampler(seen.logits)
    return (time.perf_counter() - began) / (count - warm)


SECTIONS = {name.__name__: name for name in (token, layer, rows, prompt, step, gemv, skinny)}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS), metavar="SECTION")
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    given = parser.parse_args(argv)
    if not torch.cuda.is_available():
        print("kernels.py: this needs an NVIDIA GPU.", file=sys.stderr)
        return 1
    board = Board()
    for name in given.only:
        begin = time.perf_counter()
        print(name, flush=True)
        with torch.inference_mode():
            SECTIONS[name](board)
        torch.cuda.empty_cache()
        print(f"  ({time.perf_counter() - begin:.0f} s)", flush=True)
    if given.out:
        facts = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "copy_tb_per_s": board.copy / 1e12}
        given.out.write_text(json.dumps({**facts, "lines": board.lines}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
