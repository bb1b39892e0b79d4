"""The tab for conversation: text and pictures in, text and pictures out, over one kept context."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from bagel.app.show import settings_of
from bagel.app.ui.desk import Desk, owner_of, paths_in
from bagel.app.ui.panel import QUIET, Panel, Values
from bagel.app.ui.talks import Line, Shelf, Talk, told
from bagel.app.ui.texts import TellError, say
from bagel.app.ui.watch import Watch, error_box
from bagel.app.ui.work import Turn, turn
from bagel.errors import BagelError
from bagel.infer.inputs import Text, check_size, checked_text
from bagel.options import settle

REPLIES = ("text", "image", "both")
_MOST_TOLD = 60_000
"""Letters of a conversation that a picture's settings may take."""


@dataclass(frozen=True)
class Sent:
    """A message. lines: as it is shown and kept; before: the conversation that it goes on with."""

    turn: Turn
    lines: list[Line]
    before: Talk
    visitor: str


class TalkTab:
    def __init__(self, desk: Desk) -> None:
        self.desk, words = desk, desk.words
        self.shelf = Shelf(lambda: desk.host.most_kept)
        with desk.words(gr.Tab, wording={"label": "tab.talk"}, id="talk") as self.tab, gr.Row():
            with gr.Column(scale=7, min_width=320, elem_classes="half"):
                self._talking()
            with gr.Column(scale=4, min_width=300, elem_classes="half"):
                self.shown = words(
                    gr.Gallery,
                    wording={"label": "talk.shown"},
                    columns=4,
                    fit_columns=False,
                    height=150,
                    interactive=False,
                    allow_preview=False,
                    object_fit="cover",
                    buttons=[],
                    elem_id="talk-shown",
                    elem_classes="named",
                )
                self.panel = Panel("talk", desk.config, words)
                self.talk = gr.State(Talk())
        self._wire()

    def _talking(self) -> None:
        words = self.desk.words
        self.chat = words(
            gr.Chatbot,
            wording={"placeholder": "talk.empty"},
            show_label=False,
            height=460,
            buttons=["copy"],
            render_markdown=False,
            elem_id="talk-chat",
        )
        self.status = gr.HTML(padding=False, elem_id="talk-status")
        self.previews = gr.HTML(padding=False, visible=False, elem_id="talk-previews")
        self.reply = words(
            gr.Radio,
            wording={
                "label": "reply",
                "choices": lambda lang: [(say(f"reply.{kind}", lang), kind) for kind in REPLIES],
            },
            value="text",
            elem_id="talk-reply",
        )
        self.message = words(
            gr.MultimodalTextbox,
            wording={"placeholder": "hint.talk"},
            show_label=False,
            file_count="multiple",
            file_types=["image"],
            max_lines=6,
            elem_id="talk-message",
        )
        with gr.Row(elem_classes="tight"):
            self.cancel = words(
                gr.Button, wording={"value": "cancel"}, variant="stop", visible=False, elem_id="talk-cancel"
            )
            self.undo = words(gr.Button, wording={"value": "talk.undo"}, size="sm", elem_id="talk-undo")
            self.new = words(gr.Button, wording={"value": "talk.new"}, size="sm", elem_id="talk-new")

    def _wire(self) -> None:
        language = self.desk.language
        inputs = {self.message, self.reply, self.talk, language, *self.panel.inputs}
        all_shown = [self.talk, self.chat, self.shown, self.status, self.previews]
        outputs = [*all_shown, self.message, self.cancel, self.panel.seeds]
        self.message.submit(self._run, inputs, outputs, **QUIET)
        self.cancel.click(self.desk.canceller("talk"), None, None, queue=False, **QUIET)
        self.undo.click(self._back, [self.talk, language], all_shown, **QUIET)
        gr.on([self.new.click, self.chat.clear], lambda lang: self._show(Talk(), lang), language, all_shown, **QUIET)
        self.shown.select(self._again, [self.message, self.shown], self.message, **QUIET)

    def _again(self, event: gr.SelectData, message: Any, shown: Any) -> dict[str, Any]:
        """A picture of the conversation goes into the next message."""
        message = message or {}
        files = [*(message.get("files") or []), paths_in(shown)[event.index]]
        return {"text": message.get("text") or "", "files": files}

    def _back(self, talk: Talk, language: str) -> list[Any]:
        return self._show(talk.before or Talk(), language)

    def _show(self, talk: Talk, language: str) -> list[Any]:
        messages = talk.messages(say("thought", language))
        return [talk, messages, talk.pictures or None, "", gr.update(value="", visible=False)]

    def restored(self, past: Sequence[Line], parts: Sequence[Line], reply: Any, language: str) -> list[Any]:
        """For `self.restores`: a conversation as it was, with a message ready to be sent."""
        files = [line.picture for line in parts if line.picture]
        message = {"text": "\n".join(line.text for line in parts if line.text), "files": files}
        shown = self._show(Talk(tuple(past)), language)
        return [*shown, gr.update(value=message, interactive=True), reply if reply in REPLIES else gr.skip()]

    @property
    def restores(self) -> list[Any]:
        return [self.talk, self.chat, self.shown, self.status, self.previews, self.message, self.reply]

    # --- a turn ----------------------------------------------------------------------------------------

    async def _run(self, values: Values, request: gr.Request) -> AsyncGenerator[dict[Any, Any], None]:
        language, owner = values[self.desk.language], owner_of(request, "talk")
        try:
            sent = await asyncio.to_thread(self._sent, values, language, owner.partition("/")[0])
            conversation = self.shelf.take(sent.before.key)
            past = [] if conversation else await asyncio.to_thread(lambda: [p.said() for p in sent.before.past])
        except BagelError as error:
            yield {self.status: error_box(error, language)}
            return
        shown = [*sent.before.lines, *sent.lines]
        yield {
            self.chat: [line.message(say("thought", language)) for line in shown],
            self.message: gr.update(value=None, interactive=False),
            self.cancel: gr.update(visible=True),
        }
        work = turn(conversation, past, sent.turn)
        async with contextlib.aclosing(self.desk.watch(work, language, owner)) as watches:
            async for watch in watches:
                if watch.done is None:
                    yield {self.status: watch.status(), **self._news(watch, shown)}
                else:
                    yield {**self._quiet, **await asyncio.to_thread(self._end, watch, sent, values[self.message])}

    @property
    def _quiet(self) -> dict[Any, Any]:
        return {
            self.message: gr.update(interactive=True),
            self.cancel: gr.update(visible=False),
            self.previews: gr.update(value="", visible=False),
        }

    def _sent(self, values: Values, language: str, visitor: str) -> Sent:
        """Raises InputError."""
        image, text = self.panel.options(values, language)
        presets, history = self.desk.config.presets, self.desk.history
        settle(text, "chat", presets)
        check_size(settle(image, "draw", presets), self.desk.config)
        message = values[self.message] or {}
        images, words = self.desk.opened(message.get("files")), (message.get("text") or "").strip()
        if not images and not words:
            raise TellError(say("hint.nothing", language))
        said = [Text(checked_text(words))] if words else []
        lines = [Line(picture=str(history.keep_input(picture, visitor))) for picture in images]
        asked = Turn([*images, *said], values[self.reply], image, text, values[self.panel.preview])
        return Sent(asked, [*lines, *map(Line, said)], values[self.talk], visitor)

    def _news(self, watch: Watch, shown: list[Line]) -> dict[Any, Any]:
        thought = say("thought", watch.language)
        written = [Line(text, own=True) for text in watch.said() if isinstance(text, str)]
        lines = [*self._thought(watch), *written]
        news: dict[Any, Any] = {self.chat: [line.message(thought) for line in (*shown, *lines)]} if lines else {}
        pictures = watch.pictures()
        return news if pictures is None else {**news, self.previews: gr.update(value=pictures, visible=True)}

    def _thought(self, watch: Watch) -> list[Line]:
        text = watch.thoughts.get(0)
        return [Line(text, own=True, thought=True)] if text else []

    def _end(self, watch: Watch, sent: Sent, message: Any) -> dict[Any, Any]:
        """Where it went wrong all is as before, and what was sent can be sent again."""
        assert watch.done is not None
        thought = say("thought", watch.language)
        again = {self.chat: sent.before.messages(thought), self.message: gr.update(value=message, interactive=True)}
        if watch.done.error is not None:
            return {self.status: watch.ended([]), **again}
        conversation, result = watch.done.results[0]
        try:
            reply = self._kept(watch, sent, result.seed)
        except BagelError as error:
            return {self.status: error_box(error, watch.language), **again}
        after = Talk((*sent.before.lines, *sent.lines, *self._thought(watch), *reply), before=sent.before)
        self.shelf.put(after.key, sent.visitor, conversation)
        if sent.before.before is not None:  # taken back twice, it is read again
            self.shelf.drop(sent.before.before.key)
        seeds = [result.seed] if result.images or sent.turn.text.do_sample else []
        return {
            self.talk: after,
            self.chat: after.messages(thought),
            self.shown: after.pictures or None,
            self.status: watch.ended(seeds),
            self.panel.seeds: seeds or gr.skip(),
        }

    def _kept(self, watch: Watch, sent: Sent, seed: int) -> list[Line]:
        """The reply, its pictures written to the history. Raises InputError."""
        history, settings = self.desk.history, self._settings(sent, seed)
        lines: list[Line] = []
        for part in watch.said():
            if isinstance(part, str):
                lines += [Line(part, own=True)] if part else []
            else:
                lines.append(Line(picture=str(history.keep(part, settings, sent.visitor)), own=True))
        return lines

    def _settings(self, sent: Sent, seed: int) -> dict[str, Any]:
        """What brings the conversation back as it was before the turn. Its text may be too long for that; then the
        message alone."""
        name_of = self.desk.history.name_of
        past, parts = told(sent.before.past, name_of), told(sent.lines, name_of)
        if len(json.dumps(past)) + len(json.dumps(parts)) > _MOST_TOLD:
            past = []
        prompt = "\n".join(line.text for line in sent.lines if line.text)
        images = [part["picture"] for part in (*past, *parts) if "picture" in part]
        more = {"images": images, "past": past, "parts": parts, "reply": sent.turn.reply, "seed": seed}
        asked = replace(sent.turn.image, seed=None)
        return settings_of(asked, job="talk", prompt=prompt, model=self.desk.model, **more)
