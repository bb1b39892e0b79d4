"""The knobs, written once: names, types, help and ranges. The command line, the web page and the server
build their controls from these classes; the pipeline checks values against them.

A field left at None takes the preset of its job (`draw`, `edit`, `chat`): the official app's, or the
checkpoint's own where its `config.json` has `presets`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from bagel.errors import InputError

RENORM_TYPES = ("global", "channel", "text_channel")
STEP_CACHES = ("guidance", "forecast3", "forecast5", "taylorseer")
SOLVERS = ("euler", "ab2")


def _knob(help: str, **limits: Any) -> Any:
    """A field left to the preset. limits: `low`, `high` (inclusive), `above` (exclusive), `choices`."""
    return field(default=None, metadata={"help": help, **limits})


_SEED = _knob("Seed of this request's own generator; drawn and reported when not given.", low=0, high=2**63 - 1)
_THINK = _knob("Write a thought first, then answer or draw by it.")


@dataclass(frozen=True, kw_only=True)
class TextOptions:
    """How to write an answer."""

    max_tokens: int | None = _knob("Most tokens to write, the start token counted.", low=1)
    do_sample: bool | None = _knob("Draw tokens at random by their probability; otherwise take the likeliest.")
    temperature: float | None = _knob("Below 1 sampling keeps to likely tokens, above 1 it strays.", low=1e-6)
    think: bool | None = _THINK
    seed: int | None = _SEED


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """How to draw or edit a picture; the last fields are for the thought."""

    height: int | None = _knob("Height in pixels, a multiple of 16. Editing: the last picture's, if not given.", low=1)
    width: int | None = _knob("Width in pixels, a multiple of 16. Editing: the last picture's, if not given.", low=1)
    num_timesteps: int | None = _knob(
        "Points in time from noise to picture; n gives n - 1 updates. More is finer and slower.", low=2, high=10_000
    )
    timestep_shift: float | None = _knob(
        "Above 1 spends more updates on the layout (near noise), below 1 on details.", above=0
    )
    cfg_text_scale: float | None = _knob("How closely to follow the text; 1 turns guidance off. Usually 4 to 8.", low=0)
    cfg_image_scale: float | None = _knob(
        "How much to keep of the input pictures; 1 turns it off. Usually 1 to 2.", low=0
    )
    cfg_interval: tuple[float, float] | None = _knob(
        "Part of the time, from low to high (1 is noise), in which guidance is on; the official app uses 0.4 to 1.0 "
        "for drawing and 0.0 to 1.0 for editing.",
        low=0,
        high=1,
    )
    cfg_renorm_min: float | None = _knob(
        "Guidance is scaled down to the plain velocity's length, by no less than this; 1 turns that off.",
        low=0,
        high=1,
    )
    cfg_renorm_type: str | None = _knob(
        "Over what the length is taken: global (whole picture), channel (each token), text_channel (each token, "
        "text guidance alone). If an edit looks blurred, use global.",
        choices=RENORM_TYPES,
    )
    seed: int | None = _SEED
    noise: Any = field(default=None, metadata={"help": "Initial noise float32 [tokens, 64]; overrides the seed."})
    step_cache: str | None = _knob(
        "Forecast some updates instead of computing them: faster, a slightly other picture. guidance computes what "
        "guidance subtracts in every third update; forecast3 and forecast5 all branches in every third or fifth; "
        "taylorseer is the official code's.",
        choices=STEP_CACHES,
    )
    solver: str | None = _knob(
        "How the velocity is followed: euler, as in the official code, or ab2 (second order, no more model calls), "
        "which needs about half the timesteps.",
        choices=SOLVERS,
    )
    think: bool | None = _THINK
    max_tokens: int | None = _knob("Most tokens of the thought, the start token counted.", low=1)
    do_sample: bool | None = _knob("Draw the thought's tokens at random; otherwise take the likeliest.")
    temperature: float | None = _knob("Temperature of the thought, where sampled.", low=1e-6)


Options = TypeVar("Options", TextOptions, ImageOptions)
T = TypeVar("T")


def need(value: T | None) -> T:
    """A field that `settle` has filled."""
    assert value is not None
    return value


_THOUGHT = {"think": False, "max_tokens": 1000, "do_sample": False, "temperature": 0.3}
_IMAGE = {
    "num_timesteps": 50,
    "timestep_shift": 3.0,
    "cfg_text_scale": 4.0,
    "cfg_renorm_min": 0.0,
    "solver": "euler",
    **_THOUGHT,
}
PRESETS: dict[str, dict[str, Any]] = {
    "draw": {
        **_IMAGE,
        "height": 1024,
        "width": 1024,
        "cfg_image_scale": 1.5,
        "cfg_interval": (0.4, 1.0),
        "cfg_renorm_type": "global",
    },
    "edit": {**_IMAGE, "cfg_image_scale": 2.0, "cfg_interval": (0.0, 1.0), "cfg_renorm_type": "text_channel"},
    "chat": {**_THOUGHT, "max_tokens": 512},
}
"""The official app's settings."""


def make(cls: type[Options], options: Options | None, fields: Mapping[str, Any]) -> Options:
    """`options` with `fields` set on top. Raises InputError for options of another kind and for a name that does
    not exist."""
    if options is not None and not isinstance(options, cls):
        raise InputError(f"options are of type {type(options).__name__}; this job takes {cls.__name__}.")
    names = [f.name for f in dataclasses.fields(cls)]
    for name in fields:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}."
            raise InputError(f"there is no option {name!r}; {hint}")
    return dataclasses.replace(options or cls(), **fields)


def settle(options: Options, job: str, presets: Mapping[str, Mapping[str, Any]]) -> Options:
    """Fills what was left open from the checkpoint's preset of the job, then the official one; checks every
    value and makes it the plain Python one (numpy's numbers are taken too). Raises InputError."""
    preset = {**PRESETS[job], **presets.get(job, {})}
    settled: dict[str, Any] = {}
    for f in dataclasses.fields(options):
        value = getattr(options, f.name)
        value = preset.get(f.name) if value is None else value
        unchecked = value is None or f.name == "noise"
        settled[f.name] = value if unchecked else _checked(f.name, value, str(f.type), f.metadata)
    return type(options)(**settled)


def _checked(name: str, value: Any, declared: str, limits: Mapping[str, Any]) -> Any:
    if name == "cfg_interval":
        return _interval(value)
    if getattr(value, "ndim", None) == 0:  # a number of numpy's or PyTorch's
        value = value.item()
    if "bool" in declared:
        if not isinstance(value, bool):
            raise InputError(f"{name} is {value!r}; it must be true or false.")
        return value
    if "choices" in limits:
        if value not in limits["choices"]:
            raise InputError(f"{name} is {value!r}; use one of {', '.join(limits['choices'])}.")
        return value
    value = _number(name, value, whole="int" in declared)
    if "low" in limits and value < limits["low"]:
        raise InputError(f"{name} is {value}; it must be at least {limits['low']}.")
    if "high" in limits and value > limits["high"]:
        raise InputError(f"{name} is {value}; it must be at most {limits['high']}.")
    if "above" in limits and value <= limits["above"]:
        raise InputError(f"{name} is {value}; it must be above {limits['above']}.")
    return value


def _number(name: str, value: Any, *, whole: bool) -> int | float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if whole and value == value // 1:  # false for nan and infinities
            return int(value)
        with contextlib.suppress(OverflowError):
            if not whole and math.isfinite(value):
                return float(value)
    raise InputError(f"{name} is {value!r}; it must be a {'whole ' if whole else ''}number.")


def _interval(value: Any) -> tuple[float, float]:
    try:
        low, high = (float(x) for x in value if not isinstance(x, str))
    except (TypeError, ValueError):
        raise InputError(f"cfg_interval is {value!r}; it must be two numbers, low and high.") from None
    if not 0 <= low <= high <= 1:
        raise InputError(
            f"cfg_interval is ({low:g}, {high:g}); it must lie within 0 and 1, the lower end first (1 is noise)."
        )
    return low, high
