"""The page's knobs, made from the options classes: which there are, in what range, and the presets of each job."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bagel.app.ui.knob_texts import CHINESE, KNOB_NAMES
from bagel.app.ui.texts import LANGUAGES, TellError, say
from bagel.options import PRESETS, ImageOptions, TextOptions, make, settle

SEVEN = (
    "cfg_text_scale",
    "cfg_image_scale",
    "cfg_interval",
    "timestep_shift",
    "num_timesteps",
    "cfg_renorm_min",
    "cfg_renorm_type",
)
WRITING = ("max_tokens", "do_sample", "temperature")
OF_JOB = {
    "draw": (*SEVEN, "solver", "step_cache", *WRITING),
    "edit": (*SEVEN, "solver", "step_cache", *WRITING),
    "chat": WRITING,
    "talk": ("cfg_text_scale", "cfg_image_scale", "timestep_shift", "num_timesteps", "cfg_renorm_min", *WRITING),
}
"""The knobs of each tab. A conversation draws and edits: what differs between the two is left to their presets."""

SLIDERS: dict[str, tuple[float, float, float]] = {
    "num_timesteps": (2, 200, 1),
    "timestep_shift": (0.5, 10, 0.1),
    "cfg_text_scale": (1, 12, 0.1),
    "cfg_image_scale": (1, 4, 0.1),
    "cfg_interval": (0, 1, 0.05),
    "cfg_renorm_min": (0, 1, 0.05),
    "max_tokens": (2, 4096, 1),
    "temperature": (0.1, 2, 0.05),
}
"""Least, most and step of a slider: the useful part of the range that the options allow."""


@dataclass(frozen=True)
class Times:
    """A multiple of what the job's own preset has. least: it goes no lower, nor above the preset for that."""

    factor: float
    least: int = 2

    def of(self, value: float) -> float:
        found = value * self.factor
        return max(round(found), min(self.least, int(value))) if isinstance(value, int) else round(found, 2)


_QUICK = {"num_timesteps": Times(0.5, least=25), "step_cache": "taylorseer"}
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "draw": {
        "standard": {},
        "quick": _QUICK,
        "fine": {"num_timesteps": Times(2)},
        "literal": {"cfg_text_scale": Times(1.5)},
    },
    "edit": {
        "standard": {},
        "quick": _QUICK,
        "clear": {"cfg_renorm_type": "global"},
        "literal": {"cfg_text_scale": Times(1.5)},
    },
    "chat": {
        "precise": {},
        "varied": {"do_sample": True, "temperature": 0.7},
        "thoughtful": {"max_tokens": Times(4), "think": True},
    },
    "talk": {
        "standard": {},
        "quick": {"num_timesteps": Times(0.5)},
        "varied": {"do_sample": True, "temperature": 0.7},
    },
}
"""The page's presets: what each changes of the job's own."""

RATIOS = ("1:1", "4:3", "3:4", "3:2", "2:3", "16:9", "9:16")


@dataclass(frozen=True)
class Knob:
    """One control. kind: slider, interval (two sliders), choice, switch."""

    name: str
    kind: str
    preset: Any
    choices: tuple[str, ...] = ()

    def label(self, language: str) -> str:
        return KNOB_NAMES[self.name][list(LANGUAGES).index(language)]

    def info(self, language: str) -> str:
        return CHINESE[self.name] if language == "zh" else _field(self.name).metadata["help"]


def knobs_of(job: str, presets: Mapping[str, Mapping[str, Any]]) -> list[Knob]:
    """The knobs of a tab, each at its preset. presets: the checkpoint's own, by job."""
    settled = preset_of(job, presets)
    return [_knob(name, settled[name]) for name in OF_JOB[job]]


def preset_of(job: str, presets: Mapping[str, Mapping[str, Any]], variant: str | None = None) -> dict[str, Any]:
    """The values of a job's knobs: the official ones, over them the checkpoint's, over them the variant's."""
    bases = ("chat", "edit", "draw") if job == "talk" else (job,)
    values: dict[str, Any] = {"step_cache": None}
    for base in reversed(bases):
        values.update({**PRESETS[base], **presets.get(base, {})})
    changes = VARIANTS[job].get(variant or "", {})
    more = {name: new.of(values[name]) if isinstance(new, Times) else new for name, new in changes.items()}
    return {**values, **more}


def variants_of(job: str, presets: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The page's presets of a tab, without those that change nothing of the checkpoint's own."""
    plain, *others = VARIANTS[job]
    usual = preset_of(job, presets)
    return [plain, *(name for name in others if preset_of(job, presets, name) != usual)]


def _knob(name: str, preset: Any) -> Knob:
    choices = _field(name).metadata.get("choices", ())
    if name == "cfg_interval":
        return Knob(name, "interval", preset)
    if choices:
        return Knob(name, "choice", preset, choices)
    return Knob(name, "slider" if name in SLIDERS else "switch", preset)


def _field(name: str) -> dataclasses.Field[Any]:
    owner = ImageOptions if name in ImageOptions.__dataclass_fields__ else TextOptions
    return owner.__dataclass_fields__[name]


def size_of(ratio: str, longest: int, stride: int) -> tuple[int, int]:
    """(height, width) of a shape whose longer side is `longest`, in multiples of `stride`."""
    across, down = (int(number) for number in ratio.split(":"))
    scale = longest / max(across, down)
    height, width = (max(round(side * scale / stride), 1) * stride for side in (down, across))
    return height, width


def seed_from(text: Any, language: str = "en") -> int | None:
    """What stands in the seed's box; None where it is empty. A box of text keeps all 19 digits, a browser's
    number does not."""
    words = str(text if text is not None else "").strip()
    if not words:
        return None
    if not words.isascii() or not words.isdigit():
        raise TellError(say("seed.wrong", language, seed=words))
    return int(words)


def restored(settings: Mapping[str, Any], presets: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The values of all knobs as a picture's settings have them: what they leave out is its job's preset.
    Raises InputError for values that no option has."""
    job = job_of(settings)
    known = ImageOptions.__dataclass_fields__
    given = {name: value for name, value in settings.items() if name in known and value is not None}
    settle(make(ImageOptions, None, given), "draw", {})
    return {"think": False, **preset_of(job, presets), **given}


def job_of(settings: Mapping[str, Any]) -> str:
    """The tab that settings belong to."""
    job = settings.get("job")
    return job if job in ("edit", "talk") else "draw"
