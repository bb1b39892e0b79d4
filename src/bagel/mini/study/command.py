"""`python -m bagel.mini study ...`."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from bagel.errors import InputError
from bagel.mini.commands import call_of
from bagel.mini.study.trainings import StudyError

USAGE = """python -m bagel.mini study losses CONFIGS OUT [start=mini runs=runs minutes=7.5 KEY=VALUE ...]
python -m bagel.mini study checkpoints RUN OUT [limit=4 minutes=0 tasks=draw,edit]
python -m bagel.mini study seeing CONFIGS OUT [trained=mini runs=runs minutes=4 limit=20 KEY=VALUE ...]
python -m bagel.mini study knobs TRAINED OUT [limit=10 minutes=0 only=cfg_text_scale,num_timesteps]
python -m bagel.mini study both CONFIGS OUT [trained=mini runs=runs minutes=4 limit=10 KEY=VALUE ...]  seeing, knobs
python -m bagel.mini study all CONFIGS OUT [start=mini trained=mini runs=runs losses_minutes=7.5 minutes=4
    limit=10 knobs_minutes=8 KEY=VALUE ...]  losses, seeing, knobs; one that fails does not stop the next
python -m bagel.mini study page DOCS"""
"""Minutes of 0 are without end; KEY=VALUE changes the training configs."""


def study(arguments: Sequence[str]) -> None:
    """Raises InputError for what is no command."""
    call = call_of(COMMANDS, arguments)
    if call is None:
        raise InputError(f"this is no command of the study; use one of\n{USAGE}")
    call()


def _losses(configs: str, out: str, *rest: str) -> None:
    from bagel.infer.pipeline import find_model
    from bagel.mini.study.losses import losses

    own, more = _split(rest, {"start": "mini", "runs": "runs", "minutes": "7.5"})
    start = find_model(own["start"])
    losses(Path(configs), Path(out), start, Path(own["runs"]), float(own["minutes"]), more)


def _checkpoints(run: str, out: str, *rest: str) -> None:
    from bagel.mini.study.checkpoints import checkpoints

    own = _own(rest, {"limit": "4", "minutes": "0", "tasks": ""})
    checkpoints(Path(run), Path(out), int(own["limit"]), float(own["minutes"]), _names(own["tasks"]))


def _seeing(configs: str, out: str, *rest: str) -> None:
    from bagel.infer.pipeline import find_model
    from bagel.mini.study.seeing import seeing

    own, more = _split(rest, {"trained": "mini", "runs": "runs", "minutes": "4", "limit": "20"})
    trained = find_model(own["trained"])
    seeing(Path(configs), Path(out), trained, Path(own["runs"]), float(own["minutes"]), int(own["limit"]), more)


def _knobs(trained: str, out: str, *rest: str) -> None:
    from bagel.infer.pipeline import find_model
    from bagel.mini.study.knobs import knobs

    own = _own(rest, {"limit": "10", "minutes": "0", "only": ""})
    knobs(find_model(trained), Path(out), int(own["limit"]), float(own["minutes"]), _names(own["only"]))


def _both(configs: str, out: str, *rest: str) -> None:
    _seeing(configs, out, *rest)
    own, _ = _split(rest, {"trained": "mini", "limit": "10"})
    _knobs(own["trained"], out, f"limit={own['limit']}")


def _all(configs: str, out: str, *rest: str) -> None:
    """Raises StudyError, at the end, for what failed."""
    defaults = {"start": "mini", "trained": "mini", "runs": "runs", "losses_minutes": "7.5", "minutes": "4",
                "limit": "10", "knobs_minutes": "8"}  # fmt: skip
    own, more = _split(rest, defaults)
    runs, limit = f"runs={own['runs']}", f"limit={own['limit']}"
    seen = [f"trained={own['trained']}", f"minutes={own['minutes']}", runs, limit, *more]
    parts: dict[str, Callable[[], None]] = {
        "losses": lambda: _losses(
            configs, out, f"start={own['start']}", f"minutes={own['losses_minutes']}", runs, *more
        ),
        "seeing": lambda: _seeing(configs, out, *seen),
        "knobs": lambda: _knobs(own["trained"], out, limit, f"minutes={own['knobs_minutes']}"),
    }
    failed = []
    for name, part in parts.items():
        try:
            part()
        except Exception as error:  # noqa: PERF203 - whatever it is, the next may do well
            traceback.print_exc()
            failed.append(f"{name}: {error}")
    if failed:
        raise StudyError("; ".join(failed))


def _page(docs: str) -> None:
    from bagel.mini.study.page import page

    print(page(Path(docs)))


COMMANDS: dict[str, Callable[..., None]] = {
    "losses": _losses,
    "checkpoints": _checkpoints,
    "seeing": _seeing,
    "knobs": _knobs,
    "both": _both,
    "all": _all,
    "page": _page,
}


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in text.split(",") if name)


def _own(rest: Sequence[str], defaults: dict[str, str]) -> dict[str, str]:
    own, more = _split(rest, defaults)
    if more:
        raise InputError(f"{more[0]!r} is not known here; use {', '.join(f'{name}=' for name in defaults)}.")
    return own


def _split(rest: Sequence[str], defaults: dict[str, str]) -> tuple[dict[str, str], list[str]]:
    """The command's own settings, and all others: overrides of the training configs."""
    own, more = dict(defaults), []
    for item in rest:
        name, equals, value = item.partition("=")
        if equals and name in own:
            own[name] = value
        else:
            more.append(item)
    return own, more
