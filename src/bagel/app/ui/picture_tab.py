"""The tabs for drawing and for editing."""

from __future__ import annotations

from typing import Any

import gradio as gr

from bagel.app.show import settings_of
from bagel.app.ui.desk import QUIET, Desk, paths_in
from bagel.app.ui.job_tab import Asked, JobTab, Updates
from bagel.app.ui.panel import Values
from bagel.app.ui.texts import TellError, parted, say
from bagel.app.ui.watch import Watch
from bagel.app.ui.words import Wording
from bagel.app.ui.work import pictures
from bagel.infer.inputs import check_size
from bagel.options import ImageOptions, settle


class PictureTab(JobTab):
    """job: draw or edit."""

    def __init__(self, job: str, desk: Desk) -> None:
        super().__init__(job, desk)
        edits = job == "edit"
        self.result.select(
            self._pick,
            [self.result, *([self.form.images] if edits else [])],
            [self.picked, *([self.slider] if edits else [])],
            **QUIET,
        )

    def show(self) -> list[Any]:
        words, job = self.words, self.job
        self.previews = gr.HTML(padding=False, visible=False, elem_id=f"{job}-previews")
        if job == "edit":
            self.slider = words(
                gr.ImageSlider,
                wording={"label": "compare"},
                show_label=False,
                interactive=False,
                visible=False,
                type="filepath",
                elem_id="edit-slider",
            )
        self.result = words(
            gr.Gallery,
            wording={"label": "result"},
            show_label=False,
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
        with gr.Row(elem_classes="tight", visible=False) as self.onward:
            further: dict[str, Wording] = {"value": "to.further" if job == "edit" else "to.edit"}
            self.to_edit = words(gr.Button, wording=further, size="sm", elem_id=f"{job}-to-edit")
            self.to_talk = words(gr.Button, wording={"value": "to.talk"}, size="sm", elem_id=f"{job}-to-talk")
        self.picked = gr.State(0)
        own = [self.previews, self.result, self.thought, self.picked, self.onward]
        return [*own, *([self.slider] if job == "edit" else [])]

    def _pick(self, event: gr.SelectData, result: Any, images: Any = None) -> Any:
        if self.job == "draw":
            return event.index
        return event.index, (paths_in(images)[-1], paths_in(result)[event.index]) if images else gr.skip()

    # --- a request -------------------------------------------------------------------------------------

    def ask(self, values: Values, language: str, visitor: str) -> Asked:
        prompt, images = self.form.asked(values)
        options, _ = self.panel.options(values, language)
        options = settle(options, self.job, self.desk.config.presets)
        check_size(options, self.desk.config)
        if self.job == "edit" and not images:
            raise TellError(say("no.picture", language))
        count = int(values[self.panel.count])
        work = pictures(images, prompt, options, count, values[self.panel.preview])
        return Asked(prompt, options, work, values, visitor, images, count)

    def begin(self, asked: Asked) -> Updates:
        hidden = {self.slider: gr.update(visible=False)} if self.job == "edit" else {}
        return {
            self.result: gr.update(visible=False, value=None),
            self.thought: gr.update(visible=asked.options.think, value=""),
            self.picked: 0,
            self.onward: gr.update(visible=False),
            **hidden,
        }

    def meanwhile(self, watch: Watch) -> Updates:
        shown: Updates = {}
        if watch.thoughts:
            each = [parted(text)[0] for _, text in sorted(watch.thoughts.items())]
            shown[self.thought] = "\n\n".join(dict.fromkeys(each))
        pictures = watch.pictures()
        return shown if pictures is None else {**shown, self.previews: gr.update(value=pictures, visible=True)}

    def end(self, watch: Watch, asked: Asked) -> Updates:
        assert watch.done is not None
        assert isinstance(asked.options, ImageOptions)
        history, results = self.desk.history, watch.done.results
        settings = settings_of(asked.options, job=self.job, prompt=asked.prompt, model=self.desk.model)
        if asked.images and results:
            kept = [history.keep_input(image, asked.visitor) for image in asked.images]
            settings["images"] = [history.name_of(path) for path in kept]
        paths = [str(history.keep(r.image, {**settings, "seed": r.seed}, asked.visitor)) for r in results]
        shown: Updates = {
            **self.meanwhile(watch),
            self.previews: gr.update(value="", visible=False),
            self.result: gr.update(visible=True, value=paths or None, columns=min(len(paths), 2) or 1),
            self.onward: gr.update(visible=bool(paths)),
        }
        if self.job == "edit" and paths:
            before = paths_in(asked.values[self.form.images])[-1]
            shown[self.slider] = gr.update(visible=True, value=(before, paths[0]))
            shown[self.result] = gr.update(visible=len(paths) > 1, value=paths, columns=2)
        return shown
