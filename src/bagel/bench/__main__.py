"""python -m bagel.bench --help"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from bagel.bench import start
from bagel.bench.jobs import NAMES, chosen
from bagel.bench.run import Results, Settings, bench
from bagel.bench.subject import RANDOM, Source
from bagel.bench.table import lines
from bagel.errors import BagelError


def measure_all(source: Source, settings: Settings, out: Path | None) -> None:
    """Prints the table, and writes everything to `out`: a file, or a folder where the date and the device give the
    name."""
    path: Path | None = None

    def keep(results: Results) -> None:
        nonlocal path
        if out is not None:
            path = path or (out / file_name(results) if out.is_dir() else out)
            path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")

    results = bench(source, settings, lambda text: print(text, file=sys.stderr, flush=True), keep)
    print("\n".join(lines(results)))
    if path is not None:
        print(path)


def file_name(results: Results) -> str:
    device = re.sub(r"[^a-z0-9]+", "-", str(results["device"]["name"]).lower()).strip("-")
    return f"{str(results['date'])[:10]}-{device}.json"


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m bagel.bench", description="Speed of every job on this device.")
    made.add_argument("-m", "--model", help="a model folder, or mini")
    made.add_argument("--random", choices=RANDOM, help="random weights of these sizes instead")
    made.add_argument("--jobs", help=f"with commas, from: {', '.join(NAMES)}")
    made.add_argument("--timesteps", type=int, default=50)
    made.add_argument("--repeat", type=int, default=3, help="timed runs of each job")
    made.add_argument("--write", type=Path, help="write the random weights here, and load them as a user's")
    made.add_argument("--plain", action="store_true", help="without the kernels and graphs made for a GPU")
    made.add_argument("--account", help="of these jobs, with commas, also where the time goes, by kinds of kernels")
    made.add_argument("-o", "--out", type=Path, help="JSON file, or a folder to put one into")
    made.add_argument("--device", default="auto")
    made.add_argument(start.FLAG, action="store_true", help=argparse.SUPPRESS)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    given = parser().parse_args(arguments)
    try:
        source = Source.of(given.device, given.model, given.random, given.write, not given.plain)
        if given.only_first_picture:
            print(json.dumps(start.first_picture(source, given.timesteps)))
            return 0
        account = tuple(chosen(given.account)) if given.account else ()
        measure_all(source, Settings(tuple(chosen(given.jobs)), given.timesteps, given.repeat, account), given.out)
    except BagelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
