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
    configs=YAML,YAML speed=FILE device=WORDS note=WORDS]
python -m bagel.mini scores SUMMARY PAGE ...    into the marks table:scores of Markdown pages
python -m bagel.mini speed MODEL OUT            seconds of loading, a picture, an answer, on this machine's CPU
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path

from bagel.errors import BagelError
from bagel.mini.commands import call_of
from bagel.waiting import wait_asleep


def main(arguments: list[str]) -> None:
    call = call_of(COMMANDS, arguments)
    if call is None:
        sys.exit(__doc__)
    call()


def _table() -> None:
    from bagel.mini.sizes import SIZES, parameter_table

    for name, count in parameter_table(SIZES["mini"]).items():
        print(f"{name:<14}{count:>12,}")


def _start(out: str, *size: str) -> None:
    from bagel.mini.folder import write_start
    from bagel.mini.sizes import SIZES

    write_start(Path(out), SIZES[size[0] if size else "mini"])


def _autoencoder(config: str, *overrides: str) -> None:
    from bagel.mini.autoencoder import run

    run(Path(config), list(overrides))


def _package(source: str, out: str) -> None:
    from bagel.mini.folder import package

    print(f"{package(Path(source), Path(out)):,} bytes")


def _make(config: str, *overrides: str) -> None:
    from bagel.mini.make.driver import make
    from bagel.mini.make.plan import read_plan

    make(read_plan(Path(config), overrides))


def _begin(folder: str, command: str, *words: str) -> None:
    from bagel.mini import detached

    print(f"process {detached.begin(Path(folder), [command, *words])}")


def _watch(folder: str, minutes: str = "minutes=0") -> None:
    from bagel.mini import detached
    from bagel.mini.make.state import FILE
    from bagel.mini.make.status import status

    if not minutes.startswith("minutes="):
        sys.exit(__doc__)
    place, time = Path(folder), float(minutes.removeprefix("minutes="))
    more = (lambda: status(place)) if (place / FILE).exists() else None
    detached.watch(place, time, more=more)


def _halt(folder: str) -> None:
    from bagel.mini import detached

    detached.halt(Path(folder))


def _collect(work: str, out: str) -> None:
    from bagel.mini.make.carry import collect

    print("\n".join(collect(Path(work), Path(out))))


def _probe(run: str, out: str, limit: str) -> None:
    from bagel.mini.make.probe import probe

    print(probe(Path(run), Path(out), int(limit)))


def _pieces(verb: str, source: str, out: str) -> None:
    from bagel.mini import pieces

    if verb not in ("split", "join"):
        sys.exit(__doc__)
    (pieces.split if verb == "split" else pieces.join)(Path(source), Path(out))


def _pack(out: str, path: str, *more: str) -> None:
    from bagel.mini.make.carry import pack_pieces

    pack_pieces(Path(out), [Path(each) for each in (path, *more)])


def _unpack(source: str, out: str) -> None:
    from bagel.mini.make.carry import unpack

    unpack(Path(source), Path(out))


def _study(*arguments: str) -> None:
    from bagel.mini.study.command import study

    study(arguments)


def _card(model: str, *items: str) -> None:
    from bagel.mini.card import sources_of, write_card

    print(write_card(Path(model), sources_of(items)))


def _scores(summary: str, page: str, *more: str) -> None:
    from bagel.mini.goals import put, results_of, short_table

    for each in (page, *more):
        put(Path(each), "scores", short_table(results_of(Path(summary)), each.endswith(".zh.md")))


def _speed(model: str, out: str) -> None:
    from bagel.mini.speed import write_speed

    print(write_speed(model, Path(out)))


COMMANDS: dict[str, Callable[..., None]] = {
    "table": _table,
    "start": _start,
    "autoencoder": _autoencoder,
    "package": _package,
    "make": _make,
    "begin": _begin,
    "watch": _watch,
    "halt": _halt,
    "collect": _collect,
    "probe": _probe,
    "pieces": _pieces,
    "pack": _pack,
    "unpack": _unpack,
    "study": _study,
    "card": _card,
    "scores": _scores,
    "speed": _speed,
}


def _leave(number: int, frame: object) -> None:
    sys.exit(128 + number)  # so that what was started is ended too


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _leave)
    wait_asleep()
    try:
        main(sys.argv[1:])
    except BagelError as error:
        sys.exit(f"bagel.mini: {error}")
