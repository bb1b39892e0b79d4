"""Linear layers of the 7B size with their weights in fewer bits: ours beside torchao's and bitsandbytes', where they
are installed. Time, bytes of the weight, and error of the product against float64 of the whole weight.

    python benchmarks/weights.py [--device cuda] [--rows 1 16 4096] [--shapes qkv gate_up down] [--out FILE]

Weights are normal with deviation 0.02; so many copies take turns that none is still in a cache. `outliers`: error where
one of the inputs is a hundred times as large as the rest, as trained models have them. What is not installed, or fails
on this device, is named in the table.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bagel.model import kernels
from bagel.model.fp8 import Fp8Linear
from bagel.model.quantise import _PACK, PackedLinear

SHAPES = {"qkv": (4608, 3584), "o": (3584, 3584), "gate_up": (37888, 3584), "down": (3584, 18944)}
_TURN = 300 * 2**20
"""Bytes of the copies that take turns: several times an H100's cache."""

Make = Callable[[nn.Linear], nn.Module]


# --- what is compared ----------------------------------------------------------------------------------------------


def ours(precision: str) -> Make:
    def make(linear: nn.Linear) -> nn.Module:
        if precision == "fp8":
            return Fp8Linear(linear)
        return PackedLinear(_PACK[precision](linear.weight.detach()), None)

    return make


class Widened(nn.Module):
    """A packed weight made wide, and the library's product."""

    def __init__(self, linear: nn.Linear, precision: str) -> None:
        super().__init__()
        self.packed = PackedLinear(_PACK[precision](linear.weight.detach()), None)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, kernels._wide(x, self.packed.weight))


class IntMM(nn.Module):
    """`torch._int_mm` alone, without scales: what the library's int8 product takes."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.register_buffer("values", _PACK["int8"](linear.weight.detach()).values)  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        return torch._int_mm(x.to(torch.int8), self.values.t())


def torchao(name: str, **options: Any) -> Make:
    def make(linear: nn.Linear) -> nn.Module:
        from torchao import quantization

        if options.get("granularity") == "row":
            options["granularity"] = quantization.PerRow()
        holder = nn.Sequential(copy.deepcopy(linear))
        quantization.quantize_(holder, getattr(quantization, name)(**options))
        return holder

    return make


def bitsandbytes(kind: str) -> Make:
    def make(linear: nn.Linear) -> nn.Module:
        import bitsandbytes as bnb

        inputs, outputs = linear.in_features, linear.out_features
        made: nn.Module
        if kind == "nf4":
            made = bnb.nn.Linear4bit(inputs, outputs, bias=False, quant_type="nf4", compute_dtype=torch.bfloat16)
        else:
            made = bnb.nn.Linear8bitLt(inputs, outputs, bias=False, has_fp16_weights=False, threshold=6.0)
        made.load_state_dict({"weight": linear.weight.detach().cpu()})
        return made.to(linear.weight.device)

    return make


METHODS: dict[str, Make] = {
    "bf16": copy.deepcopy,
    "bf11, ours": ours("bf11"),
    "fp8, ours": ours("fp8"),
    "int8, ours": ours("int8"),
    "nf4, ours": ours("nf4"),
    "int8 widened": lambda linear: Widened(linear, "int8"),
    "int_mm alone": IntMM,
    "int8 weight, torchao": torchao("Int8WeightOnlyConfig"),
    "int8 both, torchao": torchao("Int8DynamicActivationInt8WeightConfig"),
    "fp8 both, torchao": torchao("Float8DynamicActivationFloat8WeightConfig", granularity="row"),
    "fp8 weight, torchao": torchao("Float8WeightOnlyConfig"),
    "int4 weight, torchao": torchao("Int4WeightOnlyConfig", group_size=128),
    "int4 tiles, torchao": torchao(
        "Int4WeightOnlyConfig", group_size=128, int4_packing_format="tile_packed_to_4d"
    ),
    "nf4, bitsandbytes": bitsandbytes("nf4"),
    "int8, bitsandbytes": bitsandbytes("int8"),
}  # fmt: skip


# --- measuring -----------------------------------------------------------------------------------------------------


def bytes_of(module: nn.Module) -> int:
    """Of all tensors of a module, those that a tensor is made of instead of itself."""
    tensors = {id(t): t for t in (*module.parameters(), *module.buffers())}
    states = [
        m.weight.quant_state for m in module.modules() if getattr(getattr(m, "weight", None), "quant_state", None)
    ]
    return sum(map(_bytes, tensors.values())) + sum(_bytes(state.absmax) for state in states)


def _bytes(value: Tensor) -> int:
    inner = getattr(value, "__tensor_flatten__", None)
    if inner is None or type(value) in (Tensor, nn.Parameter):
        return value.numel() * value.element_size()
    return sum(_bytes(getattr(value, name)) for name in inner()[0])


def distance(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted).norm() / wanted.norm())


def seconds(run: Callable[[int], Any], device: torch.device, budget: float) -> float:
    """Median of one call; run gets the number of the call."""
    for index in range(3):
        run(index)
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < 30 and (len(times) < 3 or time.perf_counter() - began < budget):
        if device.type == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            run(len(times))
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end) / 1e3)
        else:
            at = time.perf_counter()
            run(len(times))
            times.append(time.perf_counter() - at)
    return sorted(times)[len(times) // 2]


def compared(shape: str, method: str, rows: list[int], device: torch.device, budget: float) -> list[dict[str, Any]]:
    """One method on one shape. An error is a row of its own."""
    outputs, inputs = SHAPES[shape]
    torch.manual_seed(0)
    linear = nn.Linear(inputs, outputs, bias=False, device=device, dtype=torch.bfloat16).requires_grad_(False)
    linear.weight.normal_(0, 0.02)
    x = torch.randn(max(rows), inputs, device=device, dtype=torch.bfloat16)
    spiky = x.clone()
    spiky[:, 7] *= 100
    try:
        with torch.inference_mode():
            first = METHODS[method](linear)
            size = bytes_of(first)
            copies = [first, *(METHODS[method](linear) for _ in range(min(_TURN // max(size, 1), 7)))]
            found = []
            for count in rows:
                few = min(count, 64)
                wanted, wide = (
                    x[:few].double() @ linear.weight.double().t(),
                    spiky[:few].double() @ linear.weight.double().t(),
                )
                part, odd = x[:count], spiky[:count]
                took = seconds(lambda index, part=part: copies[index % len(copies)](part), device, budget)
                scores = [distance(first(one)[:few], other) for one, other in ((part, wanted), (odd, wide))]
                found.append(
                    {
                        "shape": shape, "method": method, "rows": count, "us": round(took * 1e6, 1),
                        "bits": round(size * 8 / outputs / inputs, 2),
                        "error": round(scores[0], 5), "outliers": round(scores[1], 5),
                    }
                )  # fmt: skip
            return found
    except Exception as error:
        return [{"shape": shape, "method": method, "failed": f"{type(error).__name__}: {error}".splitlines()[0][:150]}]


def table(rows: list[dict[str, Any]], counts: list[int]) -> str:
    lines = []
    for shape in dict.fromkeys(row["shape"] for row in rows):
        lines.append(f"\n{shape} {SHAPES[shape]}: microseconds for rows, error, error with outliers")
        lines.append("".join([f"{'':<22}{'bits':>6}", *(f"{count:>12}" for count in counts), "     error  outliers"]))
        for method in dict.fromkeys(row["method"] for row in rows if row["shape"] == shape):
            mine = [row for row in rows if (row["shape"], row["method"]) == (shape, method)]
            if "failed" in mine[0]:
                lines.append(f"{method:<22}  {mine[0]['failed'][:90]}")
                continue
            last = mine[-1]
            times = "".join(f"{row['us']:>12.1f}" for row in mine)
            lines.append(f"{method:<22}{last['bits']:>6.2f}{times}{last['error']:>10.5f}{last['outliers']:>10.5f}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rows", type=int, nargs="*", default=[1, 16, 4096])
    parser.add_argument("--shapes", nargs="*", default=["qkv", "gate_up", "down"], choices=list(SHAPES))
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--budget", type=float, default=0.5, help="seconds of a timing at the most")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    device, rows = torch.device(arguments.device), []
    for shape in arguments.shapes:
        for method in arguments.methods:
            rows += compared(shape, method, arguments.rows, device, arguments.budget)
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    whole = {"device": name, "torch": torch.__version__, "rows": rows}
    if arguments.out:
        arguments.out.write_text(json.dumps(whole, indent=1), encoding="utf-8")
    print(json.dumps(whole))
    print(f"\n{name}, PyTorch {torch.__version__}\n{table(rows, arguments.rows)}")


if __name__ == "__main__":
    main()
