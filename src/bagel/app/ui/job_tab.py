"""A tab that asks on the left, shows on the right, and runs one task at a time: drawing, editing, understanding."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

import gradio as gr
from PIL import Image

from bagel.app.ui.desk import Desk, owner_of
from bagel.app.ui.form import Form
from bagel.app.ui.host import Work
from bagel.app.ui.panel import Values
from bagel.app.ui.watch import Watch, error_box
from bagel.errors import BagelError
from bagel.options import ImageOptions, TextOptions

Updates = dict[Any, Any]
"""By control of the page, what it is to show."""


@dataclass(frozen=True)
class Asked:
    """What was asked for. count: jobs of the work; visitor, owner: see `Desk`; values: all controls."""

    prompt: str
    options: ImageOptions | TextOptions
    work: Work
    values: Values
    visitor: str
    images: list[Image.Image] = field(default_factory=list)
    count: int = 1


class JobTab:
    """job: draw, edit or chat. What differs between them is in the methods that raise NotImplementedError."""

    def __init__(self, job: str, desk: Desk) -> None:
        self.job, self.desk, self.words = job, desk, desk.words
        with desk.words(gr.Tab, wording={"label": f"tab.{job}"}, id=job) as self.tab, gr.Row():
            with gr.Column(scale=5, min_width=320, elem_classes="asking"):
                self.form = Form(job, desk)
                self.panel = self.form.panel
            with gr.Column(scale=6, min_width=320, elem_classes="showing"):
                self.status = gr.HTML(padding=False, elem_id=f"{job}-status")
                shown = self.show()
        self.form.wire(self._run, [self.status, *shown])

    def show(self) -> list[Any]:
        """Makes the showing half; -> the controls that a task fills."""
        raise NotImplementedError

    def ask(self, values: Values, language: str, visitor: str) -> Asked:
        """Raises InputError for what cannot be done."""
        raise NotImplementedError

    def begin(self, asked: Asked) -> Updates:
        raise NotImplementedError

    def meanwhile(self, watch: Watch) -> Updates:
        raise NotImplementedError

    def end(self, watch: Watch, asked: Asked) -> Updates:
        """Raises InputError where results cannot be kept."""
        raise NotImplementedError

    async def _run(self, values: Values, request: gr.Request) -> AsyncGenerator[Updates, None]:
        language, owner = values[self.desk.language], owner_of(request, self.job)
        try:
            asked = await asyncio.to_thread(self.ask, values, language, owner.partition("/")[0])
        except BagelError as error:
            yield {self.status: error_box(error, language)}
            return
        yield {**self.form.busy, **self.begin(asked)}
        async with contextlib.aclosing(self.desk.watch(asked.work, language, owner, asked.count)) as watches:
            async for watch in watches:
                if watch.done is None:
                    yield {self.status: watch.status(), **self.meanwhile(watch)}
                else:
                    yield {**await asyncio.to_thread(self._end, watch, asked), **self.form.idle}

    def _end(self, watch: Watch, asked: Asked) -> Updates:
        assert watch.done is not None
        try:
            shown = self.end(watch, asked)
        except BagelError as error:  # the disk is full
            return {self.status: error_box(error, watch.language)}
        seeds = [result.seed for result in watch.done.results if not isinstance(asked.options, TextOptions)]
        if isinstance(asked.options, TextOptions) and asked.options.do_sample:
            seeds = [result.seed for result in watch.done.results]
        return {self.status: watch.ended(seeds), self.panel.seeds: seeds or gr.skip(), **shown}
