"""The tab with the pictures made, what they were made from, and the way back to their settings."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from bagel.app.ui.desk import Desk, paths_in, visitor_of
from bagel.app.ui.history import settings_in
from bagel.app.ui.knob_texts import KNOB_NAMES
from bagel.app.ui.knobs import job_of, restored
from bagel.app.ui.panel import QUIET
from bagel.app.ui.picture_tab import PictureTab
from bagel.app.ui.talk_tab import TalkTab
from bagel.app.ui.talks import Line, lines_of
from bagel.app.ui.texts import LANGUAGES, TEXTS, say
from bagel.app.ui.watch import error_box, note_box
from bagel.errors import BagelError

OTHER_NAMES = {
    "job": ("Job", "任务"),
    "prompt": ("Prompt", "提示词"),
    "model": ("Model", "模型"),
    "version": ("Version", "版本"),
    "reply": ("Reply", "回复"),
}


HIDDEN_ROWS = ("images", "past", "parts")
"""Settings that are shown otherwise."""


@dataclass(frozen=True)
class Found:
    """What a picture says of itself. pictures: it was made from, as far as they are here; lost: how many are not;
    past, parts: of a conversation, None where it cannot be brought back."""

    settings: Mapping[str, Any]
    pictures: list[str] = field(default_factory=list)
    lost: int = 0
    past: list[Line] | None = None
    parts: list[Line] | None = None

    @property
    def job(self) -> str:
        """The tab that it goes back to."""
        job = job_of(self.settings)
        if job == "talk" and (self.past is None or self.parts is None):
            return "edit" if self.pictures or self.lost else "draw"
        return job


class HistoryTab:
    """draw, edit, talk: where settings go back to."""

    def __init__(self, desk: Desk, draw: PictureTab, edit: PictureTab, talk: TalkTab) -> None:
        self.desk, self.makers, self.talk = desk, {"draw": draw, "edit": edit}, talk
        words = desk.words
        with words(gr.Tab, wording={"label": "tab.history"}, id="history") as self.tab, gr.Row():
            with gr.Column(scale=6, min_width=320, elem_classes="half"):
                self.shown = words(
                    gr.Gallery,
                    wording={"label": "history.shown" if desk.history.shared else "history.mine"},
                    columns=4,
                    fit_columns=False,
                    height=520,
                    interactive=False,
                    object_fit="contain",
                    buttons=["download", "fullscreen"],
                    elem_id="history-shown",
                    elem_classes="named",
                )
                self.refresh = words(gr.Button, wording={"value": "refresh"}, size="sm")
            with gr.Column(scale=5, min_width=320, elem_classes="half"):
                self.drop = words(
                    gr.File, wording={"label": "history.drop"}, file_types=[".png"], height=180, elem_id="history-drop"
                )
                self.found = gr.State(None)
                self.note = gr.HTML(padding=False, elem_id="history-note")
                self.use = words(
                    gr.Button,
                    wording={"value": "history.use"},
                    variant="primary",
                    interactive=False,
                    elem_id="history-use",
                )
                self.made_from = words(
                    gr.Gallery,
                    wording={"label": "history.from"},
                    columns=4,
                    fit_columns=False,
                    height=180,
                    interactive=False,
                    visible=False,
                    object_fit="contain",
                    buttons=[],
                    elem_id="history-from",
                    elem_classes="named",
                )
                self.table = gr.HTML(padding=False, visible=False, elem_id="history-table")
        self._wire()

    def _wire(self) -> None:
        language = self.desk.language
        shown = [self.note, self.made_from, self.table, self.use, self.found]
        gr.on([self.tab.select, self.refresh.click], self._newest, None, self.shown, **QUIET)
        self.drop.upload(self._dropped, [self.drop, language], [self.drop, *shown], **QUIET)
        self.shown.select(self._pick, [self.shown, language], shown, **QUIET)
        goals = [self.desk.goal, self.note]
        for maker in self.makers.values():
            goals += self._goals(maker)
        self._talk_panel = [*self.talk.panel.controls.values(), self.talk.panel.think]
        goals += [*self.talk.restores, *self._talk_panel]
        self.desk.go_there(self.use.click(self._use, [self.found, language], goals, **QUIET))

    def _goals(self, maker: PictureTab) -> list[Any]:
        panel, images = maker.panel, maker.form.images
        own = [maker.form.prompt, maker.status, *panel.controls.values(), panel.think, panel.ratio, panel.sides]
        return [*own, *([] if images is None else [images])]

    def _newest(self, request: gr.Request) -> list[str] | None:
        return [str(path) for path in self.desk.history.newest(visitor_of(request))] or None

    def _dropped(self, path: str, language: str, request: gr.Request) -> list[Any]:
        """The box is empty again, for the next."""
        return [None, *self._read(path, language, request)]

    def _pick(self, event: gr.SelectData, shown: Any, language: str, request: gr.Request) -> list[Any]:
        return self._read(paths_in(shown)[event.index], language, request)

    def _read(self, path: str, language: str, request: gr.Request) -> list[Any]:
        hidden = gr.update(visible=False)
        nothing = [hidden, hidden, gr.update(interactive=False), None]
        try:
            settings = settings_in(path)
            if settings is None:
                return [note_box(say("history.foreign", language)), *nothing]
            restored(settings, self.desk.config.presets)
        except BagelError as error:
            return [error_box(error, language), *nothing]
        found = self._found(settings, visitor_of(request))
        lost = note_box(say("history.lost", language, count=found.lost)) if found.lost else ""
        made_from = gr.update(visible=bool(found.pictures), value=found.pictures or None)
        table = gr.update(visible=True, value=table_of(settings, language))
        return [lost, made_from, table, gr.update(interactive=True), found]

    def _found(self, settings: Mapping[str, Any], visitor: str) -> Found:
        def find(name: Any) -> Any:
            return self.desk.history.find(name, visitor)

        names = settings.get("images")
        places = [find(name) for name in names] if isinstance(names, list) else []
        pictures = [str(path) for path in places if path]
        lost = len(places) - len(pictures)
        if names is None and job_of(settings) == "edit":  # made by a command, which does not keep them
            lost = 1
        past, parts = (lines_of(settings.get(name), find) for name in ("past", "parts"))
        return Found(settings, pictures, lost, past, parts)

    def _use(self, found: Found | None, language: str) -> list[Any]:
        """The tab, and in it the prompt, the pictures and all knobs."""
        job = found.job if found else None
        updates: list[Any] = [job or "", gr.skip()]
        for name, maker in self.makers.items():
            skipped = [gr.skip()] * len(self._goals(maker))
            updates += self._into(maker, found, language) if found and name == job else skipped
        if not found or job != "talk":
            return updates + [gr.skip()] * len([*self.talk.restores, *self._talk_panel])
        talk = self.talk.restored(found.past or [], found.parts or [], found.settings.get("reply"), language)
        values = restored(found.settings, self.desk.config.presets)
        return [*updates, *talk, *self.talk.panel.by_settings(values)]

    def _into(self, maker: PictureTab, found: Found, language: str) -> list[Any]:
        values = {"height": None, "width": None, **restored(found.settings, self.desk.config.presets)}
        note = note_box(say("history.again", language)) if found.lost else ""
        shape = ["own", gr.update(visible=True)] if values["height"] else ["like", gr.update(visible=False)]
        prompt = str(found.settings.get("prompt", ""))
        images = [] if maker.form.images is None else [found.pictures or None]
        return [prompt, note, *maker.panel.by_settings(values), *shape, *images]


def table_of(settings: Mapping[str, Any], language: str) -> str:
    """Settings as a table for people, in HTML."""
    number = list(LANGUAGES).index(language)
    rows = []
    for name, value in settings.items():
        if name in HIDDEN_ROWS:
            continue
        title = {**KNOB_NAMES, **OTHER_NAMES}.get(name, (name, name))[number]
        shown = " – ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
        shown = shown if not isinstance(value, bool) else "✓" if value else "–"
        key = {"job": f"tab.{value}", "reply": f"reply.{value}"}.get(name)
        shown = say(key, language) if key in TEXTS else shown
        rows.append(f"<tr><td>{html.escape(title)}</td><td>{html.escape(shown)}</td></tr>")
    return f'<table class="settings">{"".join(rows)}</table>'
