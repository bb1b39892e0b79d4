"""The controls of a tab's knobs, and what their values mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from bagel.app.ui.knob_texts import PRESET_NAMES
from bagel.app.ui.knobs import (
    RATIOS,
    SLIDERS,
    VARIANTS,
    Knob,
    knobs_of,
    preset_of,
    seed_from,
    size_of,
    variants_of,
)
from bagel.app.ui.texts import LANGUAGES, say
from bagel.app.ui.words import Words
from bagel.model.config import ModelConfig
from bagel.options import ImageOptions, TextOptions, make

QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
Values = Mapping[Any, Any]
"""What stands in the controls, by control."""


class Panel:
    """Preset, shape, seed, thinking, number of pictures, and the knobs in a drawer. job: draw, edit, chat, talk.

    seeds: a state with those of the last task, for the button that brings the first of them back."""

    def __init__(self, job: str, config: ModelConfig, words: Words) -> None:
        self.job, self.config, self.words = job, config, words
        self.controls: dict[str, Any] = {}
        self.draws = job != "chat"
        self._seed_and_count()
        if self.draws:
            self._size()
        self.preset = words(
            gr.Radio,
            wording={"label": "preset", "info": "preset.info", "choices": self._presets},
            value=next(iter(VARIANTS[job])),
        )
        with words(gr.Accordion, wording={"label": "knobs"}, open=False, elem_classes="knobs"):
            for knob in knobs_of(job, config.presets):
                self._control(knob)
        self.preset.input(
            self.by_preset,
            [self.preset],
            [*(self.controls[name] for name in self._preset_names()), self.think],
            **QUIET,
        )

    # --- building --------------------------------------------------------------------------------------

    def _presets(self, language: str) -> list[tuple[str, str]]:
        number = list(LANGUAGES).index(language)
        return [(PRESET_NAMES[name][number], name) for name in variants_of(self.job, self.config.presets)]

    def _seed_and_count(self) -> None:
        words = self.words
        with gr.Row(elem_classes="tight"):
            self.controls["seed"] = words(
                gr.Textbox, wording={"label": "seed", "placeholder": "seed.info"}, max_lines=1, min_width=160
            )
            if self.job in ("draw", "edit"):
                self.count = words(
                    gr.Slider, wording={"label": "count"}, minimum=1, maximum=8, step=1, value=1, min_width=160
                )
        with gr.Row(elem_classes="tight switches"):
            self.think = words(gr.Checkbox, wording={"label": self._name("think")}, container=False, min_width=80)
            if self.draws:
                wording: dict[str, Any] = {"label": "preview"}
                self.preview = words(gr.Checkbox, wording=wording, value=True, container=False, min_width=80)
            reuse = words(gr.Button, wording={"value": "seed.reuse"}, size="sm", min_width=80)
        self.seeds = gr.State([])
        reuse.click(_first, [self.seeds, self.controls["seed"]], self.controls["seed"], **QUIET)

    def _name(self, knob: str) -> Any:
        return Knob(knob, "switch", None).label

    def _size(self) -> None:
        first = "like" if self.job == "edit" else RATIOS[0]

        def shapes(language: str) -> list[tuple[str, str]]:
            more = [(say("like", language), "like")] if self.job == "edit" else []
            return [*more, *((ratio, ratio) for ratio in RATIOS), (say("own", language), "own")]

        ratio = self.words(gr.Radio, wording={"label": "ratio", "choices": shapes}, value=first, elem_classes="ratio")
        height, width = (None, None) if first == "like" else size_of(first, self.longest, self.stride)
        with gr.Row(elem_classes="tight", visible=first != "like") as self.sides:
            for name, value in (("width", width), ("height", height)):
                self.controls[name] = self.words(
                    gr.Number,
                    wording={"label": self._name(name)},
                    value=value,
                    precision=0,
                    step=self.stride,
                    min_width=100,
                )
        sides = [self.controls["height"], self.controls["width"]]
        self.ratio = ratio
        ratio.input(self.by_ratio, [ratio, *sides], [*sides, self.sides], **QUIET)
        for side in sides:
            side.input(lambda: "own", None, ratio, **QUIET)

    def _control(self, knob: Knob) -> None:
        wording: dict[str, Any] = {"label": knob.label, "info": knob.info}
        if knob.kind == "interval":
            with gr.Group():
                low, high, step = SLIDERS[knob.name]
                for end, (mark, value) in enumerate(zip(("↧", "↥"), knob.preset, strict=True)):
                    label = {"label": lambda language, m=mark: f"{knob.label(language)} {m}"}
                    more = {"info": knob.info} if end == 0 else {}
                    self.controls[f"{knob.name}.{end}"] = self.words(
                        gr.Slider, wording={**label, **more}, minimum=low, maximum=high, step=step, value=value
                    )
        elif knob.kind == "slider":
            low, high, step = SLIDERS[knob.name]
            high = max(high, knob.preset)
            self.controls[knob.name] = self.words(
                gr.Slider, wording=wording, minimum=low, maximum=high, step=step, value=knob.preset
            )
        elif knob.kind == "choice":
            optional = knob.name == "step_cache"
            choices = [*([("–", "")] if optional else []), *((c, c) for c in knob.choices)]
            self.controls[knob.name] = self.words(gr.Radio, wording=wording, choices=choices, value=knob.preset or "")
        else:
            self.controls[knob.name] = self.words(gr.Checkbox, wording=wording, value=knob.preset)

    # --- values ----------------------------------------------------------------------------------------

    @property
    def longest(self) -> int:
        """The longer side of a picture as the preset has it."""
        preset = preset_of("draw", self.config.presets)
        return max(preset["height"], preset["width"])

    @property
    def stride(self) -> int:
        return self.config.latent_stride

    @property
    def inputs(self) -> set[Any]:
        own = {self.think, *self.controls.values()}
        return own | ({self.preview} if self.draws else set()) | ({self.count} if hasattr(self, "count") else set())

    def options(self, values: Values, language: str) -> tuple[ImageOptions, TextOptions]:
        """Raises InputError."""
        fields: dict[str, Any] = {"think": values[self.think]}
        for name, control in self.controls.items():
            if "." not in name:
                # An empty box of a number comes back as 0.
                empty = values[control] == "" or (name in ("height", "width") and not values[control])
                fields[name] = None if empty else values[control]
        if "cfg_interval.0" in self.controls:
            fields["cfg_interval"] = tuple(values[self.controls[f"cfg_interval.{end}"]] for end in (0, 1))
        fields["seed"] = seed_from(values[self.controls["seed"]], language)
        of_text = {name: value for name, value in fields.items() if name in TextOptions.__dataclass_fields__}
        of_image = {name: value for name, value in fields.items() if name in ImageOptions.__dataclass_fields__}
        return make(ImageOptions, None, of_image), make(TextOptions, None, of_text)

    def by_ratio(self, ratio: str, height: int | None, width: int | None) -> list[Any]:
        """Height and width of a shape, and whether they are shown."""
        if ratio == "like":
            return [None, None, gr.update(visible=False)]
        if ratio == "own":
            square = size_of(RATIOS[0], self.longest, self.stride)
            return [height or square[0], width or square[1], gr.update(visible=True)]
        return [*size_of(ratio, self.longest, self.stride), gr.update(visible=True)]

    def _preset_names(self) -> list[str]:
        return [name for name in self.controls if name not in ("seed", "height", "width")]

    def by_preset(self, variant: str) -> list[Any]:
        """The knobs' values of a preset, and whether the model is to think where presets say that."""
        thinks = any("think" in changes for changes in VARIANTS[self.job].values())
        think = bool(VARIANTS[self.job][variant].get("think")) if thinks else gr.skip()
        return [*self._spread(preset_of(self.job, self.config.presets, variant), self._preset_names()), think]

    def by_settings(self, settings: Mapping[str, Any]) -> list[Any]:
        """All controls, then thinking, as the settings of a picture have them."""
        spread = self._spread({**settings, "seed": str(settings.get("seed", ""))}, list(self.controls))
        return [*spread, bool(settings.get("think"))]

    def _spread(self, values: Mapping[str, Any], names: list[str]) -> list[Any]:
        found = []
        for name in names:
            whole, _, end = name.partition(".")
            value = values.get(whole)
            value = value[int(end)] if end and value else value
            found.append("" if value is None and whole == "step_cache" else value)
        return found


def _first(seeds: list[int], seed: str) -> str:
    return str(seeds[0]) if seeds else seed
