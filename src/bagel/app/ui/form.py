"""The asking half of a tab: pictures where the job takes them, the prompt, the buttons, examples and the panel."""

from __future__ import annotations

from typing import Any

import gradio as gr
from PIL import Image

from bagel.app.ui.desk import QUIET, Desk
from bagel.app.ui.examples import Example, example_pictures, examples
from bagel.app.ui.panel import Panel, Values
from bagel.infer.inputs import checked_text


class Form:
    """job: draw, edit or chat."""

    def __init__(self, job: str, desk: Desk) -> None:
        self.job, self.desk, words = job, desk, desk.words
        self.images = self._pictures() if job != "draw" else None
        self.prompt = words(
            gr.Textbox,
            wording={"label": f"prompt.{job}", "placeholder": f"hint.{job}"},
            lines=1,
            max_lines=6,
            elem_id=f"{job}-prompt",
        )
        with gr.Row(elem_classes="tight"):
            self.go = words(gr.Button, wording={"value": f"go.{job}"}, variant="primary", elem_id=f"{job}-go")
            self.cancel = words(
                gr.Button, wording={"value": "cancel"}, variant="stop", visible=False, elem_id=f"{job}-cancel"
            )
        tried = self._examples()
        with gr.Column(elem_classes="turning"):
            self.panel = Panel(job, desk.config, words)
        for button, example in tried:
            self._try(button, example)

    def _pictures(self) -> Any:
        return self.desk.words(
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
            elem_id=f"{self.job}-pictures",
            elem_classes="named",
        )

    def _examples(self) -> list[tuple[Any, Example]]:
        words, tried = self.desk.words, examples(self.job, self.desk.config)
        with gr.Row(elem_classes="examples"):
            words(gr.HTML, wording={"value": "examples"}, elem_classes="name", padding=False)
            return [(words(gr.Button, wording={"value": example.wording}, size="sm"), example) for example in tried]

    def _try(self, button: Any, example: Example) -> None:
        """A click fills in all that the example needs."""
        filled = [self.prompt, self.panel.think, *([] if self.images is None else [self.images])]

        def fill(language: str) -> list[Any]:
            return [example.wording(language), example.think, *([example_pictures(example)] if len(filled) > 2 else [])]

        button.click(fill, self.desk.language, filled, **QUIET)

    # --- a request -------------------------------------------------------------------------------------

    @property
    def inputs(self) -> set[Any]:
        return {self.prompt, self.desk.language, *self.panel.inputs, *([] if self.images is None else [self.images])}

    def wire(self, run: Any, shown: list[Any]) -> None:
        """run: what a click or Enter begins; shown: what it fills besides the buttons."""
        outputs = [*shown, self.go, self.cancel, self.panel.seeds]
        gr.on([self.go.click, self.prompt.submit], run, self.inputs, outputs, **QUIET)
        self.cancel.click(self.desk.canceller(self.job), None, None, queue=False, **QUIET)

    @property
    def busy(self) -> dict[Any, Any]:
        return {self.go: gr.update(interactive=False), self.cancel: gr.update(visible=True)}

    @property
    def idle(self) -> dict[Any, Any]:
        return {self.go: gr.update(interactive=True), self.cancel: gr.update(visible=False)}

    def asked(self, values: Values) -> tuple[str, list[Image.Image]]:
        """The prompt and the pictures. Raises InputError."""
        text = checked_text(values[self.prompt])
        return text, [] if self.images is None else self.desk.opened(values[self.images])
