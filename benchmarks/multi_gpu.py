"""Several GPUs of one machine: every way of sharing out pictures and text at 7B size, and training under FSDP2, each
against one GPU in the same run, beside what the links and one GPU can do. Random weights.

    python benchmarks/multi_gpu.py                    all GPUs of the machine
    python benchmarks/multi_gpu.py --gpus 2 4         a table for each number
    python benchmarks/multi_gpu.py --gpus 1           the code for several, in groups of one rank
    python benchmarks/multi_gpu.py --tiny --gpus 2    tiny sizes, in processes on the CPU

Jobs: a drawing and an edit of 1024 x 1024, a small drawing of 512 x 512, and an answer of 64 tokens about a picture of
980 x 980, the official app's settings but for 26 timesteps (--timesteps). The error is the first velocity's distance
from that of one GPU, over its length; of an answer, how many tokens are the same. --parts infer train: a part alone;
--out FILE: JSON, kept after each part; --seconds N: what one number of GPUs may take.

Goals: on 2 GPUs a drawing 1.75 times as fast, an edit 1.7 times, on 4 a drawing 3 times; training 92 % as fast on
each GPU as on one; losses of 20 steps within 1e-3.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bagel.parallel.launch import stay_local

HERE = Path(__file__).parent
GOALS = {(2, "draw"): 1.75, (2, "edit"): 1.7, (4, "draw"): 3.0}
EFFICIENCY, LOSS = 0.92, 1e-3
PARTS = ("infer", "train")
Results = dict[str, Any]


def processes(script: str, count: int, words: Sequence[str], seconds: float) -> str | None:
    """Runs a script in so many processes, as torchrun would; -> what went wrong, if anything."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    stay_local()
    shared = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    command = [sys.executable, str(HERE / script), *words]
    started = [
        subprocess.Popen(command, env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(count)
    ]
    end = time.monotonic() + seconds
    while any(process.poll() is None for process in started):
        if time.monotonic() > end or any(process.poll() for process in started):
            break
        time.sleep(0.1)
    codes = [process.poll() for process in started]
    for process in started:
        process.kill()
        process.wait()
    if any(codes) or None in codes:
        late = "took too long" if not any(codes) else f"ended with {codes}"
        return f"{script} on {count} {late}"
    return None


def measured(count: int, given: argparse.Namespace) -> Results:
    """One number of GPUs."""
    end = time.monotonic() + given.seconds
    results: Results = {"gpus": count, "problems": []}
    tiny = ["--tiny"] if given.tiny else []
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)

        def run(key: str, script: str, ranks: int, *words: str) -> None:
            path = folder / f"{key}.json"
            problem = processes(script, ranks, [str(path), *tiny, *words], end - time.monotonic())
            if problem:
                results["problems"].append(problem)
            if path.exists():
                results[key] = json.loads(path.read_text(encoding="utf-8"))
            keep(given, results)

        if "infer" in given.parts:
            precision = ["--precision", given.precision] if given.precision else []
            run("infer", "multi_gpu_infer.py", count, "--timesteps", str(given.timesteps), *precision)
        if "train" in given.parts:
            large = ["--large"] if count >= 8 or given.tiny else []
            common = ["--folder", str(folder / "run"), "--steps", str(given.steps)]
            if count > 1:
                run("train", "multi_gpu_train.py", count, *common, *large)
            run("train_one", "multi_gpu_train.py", 1, *common)
    return results


def keep(given: argparse.Namespace, results: Results) -> None:
    """The file holds the newest state of every number of GPUs."""
    if given.out:
        held = json.loads(given.out.read_text(encoding="utf-8")) if given.out.exists() else {}
        held[str(results["gpus"])] = results
        given.out.write_text(json.dumps(held, indent=1), encoding="utf-8")


# --- tables ------------------------------------------------------------------------------------------------------


def table(results: Results) -> list[str]:
    """All that is known of one number of GPUs."""
    out = [f"== {results['gpus']} GPUs =="]
    if "infer" in results:
        out += _links(results["infer"]) + _ways(results["infer"], results["gpus"])
    if "train" in results or "train_one" in results:
        out += _training(results.get("train"), results.get("train_one"))
    return [*out, *(f"! {problem}" for problem in results["problems"])]


def _links(infer: Results) -> list[str]:
    out = [
        f"{name:<22}{rates['microseconds']:>10.1f} us{rates['bus_gb_per_s']:>10.1f} GB/s a link"
        for name, rates in infer.get("links", {}).items()
    ]
    found = infer.get("ceilings")
    if found:
        out.append(f"one GPU: products {found['products_tflops']['plain']:.4g} TFLOP/s, "
                   f"attention {found['attention_tflops']:.4g}, copy {found['copy_tb_per_s']:.3g} TB/s")  # fmt: skip
    return out


def _ways(infer: Results, gpus: int) -> list[str]:
    rows = infer["rows"]
    alone = {job: found["seconds"] for job, found in rows[0]["jobs"].items()} if rows else {}
    out = ["", f"{'way':<22}{'job':<7}{'seconds':>10}{'faster':>9}{'goal':>7}{'error':>11}  GiB of each"]
    return out + [_way(row["way"], job, found, alone[job], gpus) for row in rows for job, found in row["jobs"].items()]


def _way(way: str, job: str, found: Results, alone: float, gpus: int) -> str:
    memory = " ".join(f"{peak:.1f}" for peak in found["peak_gib"])
    bad = "" if found["finite"] else "  NOT FINITE"
    error = f"{found['same_tokens']} of {found['tokens']}" if "tokens" in found else f"{found['velocity_error']:.2e}"
    return (
        f"{way:<22}{job:<7}{found['seconds']:>10.3f}{alone / found['seconds']:>8.2f}x"
        f"{GOALS.get((gpus, job), '-'):>7}{error:>11}  {memory}{bad}"
    )


def _training(several: Results | None, one: Results | None) -> list[str]:
    out = ["", f"{'training':<22}{'GPUs':>5}{'tokens/s a GPU':>16}{'MFU':>8}{'of one GPU':>12}  GiB of each"]
    base = one.get("small") if one else None
    for size in ("small", "large"):
        for results in (one, several):
            found = results.get(size) if results else None
            if not found or not results:
                continue
            rate = found["tokens_per_second_per_gpu"]
            part = f"{rate / base['tokens_per_second_per_gpu']:.1%}" if base and size == "small" else "-"
            mfu = f"{found['mfu']:.1%}" if found["mfu"] is not None else "-"
            memory = " ".join(f"{peak:.1f}" for peak in found["peak_gib"])
            name = f"{size}, {found['trained_parameters'] / 1e9:.2f} B"
            out.append(f"{name:<22}{results['ranks']:>5}{rate:>16,.0f}{mfu:>8}{part:>12}  {memory}")
    out.append(f"goal: {EFFICIENCY:.0%} of one GPU")
    stored = [results for results in (several, one) if results and "checkpoint" in results]
    out += [f"checkpoint, {results['ranks']} GPUs: {json.dumps(results['checkpoint'])}" for results in stored]
    if several and one and "losses" in several and "losses" in one:
        out.append(f"losses of 20 steps: largest difference {loss_difference(several, one):.2e}, goal {LOSS:g}")
    return out


def loss_difference(several: Results, one: Results) -> float:
    """Relative, of both losses of every step."""
    pairs = zip(several["losses"], one["losses"], strict=True)
    return max(abs(a - b) / abs(b) for step in pairs for a, b in zip(*step, strict=True))


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, nargs="+")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--tiny", "--dry-run", action="store_true", help="tiny sizes, processes on the CPU")
    parser.add_argument("--timesteps", type=int, default=None, help="of a picture: 26, tiny 5")
    parser.add_argument("--steps", type=int, default=None, help="of training that are timed: 8, tiny 2")
    parser.add_argument("--precision", choices=("fp8", "int8", "nf4"), help="of the weights in the inference part")
    parser.add_argument("--seconds", type=float, default=590)
    parser.add_argument(
        "--folder", type=Path, help="where checkpoints are written meanwhile; the system's if not given"
    )
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    given.timesteps = given.timesteps or (5 if given.tiny else 26)
    given.steps = given.steps or (2 if given.tiny else 8)
    if given.gpus is None:
        import torch

        given.gpus = [2] if given.tiny else [torch.cuda.device_count()]
    return given


def main() -> int:
    given, wrong = parse(), 0
    for count in given.gpus:
        results = measured(count, given)
        print("\n".join(table(results)), flush=True)
        wrong += len(results["problems"])
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
