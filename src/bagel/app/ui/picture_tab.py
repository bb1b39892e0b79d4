"""The tabs for drawing and for editing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from bagel.app.show import settings_of
from bagel.app.ui.desk import QUIET, Desk, opened, paths_in
from bagel.app.ui.examples import Pair, example_pictures, wording
from bagel.app.ui.panel import Panel, Values
from bagel.app.ui.texts import say
from bagel.app.ui.watch import Watch, error_box
from bagel.app.ui.work import pictures
from bagel.errors import BagelError, InputError
from bagel.infer.inputs import check_size, checked_text
from bagel.options import ImageOptions, settle


class PictureTab:
    """job: draw or edit."""

    def __init__(self, job: str, desk: Desk) -> None:
        self.job, self.desk, self.words = job, desk, desk.words
        with desk.words(gr.Tab, wording={"label": f"tab.{job}"}, id=job) as self.tab, gr.Row():
            with gr.Column(scale=5, min_width=320, elem_classes="asking"):
                self._asking()
            with gr.Column(scale=6, min_width=320, elem_classes="showing"):
                self._showing()
        self._wire()

    def _asking(self) -> None:
        words, job = self.words, self.job
        if job == "edit":
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
                elem_id="edit-pictures",
            )
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
        self.examples = self.desk.example_buttons(job)
        with gr.Column(elem_classes="turning"):
            self.panel = Panel(job, self.desk.config, words)

    def _showing(self) -> None:
        words, job = self.words, self.job
        self.status = gr.HTML(padding=False, elem_id=f"{job}-status")
        self.previews = gr.HTML(padding=False, visible=False, elem_id=f"{job}-previews")
        if job == "edit":
            self.slider = words(
                gr.ImageSlider,
                wording={"label": "compare"},
                interactive=False,
                visible=False,
                type="filepath",
                elem_id="edit-slider",
            )
        self.result = words(
            gr.Gallery,
            wording={"label": "result"},
            columns=2,
            height="auto",
            object_fit="contain",
            interactive=False,
            buttons=["download", "fullscreen"],
            elem_id=f"{job}-result",
        )
        self.thought = words(
            gr.Textbox, wording={"label": "thought"}, visible=False, lines=4, max_lines=12, elem_id=f"{job}-thought"
        )
        with gr.Row(elem_classes="tight"):
            self.to_edit = words(gr.Button, wording={"value": "to.edit"}, size="sm", elem_id=f"{job}-to-edit")
            self.to_talk = words(gr.Button, wording={"value": "to.talk"}, size="sm", elem_id=f"{job}-to-talk")
        self.picked, self.seeds = gr.State(0), gr.State([])

    def _wire(self) -> None:
        inputs = {self.prompt, self.desk.language, *self.panel.inputs}
        outputs = [self.status, self.previews, self.result, self.thought, self.go, self.cancel, self.seeds]
        if self.job == "edit":
            inputs, outputs = inputs | {self.images}, [*outputs, self.slider]
        gr.on([self.go.click, self.prompt.submit], self._run, inputs, outputs, **QUIET)
        self.cancel.click(self.desk.canceller(self.job), None, None, queue=False, **QUIET)
        self.panel.reuse.click(lambda seeds: str(seeds[0]) if seeds else "", self.seeds, self.panel.controls["seed"])
        for button, pair in self.examples:
            filled = [self.prompt, self.images] if self.job == "edit" else self.prompt
            button.click(self._example(pair), self.desk.language, filled, **QUIET)
        self.result.select(
            self._pick,
            [self.result, *([self.images] if self.job == "edit" else [])],
            [self.picked, *([self.slider] if self.job == "edit" else [])],
            **QUIET,
        )

    def _example(self, pair: Pair) -> Any:
        if self.job == "draw":
            return lambda language: wording(pair, language)
        return lambda language: (wording(pair, language), example_pictures(pair))

    def _pick(self, event: gr.SelectData, result: Any, images: Any = None) -> Any:
        if self.job == "draw":
            return event.index
        return event.index, (paths_in(images)[-1], paths_in(result)[event.index]) if images else gr.skip()

    # --- a request -------------------------------------------------------------------------------------

    def _run(self, values: Values, request: gr.Request) -> Iterator[dict[Any, Any]]:
        language = values[self.desk.language]
        quiet = {self.go: gr.update(interactive=True), self.cancel: gr.update(visible=False)}
        try:
            prompt = checked_text(values[self.prompt])
            options, _ = self.panel.options(values, language)
            options = settle(options, self.job, self.desk.config.presets)
            check_size(options, self.desk.config)
            images = opened(values[self.images]) if self.job == "edit" else []
            if self.job == "edit" and not images:
                raise InputError(say("no.picture", language))
        except BagelError as error:
            yield {self.status: error_box(error, language), **quiet}
            return
        work = pictures(images, prompt, options, int(values[self.panel.count]), values[self.panel.preview])
        yield self._begin(options)
        for watch in self.desk.watch(work, language, self.desk.owner(request, self.job)):
            if watch.done is None:
                yield self._meanwhile(watch)
            else:
                yield {**self._end(watch, options, prompt, values), **quiet}

    def _meanwhile(self, watch: Watch) -> dict[Any, Any]:
        shown: dict[Any, Any] = {self.status: watch.status()}
        if watch.thoughts:
            shown[self.thought] = "\n\n".join(watch.thoughts.values())
        pictures = watch.pictures()
        return shown if pictures is None else {**shown, self.previews: gr.update(value=pictures, visible=True)}

    def _begin(self, options: ImageOptions) -> dict[Any, Any]:
        hidden = {self.slider: gr.update(visible=False)} if self.job == "edit" else {}
        return {
            self.go: gr.update(interactive=False),
            self.cancel: gr.update(visible=True),
            self.result: gr.update(visible=False, value=None),
            self.thought: gr.update(visible=options.think, value=""),
            **hidden,
        }

    def _end(self, watch: Watch, options: ImageOptions, prompt: str, values: Values) -> dict[Any, Any]:
        assert watch.done is not None
        results = watch.done.result or []
        asked = settings_of(options, job=self.job, prompt=prompt, model=self.desk.model)
        try:
            paths = [str(self.desk.history.keep(r.image, {**asked, "seed": r.seed})) for r in results]
        except BagelError as error:  # the disk is full
            return {self.status: error_box(error, watch.language)}
        seeds = [result.seed for result in results]
        shown: dict[Any, Any] = {
            self.status: watch.ended(seeds),
            self.previews: gr.update(value="", visible=False),
            self.result: gr.update(visible=True, value=paths or None, columns=min(len(paths), 2) or 1),
            self.seeds: seeds if seeds else gr.skip(),
        }
        if self.job == "edit" and paths:
            before = paths_in(values[self.images])[-1]
            shown[self.slider] = gr.update(visible=True, value=(before, paths[0]))
            shown[self.result] = gr.update(visible=len(paths) > 1, value=paths, columns=2)
        return shown
