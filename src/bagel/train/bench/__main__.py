"""python -m bagel.train.bench --help"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from bagel.errors import BagelError
from bagel.train.bench.measure import VARIANTS, BenchOptions, Results, bench
from bagel.train.bench.table import head, row_lines


def parse(arguments: Sequence[str]) -> tuple[BenchOptions, Path | None]:
    defaults = BenchOptions()
    parser = argparse.ArgumentParser(prog="bagel bench train", description="Speed of training on this device.")
    parser.add_argument("--lora", action="store_true", help="7B sizes, frozen, adapters on both experts")
    parser.add_argument("--cpu-smoke", action="store_true", help="tiny sizes on the CPU: does it run at all?")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, help="what to compare (default: by device)")
    parser.add_argument("--optimizer", choices=("trainer", "fused"), default=defaults.optimizer)
    parser.add_argument("--params", choices=("bf16", "fp32"), default=defaults.params, help="kind of the weights")
    parser.add_argument("--steps", type=int, default=defaults.steps, help="steps that are timed")
    parser.add_argument("--warmup", type=int, default=defaults.warmup, help="steps before them")
    parser.add_argument("--rank", type=int, default=defaults.rank, help="of the adapters")
    parser.add_argument("--loader", action="store_true", help="measure once more from files, through the data loader")
    parser.add_argument("--workers", type=int, default=defaults.workers, help="of the data loader")
    parser.add_argument("--no-profile", action="store_true", help="leave out where the time goes")
    parser.add_argument("--json", type=Path, help="write the results here too")
    given = parser.parse_args(arguments)
    options = BenchOptions(
        lora=given.lora,
        smoke=given.cpu_smoke,
        variants=tuple(given.variants or ()),
        optimizer=given.optimizer,
        params=given.params,
        steps=given.steps,
        warmup=given.warmup,
        rank=given.rank,
        profile=not given.no_profile,
        loader=given.loader,
        workers=given.workers,
    )
    return options, given.json


def main(arguments: Sequence[str] | None = None) -> int:
    try:
        options, path = parse(sys.argv[1:] if arguments is None else arguments)
        bench(options, _say, lambda results: _show(results, path))
    except BagelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _show(results: Results, path: Path | None) -> None:
    """The newest row on the screen, all of them in the file."""
    shown = row_lines(results["rows"][-1]) if results["rows"] else head(results)
    print("\n".join(shown), flush=True)
    if path:
        path.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
