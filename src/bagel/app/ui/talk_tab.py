"""The tab for conversation: text and pictures in, text and pictures out, over one kept context."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import gradio as gr

from bagel.app.show import settings_of
from bagel.app.ui.desk import QUIET, Desk, opened, paths_in
from bagel.app.ui.panel import Panel, Values
from bagel.app.ui.texts import say
from bagel.app.ui.watch import Watch, error_box
from bagel.app.ui.work import Turn, turn
from bagel.errors import BagelError, InputError
from bagel.infer.inputs import check_size, checked_text
from bagel.infer.session import Session
from bagel.options import settle

Message = dict[str, Any]


@dataclass(frozen=True)
class Talk:
    """A conversation so far. before: as it was before its last turn."""

    session: Session | None = None
    messages: list[Message] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)
    before: Talk | None = None


class TalkTab:
    def __init__(self, desk: Desk) -> None:
        self.desk, words = desk, desk.words
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
                )
                self.panel = Panel("talk", desk.config, words)
                self.talk, self.seeds = gr.State(None), gr.State([])
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
                "choices": lambda lang: [(say(f"reply.{kind}", lang), kind) for kind in ("text", "image", "both")],
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
        inputs = {self.message, self.reply, self.talk, self.desk.language, *self.panel.inputs}
        all_shown = [self.talk, self.chat, self.shown, self.status, self.previews]
        outputs = [*all_shown, self.message, self.cancel, self.seeds]
        self.message.submit(self._run, inputs, outputs, **QUIET)
        self.cancel.click(self.desk.canceller("talk"), None, None, queue=False, **QUIET)
        self.panel.reuse.click(lambda seeds: str(seeds[0]) if seeds else "", self.seeds, self.panel.controls["seed"])
        self.undo.click(lambda talk: self._show((talk and talk.before) or Talk()), self.talk, all_shown, **QUIET)
        gr.on([self.new.click, self.chat.clear], lambda: self._show(Talk()), None, all_shown, **QUIET)
        self.shown.select(self._again, [self.message, self.shown], self.message, **QUIET)

    def _again(self, event: gr.SelectData, message: Any, shown: Any) -> dict[str, Any]:
        """A picture of the conversation goes into the next message."""
        message = message or {}
        files = [*(message.get("files") or []), paths_in(shown)[event.index]]
        return {"text": message.get("text") or "", "files": files}

    def _show(self, talk: Talk) -> list[Any]:
        return [talk, talk.messages, talk.pictures or None, "", gr.update(value="", visible=False)]

    # --- a turn ----------------------------------------------------------------------------------------

    def _run(self, values: Values, request: gr.Request) -> Iterator[dict[Any, Any]]:
        language, talk = values[self.desk.language], values[self.talk] or Talk()
        try:
            asked, sent = self._asked(values, language)
        except BagelError as error:
            yield {self.status: error_box(error, language)}
            return
        messages = [*talk.messages, *sent]
        quiet = {
            self.message: gr.update(interactive=True),
            self.cancel: gr.update(visible=False),
            self.previews: gr.update(value="", visible=False),
        }
        yield {
            self.chat: messages,
            self.message: gr.update(value=None, interactive=False),
            self.cancel: gr.update(visible=True),
        }
        for watch in self.desk.watch(turn(talk.session, asked), language, self.desk.owner(request, "talk")):
            if watch.done is None:
                yield {self.status: watch.status(), **self._news(watch, messages)}
            elif watch.done.error is not None:  # as before, and what was sent can be sent again
                text = values[self.message]
                yield {
                    self.status: watch.ended([]),
                    self.chat: talk.messages,
                    **quiet,
                    self.message: gr.update(value=text, interactive=True),
                }
            else:
                yield {**self._end(watch, asked, talk, sent), **quiet}

    def _news(self, watch: Watch, messages: list[Message]) -> dict[Any, Any]:
        written, pictures = _written(watch), watch.pictures()
        news: dict[Any, Any] = {self.chat: [*messages, *written]} if written else {}
        return news if pictures is None else {**news, self.previews: gr.update(value=pictures, visible=True)}

    def _asked(self, values: Values, language: str) -> tuple[Turn, list[Message]]:
        """What is sent, for the model and for the page. Raises InputError."""
        image, text = self.panel.options(values, language)
        presets = self.desk.config.presets
        settle(text, "chat", presets)
        check_size(settle(image, "draw", presets), self.desk.config)
        message = values[self.message] or {}
        files, said = message.get("files") or [], (message.get("text") or "").strip()
        parts: list[Any] = [*opened(files), *([checked_text(said)] if said else [])]
        if not parts:
            raise InputError(say("hint.nothing", language))
        shown: list[Message] = [{"role": "user", "content": {"path": path}} for path in files]
        if said:
            shown.append({"role": "user", "content": said})
        return Turn(parts, values[self.reply], image, text, values[self.panel.preview]), shown

    def _end(self, watch: Watch, asked: Turn, talk: Talk, sent: list[Message]) -> dict[Any, Any]:
        assert watch.done is not None
        session, result = watch.done.result
        prompt = next((part for part in asked.parts if isinstance(part, str)), "")
        settings = _settings(asked, prompt, self.desk.model)
        try:
            kept = [
                str(self.desk.history.keep(image, {**settings, "seed": result.seed + number}))
                for number, image in enumerate(result.images)
            ]
        except BagelError as error:
            return {self.status: error_box(error, watch.language), self.chat: talk.messages}
        messages = [*talk.messages, *sent, *_written(watch)]
        messages += [{"role": "assistant", "content": {"path": path}} for path in kept]
        uploads = [message["content"]["path"] for message in sent if isinstance(message["content"], dict)]
        after = Talk(session, messages, [*talk.pictures, *uploads, *kept], before=talk)
        seeds = [result.seed] if result.images or asked.text.do_sample else []
        return {
            self.talk: after,
            self.chat: messages,
            self.shown: after.pictures or None,
            self.status: watch.ended(seeds),
            self.seeds: seeds or gr.skip(),
        }


def _written(watch: Watch) -> list[Message]:
    """What the model has written so far, its thought first."""
    thought, text = watch.thoughts.get(0), watch.texts.get(0)
    found: list[Message] = []
    if thought:
        title = say("thought", watch.language)
        found.append({"role": "assistant", "content": thought, "metadata": {"title": title}})
    if text:
        found.append({"role": "assistant", "content": text})
    return found


def _settings(asked: Turn, prompt: str, model: str) -> dict[str, Any]:
    job = "edit" if any(not isinstance(part, str) for part in asked.parts) else "draw"
    return settings_of(replace(asked.image, seed=None), job=job, prompt=prompt, model=model, from_conversation=True)
