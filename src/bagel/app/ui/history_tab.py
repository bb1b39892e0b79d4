"""The tab with the pictures made, and the way back to their settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from bagel.app.ui.desk import QUIET, Desk, paths_in
from bagel.app.ui.history import settings_in
from bagel.app.ui.knob_texts import KNOB_NAMES
from bagel.app.ui.knobs import job_of, restored
from bagel.app.ui.picture_tab import PictureTab
from bagel.app.ui.texts import LANGUAGES, say
from bagel.app.ui.watch import error_box, note_box
from bagel.errors import BagelError

OTHER_NAMES = {
    "job": ("Job", "任务"),
    "prompt": ("Prompt", "提示词"),
    "model": ("Model", "模型"),
    "version": ("Version", "版本"),
}


class HistoryTab:
    """draw, edit: where settings go back to; shared: whether every browser sees the
    whole folder."""

    def __init__(self, desk: Desk, draw: PictureTab, edit: PictureTab, shared: bool) -> None:
        self.desk, self.goals, self.shared = desk, {"draw": draw, "edit": edit}, shared
        words = desk.words
        with words(gr.Tab, wording={"label": "tab.history"}, id="history") as self.tab, gr.Row():
            with gr.Column(scale=6, min_width=320, elem_classes="half"):
                self.shown = words(
                    gr.Gallery,
                    wording={"label": "history.shown"},
                    columns=4,
                    fit_columns=False,
                    height=520,
                    interactive=False,
                    object_fit="contain",
                    buttons=["download", "fullscreen"],
                    elem_id="history-shown",
                )
                self.refresh = words(gr.Button, wording={"value": "refresh"}, size="sm", visible=shared)
            with gr.Column(scale=5, min_width=320, elem_classes="half"):
                self.drop = words(
                    gr.File, wording={"label": "history.drop"}, file_types=[".png"], height=120, elem_id="history-drop"
                )
                self.settings = gr.State(None)
                self.note = gr.HTML(padding=False, elem_id="history-note")
                self.use = words(
                    gr.Button,
                    wording={"value": "history.use"},
                    variant="primary",
                    interactive=False,
                    elem_id="history-use",
                )
                self.table = gr.Dataframe(
                    headers=["", ""], interactive=False, visible=False, wrap=True, elem_id="history-table"
                )
        self._wire()

    def _wire(self) -> None:
        shown = [self.note, self.table, self.use, self.settings]
        if self.shared:
            gr.on([self.tab.select, self.refresh.click], self.newest, None, self.shown, **QUIET)
        self.drop.upload(self._read, [self.drop, self.desk.language], shown, **QUIET)
        self.shown.select(self._pick, [self.shown, self.desk.language], shown, **QUIET)
        goals = [
            [goal.prompt, *goal.panel.controls.values(), goal.panel.think, goal.panel.ratio, goal.panel.sides]
            for goal in self.goals.values()
        ]
        everything = [self.desk.goal, *goals[0], *goals[1], self.goals["edit"].status]
        self.desk.go_there(self.use.click(self._use, [self.settings, self.desk.language], everything, **QUIET))

    def newest(self) -> list[str] | None:
        return [str(path) for path in self.desk.history.newest()] or None

    def _pick(self, event: gr.SelectData, shown: Any, language: str) -> list[Any]:
        return self._read(paths_in(shown)[event.index], language)

    def _read(self, path: str, language: str) -> list[Any]:
        try:
            settings = settings_in(path)
        except BagelError as error:
            return [error_box(error, language), *_nothing()]
        if settings is None:
            return [note_box(say("history.foreign", language)), *_nothing()]
        table = gr.update(visible=True, value=rows_of(settings, language))
        return ["", table, gr.update(interactive=True), settings]

    def _use(self, settings: Mapping[str, Any] | None, language: str) -> list[Any]:
        """The tab, the prompts and all knobs."""
        if not settings:
            return [gr.skip()] * (2 + sum(len(goal.panel.controls) + 4 for goal in self.goals.values()))
        job = job_of(settings)
        updates: list[Any] = [job]
        for name, goal in self.goals.items():
            if name != job:
                updates += [gr.skip()] * (len(goal.panel.controls) + 4)
                continue
            values = restored(settings, self.desk.config.presets)
            values.setdefault("height", None)
            updates += [str(settings.get("prompt", "")), *goal.panel.by_settings(values)]
            updates += ["own", gr.update(visible=True)] if values["height"] else ["like", gr.update(visible=False)]
        return [*updates, note_box(say("history.again", language)) if job == "edit" else gr.skip()]


def _nothing() -> list[Any]:
    return [gr.update(visible=False), gr.update(interactive=False), None]


def rows_of(settings: Mapping[str, Any], language: str) -> list[list[str]]:
    """Settings as a table for people."""
    number = list(LANGUAGES).index(language)
    rows = []
    for name, value in settings.items():
        title = {**KNOB_NAMES, **OTHER_NAMES}.get(name, (name, name))[number]
        shown = " – ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
        rows.append([title, shown])
    return rows
