"""`POST /v1/images/generations` and `/v1/images/edits`"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from bagel.app.previews import Evenly, Preview, with_previews
from bagel.app.server.form import read_edit
from bagel.app.server.inputs import read_json, text_input
from bagel.app.server.problems import ApiError, answer
from bagel.app.server.protocol import DrawRequest
from bagel.app.server.service import Service, check_count, encoded
from bagel.app.worker import weight_of
from bagel.infer import jobs
from bagel.infer.conversation import Input
from bagel.infer.engine import Finished
from bagel.infer.inputs import check_size
from bagel.infer.result import Result
from bagel.options import PRESETS, ImageOptions, make, settle


async def generations(request: Request, service: Service) -> Response:
    asked = await read_json(request, DrawRequest)
    return await _make(request, service, asked, [], "draw", "image_generation")


async def edits(request: Request, service: Service) -> Response:
    asked, pictures = await read_edit(request, service)
    return await _make(request, service, asked, pictures, "edit", "image_edit")


async def _make(
    request: Request, service: Service, asked: DrawRequest, pictures: Sequence[Input], job: str, event: str
) -> Response:
    service.check_model(asked.model)
    prompt = text_input(asked.prompt, service.settings)
    runtime = service.bagel.runtime
    each = _options(asked, job, service)
    todo = [jobs.draw(runtime, [*pictures, prompt], options) for options in each]
    weight = weight_of([*pictures, prompt], each[0])
    if not asked.stream:
        results = await service.results(request, service.begin(request, todo, weight))
        data = [await _datum(result, asked) for result in results]
        usage = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
        head = {"created": int(time.time()), "output_format": asked.output_format or "png", "usage": usage}
        return answer({**head, "data": data})
    todo = [with_previews(runtime, one, Evenly(asked.partial_images or 0)) for one in todo]
    handle = service.begin(request, todo, weight, (Preview,))
    return service.stream(_chunks(service.events(request, handle), asked, event))


def _options(asked: DrawRequest, job: str, service: Service) -> list[ImageOptions]:
    """Settled options of each of the n pictures; their seeds are one apart."""
    fields = asked.options()
    if asked.size not in (None, "", "auto"):
        match = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", asked.size or "")
        if not match or "width" in fields or "height" in fields:
            text = "size must be WIDTHxHEIGHT, 512x768 for one, or auto; give either it or width and height."
            raise ApiError(400, text, "invalid_value", param="size")
        fields["width"], fields["height"] = int(match[1]), int(match[2])
    count = asked.n or 1
    check_count("n", count, service.settings.n)
    settled = check_options(settle(make(ImageOptions, None, fields), job, presets_within(service)), service)
    if count == 1:
        return [settled]
    seed = jobs.seed_of(settled)
    return [settle(make(ImageOptions, settled, {"seed": seed + number}), job, {}) for number in range(count)]


def presets_within(service: Service) -> dict[str, dict[str, Any]]:
    """The presets of all jobs, no higher than this server's limits: those hold for what a request asks for."""
    most = {"max_tokens": service.settings.tokens, "num_timesteps": service.settings.timesteps}
    presets = {job: {**PRESETS[job], **service.bagel.config.presets.get(job, {})} for job in PRESETS}
    return {job: {k: min(v, most[k]) if k in most else v for k, v in preset.items()} for job, preset in presets.items()}


def check_options(options: ImageOptions, service: Service) -> ImageOptions:
    """Raises InputError or ApiError for a picture that the model or this server does not draw."""
    check_size(options, service.bagel.config)
    limits = service.settings
    pixels = (options.height or 0) * (options.width or 0)
    if pixels > limits.drawn_pixels:
        text = f"{options.width} x {options.height} are {pixels:,} pixels; at most {limits.drawn_pixels:,} are drawn."
        raise ApiError(400, text, "invalid_value", param="size")
    check_count("num_timesteps", options.num_timesteps, limits.timesteps)
    check_count("max_tokens", options.max_tokens, limits.tokens)
    return options


async def _datum(result: Result, asked: DrawRequest) -> dict[str, Any]:
    """A picture, its seed, and the thought it was drawn by."""
    assert result.image is not None
    content = await encoded(result.image, asked.output_format or "png", asked.output_compression)
    thought = {"revised_prompt": result.text} if result.text else {}
    return {"b64_json": content, "seed": result.seed, **thought}


async def _chunks(
    events: AsyncIterator[tuple[int, Any]], asked: DrawRequest, name: str
) -> AsyncIterator[tuple[str, Any]]:
    head = {"created_at": int(time.time()), "output_format": asked.output_format or "png"}
    try:
        async for index, event in events:
            if isinstance(event, Preview):
                kind = f"{name}.partial_image"
                content = await encoded(event.image, asked.output_format or "png", asked.output_compression)
                more = {"partial_image_index": event.number, "b64_json": content}
            elif isinstance(event, Finished):
                kind, more = f"{name}.completed", await _datum(event.result, asked)
            else:
                continue
            size = {"size": "x".join(map(str, _image_of(event).size))}
            yield kind, {"type": kind, "index": index, **head, **size, **more}
    finally:
        await events.aclose()  # type: ignore[attr-defined]


def _image_of(event: Any) -> Any:
    return event.image if isinstance(event, Preview) else event.result.image
