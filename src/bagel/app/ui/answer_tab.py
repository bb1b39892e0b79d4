"""The tab for understanding: questions about pictures, or without."""

from __future__ import annotations

from typing import Any

import gradio as gr

from bagel.app.ui.desk import Desk
from bagel.app.ui.job_tab import Asked, JobTab, Updates
from bagel.app.ui.panel import Values
from bagel.app.ui.texts import parted, say
from bagel.app.ui.watch import Watch
from bagel.app.ui.work import answer
from bagel.options import settle


class AnswerTab(JobTab):
    def __init__(self, desk: Desk) -> None:
        super().__init__("chat", desk)

    def show(self) -> list[Any]:
        self.thought = self.words(
            gr.Textbox, wording={"label": "thought"}, visible=False, lines=4, max_lines=12, elem_id="chat-thought"
        )
        self.answer = self.words(
            gr.Textbox,
            wording={"label": "answer"},
            lines=3,
            max_lines=24,
            buttons=["copy"],
            elem_id="chat-answer",
        )
        return [self.thought, self.answer]

    def ask(self, values: Values, language: str, visitor: str) -> Asked:
        question, images = self.form.asked(values)
        _, options = self.panel.options(values, language)
        options = settle(options, "chat", self.desk.config.presets)
        return Asked(question, options, answer(images, question, options), values, visitor, images)

    def begin(self, asked: Asked) -> Updates:
        return {self.thought: gr.update(visible=asked.options.think, value=""), self.answer: ""}

    def meanwhile(self, watch: Watch) -> Updates:
        thought, answer = parted("".join(map(str, watch.said())))
        return {self.thought: thought, self.answer: answer}

    def end(self, watch: Watch, asked: Asked) -> Updates:
        assert watch.done is not None
        shown, written = self.meanwhile(watch), "".join(map(str, watch.said()))
        if not shown[self.answer] and watch.done.error is None:
            shown[self.answer] = say(
                "answer.picture" if "<|vision_start|>" in written else "answer.none", watch.language
            )
        return shown
