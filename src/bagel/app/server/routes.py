"""The application: its routes, their document, and errors in OpenAI's shape."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from bagel.app.server import chat, guide, images
from bagel.app.server.guard import Guard
from bagel.app.server.problems import ApiError, ErrorAnswer, answer, api_error_of
from bagel.app.server.protocol import ChatRequest, DrawRequest, EditRequest
from bagel.app.server.service import Service
from bagel.app.server.settings import Settings
from bagel.errors import BagelError
from bagel.infer.pipeline import Bagel
from bagel.version import __version__

router = APIRouter()
_SCHEMA = "#/components/schemas/"
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"description": told, "content": {"application/json": {"schema": {"$ref": f"{_SCHEMA}ErrorAnswer"}}}}
    for status, told in {
        400: "The request cannot be used.",
        401: "The API key is missing or wrong.",
        404: "There is no such model.",
        413: "Too large: the body, a text, or a picture.",
        429: "The queue is full; Retry-After says when to come back.",
        503: "Stopping, too slow, or out of memory; Retry-After says when to come back.",
    }.items()
}


def _body(*kinds: tuple[str, str]) -> dict[str, Any]:
    content = {kind: {"schema": {"$ref": f"{_SCHEMA}{name}"}} for kind, name in kinds}
    return {"requestBody": {"required": True, "content": content}}


@router.get("/", include_in_schema=False)
@router.get("/docs", include_in_schema=False)
async def docs(request: Request) -> Response:
    """What this server takes, for people with a browser."""
    shown = guide.page(request.app.openapi(), str(request.base_url).rstrip("/"))
    return HTMLResponse(shown, headers=guide.HEADERS)


@router.get("/health")
async def health(request: Request) -> Response:
    """200 while requests are taken, 503 while the server stops."""
    service: Service = request.app.state.service
    if service.worker.stopping:
        raise service.worker.stopping
    if not service.worker.alive:
        raise ApiError(503, "the model's thread has ended; restart the server.", "not_running")
    return answer({"status": "ok", "model": service.settings.name, "jobs": service.worker.open})


@router.get("/metrics", responses={401: _ERRORS[401]})
async def metrics(request: Request) -> Response:
    """Numbers for Prometheus."""
    return Response(request.app.state.service.meter.text(), media_type="text/plain; version=0.0.4")


def _model(service: Service) -> dict[str, Any]:
    return {"id": service.settings.name, "object": "model", "created": _STARTED, "owned_by": "bagel"}


_STARTED = int(time.time())


@router.get("/v1/models", responses={401: _ERRORS[401]})
async def models(request: Request) -> Response:
    """The model that is loaded."""
    return answer({"object": "list", "data": [_model(request.app.state.service)]})


@router.get("/v1/models/{name:path}", responses={401: _ERRORS[401], 404: _ERRORS[404]})
async def model(request: Request, name: str) -> Response:
    """The model, where it has this name."""
    service: Service = request.app.state.service
    service.check_model(name)
    return answer(_model(service))


@router.post("/v1/chat/completions", responses=_ERRORS, openapi_extra=_body(("application/json", "ChatRequest")))
async def completions(request: Request) -> Response:
    """Answers messages of text and pictures, with text or with pictures too."""
    return await chat.completions(request, request.app.state.service)


@router.post("/v1/images/generations", responses=_ERRORS, openapi_extra=_body(("application/json", "DrawRequest")))
async def generations(request: Request) -> Response:
    """Draws what the prompt says."""
    return await images.generations(request, request.app.state.service)


@router.post(
    "/v1/images/edits",
    responses=_ERRORS,
    openapi_extra=_body(("multipart/form-data", "EditForm"), ("application/json", "EditRequest")),
)
async def edits(request: Request) -> Response:
    """Changes pictures as the prompt says."""
    return await images.edits(request, request.app.state.service)


def build(bagel: Bagel, settings: Settings) -> Guard[Service]:
    """The application with its worker, which runs from startup to shutdown."""
    service = Service(bagel, settings)

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        service.worker.start()
        yield
        service.worker.stop()

    app = FastAPI(title="BAGEL", version=__version__, lifespan=life, docs_url=None, redoc_url=None)
    app.state.service = service
    app.include_router(router)
    for kind in (ApiError, BagelError, ValidationError, Exception):
        app.add_exception_handler(kind, _told)
    app.add_exception_handler(HTTPException, _http_error)
    document = app.openapi

    def openapi() -> dict[str, Any]:
        return _with_schemas(document())

    app.openapi = openapi  # type: ignore[method-assign]
    return Guard(app, service)


async def _told(request: Request, error: Exception) -> Response:
    return api_error_of(error).response()


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    text = "there is no such address here." if error.status_code == 404 else f"{error.detail}."
    response = ApiError(error.status_code, text).response()
    for name, value in (error.headers or {}).items():  # Allow, of 405
        response.headers[name] = value
    return response


def _with_schemas(document: dict[str, Any]) -> dict[str, Any]:
    """The document with the types that the routes read by themselves."""
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    types: list[type[BaseModel]] = [ChatRequest, DrawRequest, EditRequest, ErrorAnswer]
    for cls in types:
        schema = cls.model_json_schema(ref_template=f"{_SCHEMA}{{model}}")
        schemas.update(schema.pop("$defs", {}))
        schemas[cls.__name__] = schema
    schemas["EditForm"] = _form_of(schemas["EditRequest"])
    return document


def _form_of(schema: dict[str, Any]) -> dict[str, Any]:
    """An edit as a form: the pictures are files."""
    file = {"type": "string", "format": "binary"}
    kept = {name: value for name, value in schema["properties"].items() if name not in ("image", "mask", "noise")}
    return {**schema, "title": "EditForm", "properties": {**kept, "image": file}, "required": ["image", "prompt"]}
