"""The page: the head with the model's state and the switch of the language, and the tabs."""

from __future__ import annotations

from typing import Any

import gradio as gr

from bagel.app.ui.answer_tab import AnswerTab
from bagel.app.ui.desk import Desk, paths_in, visitor_of
from bagel.app.ui.history import History
from bagel.app.ui.history_tab import HistoryTab
from bagel.app.ui.host import Host
from bagel.app.ui.panel import QUIET
from bagel.app.ui.picture_tab import PictureTab
from bagel.app.ui.talk_tab import TalkTab
from bagel.app.ui.texts import LANGUAGES, language_of, say
from bagel.app.ui.watch import error_box, note_box
from bagel.app.ui.words import Words
from bagel.model.config import ModelConfig


class Page:
    """Nothing but tabs may stand in `gr.Tabs`: it counts its children to tell them apart."""

    def __init__(self, host: Host, config: ModelConfig, history: History, model: str) -> None:
        self.host, self.history, self.model = host, history, model
        self.blocks = gr.Blocks(title="BAGEL", analytics_enabled=False)
        with self.blocks:
            words = self._words = Words()
            self._head(words)
            desk = Desk(host, config, history, words, self.language, model, gr.Textbox(visible="hidden"))
            with gr.Tabs():
                draw, edit = PictureTab("draw", desk), PictureTab("edit", desk)
                AnswerTab(desk)
                talk = TalkTab(desk)
                HistoryTab(desk, draw, edit, talk)
            self.shelf = talk.shelf
            self._wire(desk, (draw, edit), talk)

    def close(self) -> None:
        """Ends all tasks and the page."""
        self.host.close()
        self.blocks.close(verbose=False)

    def _head(self, words: Words) -> None:
        with gr.Row(elem_id="head"):
            words(gr.Markdown, wording={"value": lambda language: "# " + say("title", language)})
            self.language = words(
                gr.Radio,
                wording={"label": "language"},
                choices=[(name, code) for code, name in LANGUAGES.items()],
                value="en",
                show_label=False,
                container=False,
                elem_id="language",
                min_width=160,
            )
        self.state = gr.HTML(padding=False, elem_id="model-state")
        self.clock = gr.Timer(0.5)

    def _wire(self, desk: Desk, makers: tuple[PictureTab, PictureTab], talk: TalkTab) -> None:
        everywhere = [*desk.words.components, self.state]
        self.language.input(self._speak, self.language, everywhere, **QUIET)
        self.blocks.load(self._greet, None, [self.language, *everywhere], **QUIET)
        self.clock.tick(self._tick, self.language, [self.state, self.clock], **QUIET)
        self.blocks.unload(self._leave)
        edit = makers[1]
        for maker in makers:
            taken = [maker.result, maker.picked, self.language]
            to_edit, to_talk = [edit.form.images, desk.goal, maker.status], [talk.message, desk.goal, maker.status]
            desk.go_there(maker.to_edit.click(_to_edit, taken, to_edit, **QUIET))
            desk.go_there(maker.to_talk.click(_to_talk, taken, to_talk, **QUIET))

    def _leave(self, request: gr.Request) -> None:
        """A page that is closed wants nothing any more."""
        visitor = visitor_of(request)
        self.host.stop(f"{visitor}/")
        self.shelf.leave(visitor)
        self.history.leave(visitor)

    def _speak(self, language: str) -> list[Any]:
        return [*self._words.in_language(language), self.state_in(language)]

    def _greet(self, request: gr.Request) -> list[Any]:
        language = language_of(request.headers.get("accept-language"))
        return [language, *self._speak(language)]

    def _tick(self, language: str) -> list[Any]:
        over = self.host.model is not None or self.host.error is not None
        return [self.state_in(language), gr.Timer(active=not over)]

    def state_in(self, language: str) -> str:
        """Loading, loaded or not, as HTML."""
        if self.host.error is not None:
            return error_box(self.host.error, language, "failed")
        if self.host.model is None:
            done, total = self.host.loaded
            if not total:
                return note_box(say("loading", language, model=self.model))
            sizes = {"done": _size(done), "total": _size(total)}
            return note_box(say("loading.part", language, model=self.model, **sizes), done / total)
        device = self.host.model.runtime.checkpoint.model.device
        return note_box(say("ready", language, model=self.model, device=device))


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _taken(result: Any, picked: int) -> str | None:
    paths = paths_in(result)
    return paths[min(picked, len(paths) - 1)] if paths else None


def _to_edit(result: Any, picked: int, language: str) -> list[Any]:
    path = _taken(result, picked)
    if path is None:
        return [gr.skip(), "", note_box(say("no.picked", language))]
    return [[path], "edit", gr.skip()]


def _to_talk(result: Any, picked: int, language: str) -> list[Any]:
    path = _taken(result, picked)
    if path is None:
        return [gr.skip(), "", note_box(say("no.picked", language))]
    return [{"text": "", "files": [path]}, "talk", gr.skip()]
