"""Errors as OpenAI's clients know them. What went wrong inside is logged, never told."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from starlette.responses import Response

from bagel.app.worker import StoppingError
from bagel.errors import BagelError, MemoryPlanError
from bagel.infer.scheduler import BusyError
from bagel.options import ImageOptions, TextOptions


class ErrorBody(BaseModel):
    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorAnswer(BaseModel):
    """The body of every answer that is no success."""

    error: ErrorBody


class ApiError(Exception):
    """An answer with an error. retry_after: seconds after which it is worth another try."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        *,
        param: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.retry_after = retry_after

    @property
    def body(self) -> dict[str, Any]:
        kind = _KINDS.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> Response:
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return answer(self.body, self.status, headers)


_OPTIONS = {f.name for cls in (ImageOptions, TextOptions) for f in dataclasses.fields(cls)}
_KINDS = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}


class ClientGoneError(Exception):
    """Nobody waits for the answer any more."""


def answer(data: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """JSON in ASCII, so that a lone surrogate in what a client sent cannot break the answer."""
    return Response(json.dumps(data), status, headers, media_type="application/json")


def api_error_of(error: Exception) -> ApiError:
    """What a client is told of an error."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, BusyError):
        return ApiError(429, str(error), "queue_full", retry_after=error.retry_after)
    if isinstance(error, StoppingError):
        return ApiError(503, str(error), "shutting_down", retry_after=5)
    if isinstance(error, ValidationError):
        return _invalid(error)
    if isinstance(error, MemoryPlanError | MemoryError) or "out of memory" in str(error).lower():
        text = "the job does not fit into memory; ask for a smaller picture or fewer tokens."
        return ApiError(503, text, "out_of_memory", retry_after=5)
    if isinstance(error, BagelError):
        return ApiError(400, str(error), "invalid_value")
    return ApiError(500, "the server failed on this request; its log has the request's id.", "internal_error")


def _invalid(error: ValidationError) -> ApiError:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"] if not str(part).startswith("function-"))
    said = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(first["loc"][-1]), _OPTIONS, n=1)
        said = f"there is no such field; did you mean {near[0]}?" if near else "there is no such field; leave it out."
    return ApiError(400, f"{where}: {said}" if where else said, "invalid_value", param=where or None)
