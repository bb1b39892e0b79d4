"""What a request brings, made ready: bodies, texts, pictures. A text is a text: no path or address in it is opened."""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
import json
import threading
import warnings
from typing import Any, TypeVar

from PIL import Image
from pydantic import BaseModel
from starlette.requests import Request

from bagel.app.server.problems import ApiError
from bagel.app.server.remote import fetch
from bagel.app.server.settings import Settings
from bagel.infer.conversation import Runtime
from bagel.infer.inputs import Text, as_input, checked_text

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
_decoders = threading.Semaphore(2)
"""A large picture takes some hundred megabytes while it is decoded."""

M = TypeVar("M", bound=BaseModel)


async def read_json(request: Request, model: type[M]) -> M:
    """The body as `model`. Raises ApiError or pydantic's ValidationError."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(400, f"the content type is {kind[:80]!r}; send application/json.", "invalid_content_type")
    return model.model_validate(parse(await request.body()))


def parse(body: bytes | str) -> Any:
    """JSON -> Python. Raises ApiError."""
    try:
        return json.loads(body)
    except RecursionError:
        raise ApiError(400, "the body is nested too deeply.", "invalid_json") from None
    except ValueError as error:  # also what is no UTF-8, and numbers of thousands of digits
        raise ApiError(400, f"the body is no valid JSON ({str(error)[:100]}).", "invalid_json") from None


def text_input(text: str, settings: Settings) -> Text:
    """Raises ApiError or InputError for what is too long, empty or no Unicode."""
    check_letters(len(text), settings)
    return checked_text(text)


def check_letters(count: int, settings: Settings) -> None:
    """Raises ApiError where all texts of a request are too long together: they are tokenised between two passes."""
    if count > settings.letters:
        raise ApiError(413, f"the text has {count:,} letters; at most {settings.letters:,} are read.", "text_too_long")


async def picture_input(runtime: Runtime, url: str, settings: Settings) -> Image.Image:
    """A data URL, or an address where its host is allowed -> an RGB picture of the size the model reads."""
    if url[:5].lower() == "data:":
        return await asyncio.to_thread(lambda: picture(runtime, _bytes_of(url), settings))
    content = await asyncio.to_thread(fetch, url, settings.hosts, settings.body)
    return await asyncio.to_thread(picture, runtime, content, settings)


def picture(runtime: Runtime, content: bytes, settings: Settings) -> Image.Image:
    """The bytes of a file -> an RGB picture, scaled down as the model would, so that little is kept while it
    waits. Raises ApiError, 413 for too many pixels, told from the header before anything is unpacked."""
    with _decoders, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(content), formats=FORMATS) as header:
                width, height = header.size
        except Image.DecompressionBombError:
            raise ApiError(413, _too_many("too many", settings), "image_too_large") from None
        except Exception:  # decoders raise all kinds
            text = f"the picture ({len(content)} bytes) cannot be read; send PNG, JPEG, WebP, GIF or BMP."
            raise ApiError(400, text, "invalid_image") from None
        if width * height > settings.pixels:
            raise ApiError(413, _too_many(f"{width} x {height}", settings), "image_too_large")
        opened = as_input(content)
        assert isinstance(opened, Image.Image)
        return runtime.fitted(opened)


def _too_many(pixels: str, settings: Settings) -> str:
    return f"a picture has {pixels} pixels; at most {settings.pixels:,} are read. Scale it down first."


def _bytes_of(url: str) -> bytes:
    head, comma, data = url.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise ApiError(400, "a picture's data URL must look like data:image/png;base64,...", "invalid_image")
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise ApiError(400, "a picture's data URL holds no valid base64.", "invalid_image") from None
