"""The request of an edit: a form with files, as OpenAI's clients send it, or JSON with data URLs."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from bagel.app.server.inputs import parse, picture, picture_input, read_json
from bagel.app.server.problems import ApiError
from bagel.app.server.protocol import DrawRequest, EditRequest
from bagel.infer.conversation import Input

if TYPE_CHECKING:
    from bagel.app.server.service import Service


async def read_edit(request: Request, service: Service) -> tuple[DrawRequest, list[Input]]:
    """The request and its pictures, in order. Raises ApiError or pydantic's ValidationError."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        asked = await read_json(request, EditRequest)
        urls = [asked.image] if isinstance(asked.image, str) else asked.image
        _check_count(len(urls), service)
        return asked, [await picture_input(service.bagel.runtime, url, service.settings) for url in urls]
    try:
        form = await request.form(max_files=service.settings.pictures + 1, max_fields=100)
    except HTTPException as error:
        raise ApiError(400, f"the form cannot be read ({error.detail}).", "invalid_form") from None
    try:
        return await _from_form(form, service)
    finally:
        await form.close()


async def _from_form(form: FormData, service: Service) -> tuple[DrawRequest, list[Input]]:
    files = [value for name, value in form.multi_items() if re.fullmatch(r"image(\[\d*\])?", name)]
    if any(not isinstance(file, UploadFile) for file in files):
        raise ApiError(400, "image must be a file of the form.", "invalid_image", param="image")
    _check_count(len(files), service)
    if form.get("mask"):
        raise ApiError(400, "masks are not supported; say in the prompt what to change.", "invalid_value", param="mask")
    asked = DrawRequest.model_validate(_fields(form))
    pictures: list[Input] = []
    for file in files:
        assert isinstance(file, UploadFile)
        content = await file.read()
        pictures.append(await asyncio.to_thread(picture, service.bagel.runtime, content, service.settings))
    return asked, pictures


def _check_count(count: int, service: Service) -> None:
    if not count:
        raise ApiError(400, "there is no picture to edit; send at least one.", "invalid_image", param="image")
    if count > service.settings.pictures:
        text = f"{count} pictures were sent; at most {service.settings.pictures} are read."
        raise ApiError(413, text, "too_many_images", param="image")


def _fields(form: FormData) -> dict[str, Any]:
    """Text fields; several of one name, or of name[], are a list, and lists may come as JSON too."""
    fields: dict[str, Any] = {}
    for name, value in form.multi_items():
        if not isinstance(value, str) or name.startswith(("image", "mask")):
            continue
        if name.endswith("[]"):
            fields.setdefault(name[:-2], []).append(value)
        else:
            fields[name] = parse(value) if name in ("cfg_interval", "noise") else value
    return {name: value for name, value in fields.items() if value != ""}
