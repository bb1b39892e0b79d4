"""The one object that the command line, the page, the server and the evaluation all call."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import torch
from PIL import Image

from bagel import checkpoint as checkpoints
from bagel.devices import on_host
from bagel.errors import InputError
from bagel.images import open_image
from bagel.infer import jobs
from bagel.infer.conversation import Runtime
from bagel.infer.engine import Finished, Job, run
from bagel.infer.inputs import ImageLike, as_inputs, as_list, as_prompts, check_size, split_fields
from bagel.infer.loading import Device, Wanted, load_runtime
from bagel.infer.result import Result
from bagel.infer.session import Progress, Session
from bagel.infer.together import load_together
from bagel.lora_files import Lora
from bagel.memory.place import is_whole
from bagel.model.config import ModelConfig
from bagel.options import ImageOptions, Options, TextOptions, make, settle
from bagel.packed_files import PACKED


class Bagel:
    """A loaded model. A list of requests in gives a list of results out, run as one batch, each equal to its
    run alone."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime

    @classmethod
    def load(
        cls,
        model: str | os.PathLike[str] = "mini",
        *,
        device: Device = "auto",
        dtype: str | torch.dtype = "auto",
        precision: str | None = None,
        offload: str | Sequence[str] | None = None,
        lora: Lora | None = None,
        parallel: str | None = None,
        compile: bool = True,
        job: str | None = None,
        report: checkpoints.Report | None = None,
    ) -> Bagel:
        """model: a folder in the official layout or a packed one, a file of weights in such a folder (safetensors
        or GGUF), `mini` (the embedded model), or a hub name that was downloaded before; nothing is fetched.
        device: one, or several GPUs ("cuda:0,cuda:1"). parallel: how several share the work: layers (unless
        given), branches, rows, tensor, a product like branches=2,tensor=2, or auto (see docs/memory.md); all but
        layers run in a process for each device. precision: bf16, fp16, fp32, bf11, fp8, int8 or nf4, the numbers the
        weights are kept in, or auto, the first that fits; it wins over dtype. offload: parts that are kept on the
        host (und, gen, vit, vae, embed, head), or auto, as few as need be. lora: an adapter folder, or a list of
        folders and (folder, weight), merged into the weights. compile: on a GPU, kernels made for it and captured
        graphs; without, PyTorch's operations one by one, which is slower and the reference. job: draw, edit or chat,
        what `auto` makes room for; None for all of them. report: called with (bytes read, bytes in all).

        Under torchrun, with `parallel`, every rank calls this; the first goes on, the others serve it and end with it.

        On a GPU the memory is planned first; nothing goes to the host and no precision is lowered unless asked.

        Raises CheckpointError, DeviceError, InputError, or MemoryPlanError with the setups that would fit.
        """
        wanted = Wanted(device, dtype, precision, offload, lora, parallel, compile, job)
        load = load_runtime if parallel is None else load_together
        with on_host():
            return cls(load(find_model(model), wanted, report))

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes the weights as they are: an official folder, or a packed one in fewer bits, which loads
        without the original. Raises InputError for a model with parts on the host or on several devices."""
        if not is_whole(self.runtime.checkpoint):
            raise InputError("parts of the model are on the host or on several devices; load it whole to save it.")
        checkpoints.save(Path(folder), self.runtime.checkpoint)

    def close(self) -> None:
        """Ends the processes that run other GPUs for this model; without them nothing is to close. It also happens
        when the model is dropped, and at exit."""
        self.runtime.engine.close()

    @property
    def config(self) -> ModelConfig:
        return self.runtime.checkpoint.config

    # --- requests ----------------------------------------------------------------------------------------

    @overload
    def draw(self, prompt: str, options: ImageOptions | None = ..., **fields: Any) -> Result: ...
    @overload
    def draw(self, prompt: Sequence[str], options: ImageOptions | None = ..., **fields: Any) -> list[Result]: ...
    def draw(
        self,
        prompt: str | Sequence[str],
        options: ImageOptions | None = None,
        *,
        progress: Progress | None = None,
        **fields: Any,
    ) -> Result | list[Result]:
        """A picture of what the prompt says. Any field of ImageOptions may be given by name; for a list of
        prompts a field may be a list of the same length."""
        prompts = as_prompts(prompt)
        each = self._each(ImageOptions, options, fields, len(prompts), "draw")
        todo = [jobs.draw(self.runtime, [p], o) for p, o in zip(prompts, each, strict=True)]
        return self._results(todo, single=isinstance(prompt, str), progress=progress)

    def edit(
        self,
        images: ImageLike | Sequence[Any],
        instruction: str | Sequence[str],
        options: ImageOptions | None = None,
        *,
        progress: Progress | None = None,
        **fields: Any,
    ) -> Any:
        """A picture made from one or several, by an instruction -> Result. With a list of instructions,
        `images` is a list with the picture or pictures of each -> list of Results."""
        single = isinstance(instruction, str)
        instructions = as_prompts(instruction)
        groups = [images] if single else as_list(images)
        if len(groups) != len(instructions):
            raise InputError(f"{len(instructions)} instructions were given for {len(groups)} groups of pictures.")
        each = self._each(ImageOptions, options, fields, len(instructions), "edit")
        todo = []
        for group, text, chosen in zip(groups, instructions, each, strict=True):
            pictures = [open_image(item) for item in as_list(group)]
            if not pictures:
                raise InputError("there is no picture to edit; give at least one.")
            todo.append(jobs.draw(self.runtime, [*pictures, text], chosen))
        return self._results(todo, single=single, progress=progress)

    def chat(
        self,
        inputs: Any,
        options: TextOptions | None = None,
        *,
        progress: Progress | None = None,
        **fields: Any,
    ) -> Any:
        """An answer to text and pictures in any order -> Result. A string that ends like a picture's file name
        is opened as one (wrap it in `Text` if it is not); a list of lists is several requests -> list."""
        items = as_list(inputs)
        several = bool(items) and all(isinstance(item, (list, tuple)) for item in items)
        requests = [as_inputs(item) for item in items] if several else [as_inputs(items)]
        each = self._each(TextOptions, options, fields, len(requests), "chat")
        todo = [jobs.answer(self.runtime, r, o) for r, o in zip(requests, each, strict=True)]
        return self._results(todo, single=not several, progress=progress)

    def stream(
        self,
        inputs: Any,
        *,
        output: str | Sequence[str] = "interleaved",
        image_options: ImageOptions | None = None,
        text_options: TextOptions | None = None,
        max_images: int = 8,
        **fields: Any,
    ) -> Iterator[Any]:
        """Events of one request as they happen: TextPiece, TextDone, ImageStep, ImageDone, and Finished with
        the Result at the end. Closing the iterator stops the work.

        output: "text", "image", "interleaved" (the model decides what comes next and when to stop), or a
        list of "text" and "image" in the order wanted. A field by name goes to whichever options have it.
        """
        parts = as_inputs(as_list(inputs))
        image, text = split_fields(fields, image_options, text_options)
        job = self._stream_job(parts, output, image, text, max_images)
        return (event for _, event in run(self.runtime.engine, [job]))

    def session(self, *, progress: Progress | None = None) -> Session:
        """A conversation of many turns over one kept context."""
        return Session(self.runtime, progress=progress)

    # --- parts -------------------------------------------------------------------------------------------

    def _stream_job(
        self,
        inputs: list[jobs.Input],
        output: str | Sequence[str],
        image: ImageOptions,
        text: TextOptions,
        max_images: int,
    ) -> Job:
        job = "edit" if any(isinstance(item, Image.Image) for item in inputs) else "draw"
        presets = self.config.presets
        if output == "text":
            return jobs.answer(self.runtime, inputs, settle(text, "chat", presets))
        settled = check_size(settle(image, job, presets), self.config)
        if output == "image":
            return jobs.draw(self.runtime, inputs, settled)
        if output != "interleaved" and not isinstance(output, (list, tuple)):
            raise InputError(f'output is {output!r}; use "text", "image", "interleaved" or a list of the first two.')
        plan = jobs.Plan(None if output == "interleaved" else output, max_images)
        return jobs.interleave(self.runtime, inputs, plan, settled, settle(text, "chat", presets))

    def _each(
        self, cls: type[Options], options: Options | None, fields: Mapping[str, Any], count: int, job: str
    ) -> list[Options]:
        """The settled options of each request; a list among `fields` holds one value a request."""
        out: list[Options] = []
        for index in range(count):
            own = {name: _share(name, value, index, count) for name, value in fields.items()}
            settled = settle(make(cls, options, own), job, self.config.presets)
            if isinstance(settled, ImageOptions):
                check_size(settled, self.config)
            out.append(settled)
        return out

    def _results(self, todo: Sequence[Job], *, single: bool, progress: Progress | None) -> Any:
        results: dict[int, Result] = {}
        for index, event in run(self.runtime.engine, todo):
            if isinstance(event, Finished):
                results[index] = event.result
            elif progress:
                progress(index, event)
        return results[0] if single else [results[index] for index in range(len(todo))]


def find_model(model: str | os.PathLike[str]) -> Path:
    """The folder of a model: the embedded one by its name, a folder or a file of weights in one, or a download of a
    hub name. Raises CheckpointError, or InputError for what is no name."""
    if not isinstance(model, (str, os.PathLike)) or not os.fspath(model):
        raise InputError(f"the model is {model!r}; give a folder, mini, or a hub name as org/name.")
    if model == "mini":
        return _EMBEDDED
    from bagel.hub import resolve

    found = resolve(os.fspath(model))
    return found.parent if found.name == PACKED and found.is_file() else found


_EMBEDDED = Path(__file__).parent.parent / "assets" / "mini"


_OWN_DEPTH = {"cfg_interval": 1, "noise": 2}
"""Fields whose single value is a list, or a list of lists."""


def _share(name: str, value: Any, index: int, count: int) -> Any:
    """One request's share of a field: what is a level deeper than the field's own value is spread over the
    requests."""
    if _depth(value) <= _OWN_DEPTH.get(name, 0):
        return value
    if len(value) != count:
        raise InputError(f"{name} has {len(value)} values for {count} requests; give one, or one for each.")
    return value[index]


def _depth(value: Any) -> int:
    if isinstance(value, (list, tuple, range)):
        return 1 + (_depth(value[0]) if value else 0)
    return getattr(value, "ndim", 0)
