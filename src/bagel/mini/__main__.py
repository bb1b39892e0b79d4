"""How `mini` is made:

python -m bagel.mini table
python -m bagel.mini start OUT
python -m bagel.mini autoencoder CONFIG [key=value ...]
python -m bagel.mini package SOURCE OUT
python -m bagel.mini pieces split|join SOURCE OUT
python -m bagel.mini study ...      what of the method holds at this size; without more it says how
python -m bagel.mini card MODEL summary=FILE [oracle=FILE unthought=FILE autoencoder=RUN runs=RUN,RUN speed=FILE]
python -m bagel.mini scores SUMMARY PAGE ...    into the marks table:scores of Markdown pages
python -m bagel.mini speed MODEL OUT            seconds of loading, a picture, an answer, on this machine's CPU
"""

from __future__ import annotations

import sys
from pathlib import Path

from bagel.errors import BagelError


def main(arguments: list[str]) -> None:
    match arguments:
        case ["start", out, *size]:
            from bagel.mini.folder import write_start
            from bagel.mini.sizes import SIZES

            write_start(Path(out), SIZES[size[0] if size else "mini"])
        case ["table"]:
            from bagel.mini.sizes import SIZES, parameter_table

            for name, count in parameter_table(SIZES["mini"]).items():
                print(f"{name:<14}{count:>12,}")
        case ["autoencoder", config, *overrides]:
            from bagel.mini.autoencoder import run

            run(Path(config), overrides)
        case ["package", source, out]:
            from bagel.mini.folder import package

            print(f"{package(Path(source), Path(out)):,} bytes")
        case ["pieces", "split" | "join" as verb, source, out]:
            from bagel.mini import pieces

            (pieces.split if verb == "split" else pieces.join)(Path(source), Path(out))
        case ["study", *rest]:
            from bagel.mini.study.command import study

            study(rest)
        case ["card", model, *items]:
            from bagel.mini.card import sources_of, write_card

            print(write_card(Path(model), sources_of(items)))
        case ["scores", summary, *pages] if pages:
            from bagel.mini.goals import put, results_of, short_table

            for page in pages:
                put(Path(page), "scores", short_table(results_of(Path(summary))))
        case ["speed", model, out]:
            from bagel.mini.speed import write_speed

            print(write_speed(model, Path(out)))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except BagelError as error:
        sys.exit(f"bagel.mini: {error}")
