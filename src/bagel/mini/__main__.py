"""How `mini` is made:

python -m bagel.mini table
python -m bagel.mini start OUT
python -m bagel.mini autoencoder CONFIG [key=value ...]
python -m bagel.mini package SOURCE OUT
python -m bagel.mini make CONFIG [key=value ...] [train key=value ...]    all stages within a set time
python -m bagel.mini begin FOLDER COMMAND ...   one of these commands, going on by itself
python -m bagel.mini watch FOLDER [minutes=9]   how far it is, now and until it has ended or the minutes are over
python -m bagel.mini halt FOLDER
python -m bagel.mini collect WORK OUT           what `make` has so far, in few files
python -m bagel.mini probe RUN OUT LIMIT        a run's newest checkpoint judged
python -m bagel.mini pieces split|join SOURCE OUT
python -m bagel.mini pack OUT PATH ...          files and folders as pieces of one archive
python -m bagel.mini unpack SOURCE OUT          what `collect` or `pack` wrote
python -m bagel.mini study ...      what of the method holds at this size; without more it says how
python -m bagel.mini card MODEL summary=FILE [oracle=FILE unthought=FILE autoencoder=RUN runs=RUN,RUN
    configs=YAML,YAML speed=FILE device=WORDS]
python -m bagel.mini scores SUMMARY PAGE ...    into the marks table:scores of Markdown pages
python -m bagel.mini speed MODEL OUT            seconds of loading, a picture, an answer, on this machine's CPU
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from bagel.errors import BagelError
from bagel.waiting import wait_asleep


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
        case ["make", config, *overrides]:
            from bagel.mini.make.driver import make
            from bagel.mini.make.plan import read_plan

            make(read_plan(Path(config), overrides))
        case ["begin", folder, *command] if command:
            from bagel.mini import detached

            print(f"process {detached.begin(Path(folder), command)}")
        case ["watch", folder, *minutes]:
            _watch(Path(folder), minutes)
        case ["halt", folder]:
            from bagel.mini import detached

            detached.halt(Path(folder))
        case ["collect", work, out]:
            from bagel.mini.make.carry import collect

            print("\n".join(collect(Path(work), Path(out))))
        case ["probe", source, out, limit]:
            from bagel.mini.make.probe import probe

            print(probe(Path(source), Path(out), int(limit)))
        case ["pack", out, *paths] if paths:
            from bagel.mini.make.carry import pack_pieces

            pack_pieces(Path(out), [Path(path) for path in paths])
        case ["unpack", source, out]:
            from bagel.mini.make.carry import unpack

            unpack(Path(source), Path(out))
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
                put(Path(page), "scores", short_table(results_of(Path(summary)), page.endswith(".zh.md")))
        case ["speed", model, out]:
            from bagel.mini.speed import write_speed

            print(write_speed(model, Path(out)))
        case _:
            sys.exit(__doc__)


def _watch(folder: Path, minutes: list[str]) -> None:
    from bagel.mini import detached
    from bagel.mini.make.state import FILE
    from bagel.mini.make.status import status

    match minutes:
        case []:
            time = 0.0
        case [text] if text.startswith("minutes="):
            time = float(text.partition("=")[2])
        case _:
            sys.exit(__doc__)
    more = (lambda: status(folder)) if (folder / FILE).exists() else None
    detached.watch(folder, time, more=more)


def _leave(number: int, frame: object) -> None:
    sys.exit(128 + number)  # so that what was started is ended too


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _leave)
    wait_asleep()
    try:
        main(sys.argv[1:])
    except BagelError as error:
        sys.exit(f"bagel.mini: {error}")
