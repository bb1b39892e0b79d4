"""The tab for understanding: questions about pictures, or without."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from bagel.app.ui.desk import QUIET, Desk, opened
from bagel.app.ui.examples import example_pictures, wording
from bagel.app.ui.panel import Panel, Values
from bagel.app.ui.watch import error_box
from bagel.app.ui.work import answer
from bagel.errors import BagelError
from bagel.infer.inputs import checked_text
from bagel.options import settle


class AnswerTab:
    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        with desk.words(gr.Tab, wording={"label": "tab.chat"}, id="chat") as self.tab, gr.Row():
            with gr.Column(scale=5, min_width=320, elem_classes="asking"):
                self._asking()
            with gr.Column(scale=6, min_width=320, elem_classes="showing"):
                self.status = gr.HTML(padding=False, elem_id="chat-status")
                self.answer = desk.words(
                    gr.Textbox,
                    wording={"label": "answer"},
                    lines=8,
                    max_lines=24,
                    buttons=["copy"],
                    elem_id="chat-answer",
                )
        self._wire()

    def _asking(self) -> None:
        words = self.desk.words
        self.images = words(
            gr.Gallery,
            wording={"label": "pictures"},
            type="filepath",
            interactive=True,
            format="png",
            columns=3,
            fit_columns=False,
            height=220,
            object_fit="contain",
            file_types=["image"],
            elem_id="chat-pictures",
        )
        self.prompt = words(
            gr.Textbox,
            wording={"label": "prompt.chat", "placeholder": "hint.chat"},
            lines=1,
            max_lines=6,
            elem_id="chat-prompt",
        )
        with gr.Row(elem_classes="tight"):
            self.go = words(gr.Button, wording={"value": "go.chat"}, variant="primary", elem_id="chat-go")
            self.cancel = words(
                gr.Button, wording={"value": "cancel"}, variant="stop", visible=False, elem_id="chat-cancel"
            )
        self.examples = self.desk.example_buttons("chat")
        with gr.Column(elem_classes="turning"):
            self.panel, self.seeds = Panel("chat", self.desk.config, words), gr.State([])

    def _wire(self) -> None:
        inputs = {self.images, self.prompt, self.desk.language, *self.panel.inputs}
        outputs = [self.status, self.answer, self.go, self.cancel, self.seeds]
        gr.on([self.go.click, self.prompt.submit], self._run, inputs, outputs, **QUIET)
        self.cancel.click(self.desk.canceller("chat"), None, None, queue=False, **QUIET)
        self.panel.reuse.click(lambda seeds: str(seeds[0]) if seeds else "", self.seeds, self.panel.controls["seed"])
        for button, pair in self.examples:
            button.click(
                lambda language, p=pair: (wording(p, language), example_pictures(p)),
                self.desk.language,
                [self.prompt, self.images],
                **QUIET,
            )

    def _run(self, values: Values, request: gr.Request) -> Iterator[dict[Any, Any]]:
        language = values[self.desk.language]
        try:
            question = checked_text(values[self.prompt])
            _, options = self.panel.options(values, language)
            options = settle(options, "chat", self.desk.config.presets)
            images = opened(values[self.images])
        except BagelError as error:
            yield {self.status: error_box(error, language)}
            return
        yield {self.go: gr.update(interactive=False), self.cancel: gr.update(visible=True), self.answer: ""}
        for watch in self.desk.watch(answer(images, question, options), language, self.desk.owner(request, "chat")):
            if watch.done is None:
                yield {self.status: watch.status(), self.answer: watch.texts.get(0, "")}
                continue
            found = watch.done.result
            seed = found.seed if found and options.do_sample else None
            yield {
                self.status: watch.ended([seed]),
                self.answer: found.text if found else watch.texts.get(0, ""),
                self.seeds: [found.seed] if found else gr.skip(),
                self.go: gr.update(interactive=True),
                self.cancel: gr.update(visible=False),
            }
