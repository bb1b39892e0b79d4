"""Cards of 8 to 32 GB on one large GPU: memory is limited per process to the card's size, and drawings and
edits of the first table of docs/memory.md are measured at the full 7B size with random weights: peak against plan, time
against the unlimited time, the host's link against its ceiling, and each precision's velocity against bf16.

    python benchmarks/memory.py [--out FILE] [--rows NAME ...] [--timesteps N] [--seconds S] [--folder DIR]
    python benchmarks/memory.py --plan                  what would be run, without a GPU

Rows with the same weights in the same places share a process (memory_rows.py), which makes the weights on the GPU
one by one and quantises them as loading does; `--folder` loads that folder instead, by Bagel.load, and times it.
Few updates are made: what is compared is their time. A row that fails, or for which no time is left, is named, and
the others go on; --out is written anew after each process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from memory_rows import ROWS, grouped, planned

LAST = ("8 edit", "16 int8", "12 edit", "int8")
"""Rows whose processes come last: where time runs out, the issue's own rows are there."""


def table(rows: list[dict[str, Any]]) -> str:
    head = (
        "row",
        "setup",
        "s",
        "x free",
        "update ms",
        "peak",
        "plan",
        "plan/peak",
        "held",
        "moved GiB",
        "GB/s",
        "of link",
    )
    lines = [head]
    for row in rows:
        if "seconds" not in row:
            lines.append((row["row"], str(row.get("refused") or row.get("failed") or row.get("skipped"))[:100]))
            continue
        lines.append(
            (
                row["row"], row["setup"].removeprefix("precision "), row["seconds"], row.get("times_of_unlimited", ""),
                row["update_ms"], row["peak_gib"], row["planned_gib"], row["planned_over_measured"],
                row["reserved_gib"], row["moved_gib_an_update"] or "", row["moved_gb_per_second"] or "",
                row.get("of_the_link", ""),
            )
        )  # fmt: skip
    widths = [max(len(str(line[i])) for line in lines if len(line) == len(head)) for i in range(len(head))]
    return "\n".join("  ".join(str(x).ljust(w) for x, w in zip(line, widths, strict=False)) for line in lines)


def verdicts(rows: list[dict[str, Any]], ceiling: float) -> None:
    """Adds to each row how it stands to what is to be reached."""
    by_name = {row["row"]: row for row in rows if "seconds" in row}
    for row in by_name.values():
        free = by_name.get(row["against"] or "")
        row["within_10_percent"] = abs(row["planned_over_measured"] - 1) <= 0.1
        if row["most_peak"]:
            row["peak_reached"] = row["peak_gib"] <= row["most_peak"]
        if free:
            row["times_of_unlimited"] = round(row["seconds"] / free["seconds"], 3)
            row["update_of_unlimited"] = round(row["update_ms"] / free["update_ms"], 3)
            if row["most_time"]:
                row["time_reached"] = row["times_of_unlimited"] <= row["most_time"]
        if row["moved_gib_an_update"] and ceiling:
            row["of_the_link"] = round(row["moved_gb_per_second"] / ceiling, 3)
            transfer = row["moved_gib_an_update"] * 2**30 / ceiling / 1e6
            row["of_the_bound"] = round(max(free["update_ms"] if free else 0.0, transfer) / row["update_ms"], 3)


def child(names: list[str], arguments: argparse.Namespace, keep: Path, limit: float) -> list[dict[str, Any]]:
    """One process for these rows; each line of its output is a row."""
    words = [sys.executable, str(Path(__file__).with_name("memory_rows.py")), *names]
    words += ["--timesteps", str(arguments.timesteps), "--keep", str(keep)]
    words += ["--folder", str(arguments.folder)] if arguments.folder else []
    environment = dict(os.environ)
    if any(name.endswith("expandable") for name in names):
        environment["PYTORCH_CUDA_ALLOC_CONF"] = "expandable_segments:True"
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=limit, env=environment)
        said, error = done.stdout, done.stderr[-600:]
    except subprocess.TimeoutExpired as late:
        said = late.stdout.decode() if isinstance(late.stdout, bytes) else late.stdout or ""
        error = f"no end within {limit:.0f} s"
    found = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    there = {row["row"] for row in found}
    return found + [{"row": name, "failed": error} for name in names if name not in there]


def velocity_errors(keep: Path) -> dict[str, float]:
    """Of the velocities that the processes have kept, against bf16."""
    import torch

    found = {path.stem: torch.load(path).double() for path in sorted(keep.glob("*.pt"))}
    exact = found.pop("bf16", None)
    if exact is None:
        return {}
    return {name: round(float((v - exact).norm() / exact.norm()), 5) for name, v in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--timesteps", type=int, default=17)
    parser.add_argument("--seconds", type=float, default=340.0, help="no process begins that could end later")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--plan", action="store_true")
    arguments = parser.parse_args()
    groups = sorted(grouped(arguments.rows), key=lambda names: all(name in LAST for name in names))
    if arguments.plan:
        for names in groups:
            for name in names:
                plan = planned(ROWS[name])
                print(
                    f"{name:<14} {plan.setup.words:<60} slots {plan.setup.slots:>2} peak {plan.peak / 2**30:5.1f} GiB"
                )
            print()
        return
    began, rows, keep = time.perf_counter(), [], Path(tempfile.mkdtemp())
    link = child(["link"], arguments, keep, 90)[0]
    ceiling = max(link.get("gb_per_second", {}).values(), default=0.0)
    whole: dict[str, Any] = {"command": " ".join(sys.argv), "link": link}
    for names in groups:
        left = arguments.seconds - (time.perf_counter() - began)
        if left < 25:
            rows += [{"row": name, "skipped": "no time was left"} for name in names]
        else:
            rows += child(names, arguments, keep, left)
        verdicts(rows, ceiling)
        whole |= {"rows": rows, "velocity_error_against_bf16": velocity_errors(keep)}
        whole["seconds"] = round(time.perf_counter() - began, 1)
        if arguments.out:
            arguments.out.write_text(json.dumps(whole, indent=1), encoding="utf-8")
        print(f"{whole['seconds']:6.1f} s  {', '.join(names)}", flush=True)
    print(json.dumps({**whole, "rows": [{**row, **asdict(ROWS[row["row"]])} for row in rows]}))
    print(f"\nlink {link}\n\n{table(rows)}\n\nvelocity error {whole['velocity_error_against_bf16']}")


if __name__ == "__main__":
    sys.exit(main())
