"""Inputs of nodes, made from the options classes, so that a knob is written once."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar, get_type_hints

from bagel.options import PRESETS, ImageOptions, TextOptions

T = TypeVar("T", ImageOptions, TextOptions)
Input = tuple[Any, dict[str, Any]]
"""A type of ComfyUI's, or a list of choices, and what its widget shows."""

ON_THE_NODES = frozenset({"height", "width", "seed", "think", "noise"})
"""Not among the knobs: what each drawing has of its own."""
NONE = "none"
MOST = {"INT": 100_000, "FLOAT": 100.0}
ENDS = ("cfg_interval_from", "cfg_interval_to")
MOST_SEED = 2**63 - 1


def knobs_of(cls: type[T], job: str) -> dict[str, Input]:
    """A widget for each knob, at the official preset of the job."""
    hints = get_type_hints(cls)
    inputs: dict[str, Input] = {}
    for field in dataclasses.fields(cls):
        preset = PRESETS[job].get(field.name)
        if field.name == "cfg_interval":
            shown = {"min": 0.0, "max": 1.0, "step": 0.05, "round": 0.001, "tooltip": field.metadata["help"]}
            inputs |= {
                name: ("FLOAT", {"default": end, **shown})
                for name, end in zip(ENDS, PRESETS[job][field.name], strict=True)
            }
        elif field.name not in ON_THE_NODES:
            inputs[field.name] = _widget(field.metadata, hints[field.name], preset)
    return inputs


def _widget(limits: Any, hint: Any, preset: Any) -> Input:
    tip = {"tooltip": limits["help"]}
    if "choices" in limits:
        none = [] if preset else [NONE]
        return [*none, *limits["choices"]], {"default": preset or NONE, **tip}
    if hint == bool | None:
        return "BOOLEAN", {"default": preset, **tip}
    kind, step = ("INT", 1) if hint == int | None else ("FLOAT", 0.05)
    low = limits.get("low", step)  # what must be above a limit is so by a step at least
    low = step if 0 < low < step else low
    shown = {"default": preset, "min": low, "max": limits.get("high", MOST[kind]), "step": step, **tip}
    return kind, shown if kind == "INT" else {**shown, "round": 0.001}


def options_of(cls: type[T], values: dict[str, Any]) -> T:
    """What the widgets say, as options."""
    values = {name: None if value == NONE else value for name, value in values.items()}
    if ENDS[0] in values:
        values["cfg_interval"] = tuple(values.pop(end) for end in ENDS)
    return cls(**values)


def given(options: ImageOptions | TextOptions | None) -> dict[str, Any]:
    """The fields that were set, by name."""
    if options is None:
        return {}
    return {f.name: value for f in dataclasses.fields(options) if (value := getattr(options, f.name)) is not None}
