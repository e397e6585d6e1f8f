"""All error responses of the API: RFC 9457 problem documents, with one entry per error.

One table maps exceptions to statuses. No traceback leaves the process: an unexpected error is logged with the request's
id, and the client gets the id.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match

from service import errors
from service.api.issues import request_issues
from service.spec import StudySpec

log = logging.getLogger(__name__)


class WrongMediaType(errors.InvalidInput):
    """A body of a media type that the route does not accept."""


STATUS: Mapping[type[errors.RegsearchError], HTTPStatus] = {
    WrongMediaType: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    errors.TooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.StorageFull: HTTPStatus.INSUFFICIENT_STORAGE,
    errors.InvalidInput: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.NotFound: HTTPStatus.NOT_FOUND,
    errors.Conflict: HTTPStatus.CONFLICT,
    errors.TooMany: HTTPStatus.TOO_MANY_REQUESTS,
    errors.QuotaExceeded: HTTPStatus.FORBIDDEN,
    errors.Changed: HTTPStatus.PRECONDITION_FAILED,
    errors.LeaseLost: HTTPStatus.CONFLICT,
    errors.DatabaseUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.NotReady: HTTPStatus.SERVICE_UNAVAILABLE,
}

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 5
_MAX_TEXT = 2000
_MAX_VALUE = 200
_MAX_ITEMS = 1000
_MAX_DEPTH = 8

EXAMPLE = {
    "type": "about:blank",
    "title": "Unprocessable Entity",
    "status": 422,
    "detail": "space.dropuot: is not a known key; did you mean dropout?",
    "instance": "/v1/studies",
    "request_id": "a17d18a25e6c",
    "errors": [
        {
            "field": "space.dropuot",
            "message": "is not a known key; did you mean dropout?",
            "value": 0.5,
            "allowed": ["activation", "batch_size", "dropout"],
        }
    ],
}


class ProblemIssue(BaseModel):
    """One error: the field, its value, and what is allowed."""

    field: str
    message: str
    value: Any = None
    allowed: Any = None


class Problem(BaseModel):
    """An RFC 9457 problem document."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str
    request_id: str
    errors: list[ProblemIssue] = Field(default_factory=list)


class BodyTooLarge(HTTPException):
    """A body above its route's limit; raised while it arrives, so that the rest is never stored."""

    def __init__(self, limit: int) -> None:
        super().__init__(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        self.issue = errors.Issue("body", f"is larger than {limit} bytes", None, f"at most {limit} bytes")


def install(app: FastAPI) -> None:
    """Make ``app`` answer every failure with a problem document."""

    def expected(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, errors.RegsearchError)
        status = next((code for kind, code in STATUS.items() if isinstance(error, kind)), HTTPStatus.BAD_REQUEST)
        found = error.issues if isinstance(error, errors.InvalidInput) else ()
        answer = problem(request, status, str(error), found)
        if isinstance(error, errors.DatabaseUnavailable | errors.NotReady | errors.NotYet):
            answer.headers["retry-after"] = str(RETRY_SECONDS)
        if isinstance(error, errors.TooMany):
            answer.headers["retry-after"] = str(error.retry_after)
        return answer

    def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        found = request_issues(error.errors(), _body_of(request))
        return problem(request, HTTPStatus.UNPROCESSABLE_ENTITY, "; ".join(map(str, found)), found)

    def http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        status = HTTPStatus(error.status_code)
        if isinstance(error, BodyTooLarge):
            return problem(request, status, str(error.issue), (error.issue,))
        answer = problem(request, status, f"{request.method} {request.url.path}: {error.detail}")
        answer.headers.update(error.headers or {})
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            answer.headers["allow"] = ", ".join(_methods(request))
        return answer

    def unexpected(request: Request, error: Exception) -> JSONResponse:
        log.error("unexpected error", exc_info=error, extra={"request_id": _request_id(request)})
        status = HTTPStatus.INTERNAL_SERVER_ERROR
        answer = problem(request, status, f"unexpected error; see request {_request_id(request)} in the log")
        # This response is made outside all middleware, so the one that adds the header does not see it.
        answer.headers["x-request-id"] = _request_id(request)
        return answer

    app.add_exception_handler(errors.RegsearchError, expected)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, unexpected)


def _methods(request: Request) -> list[str]:
    """The methods of a path, whose routes may be several; each knows its own only."""
    return [method for method in METHODS if any(_is_for(route, method, request) for route in request.app.routes)]


def _is_for(route: BaseRoute, method: str, request: Request) -> bool:
    return route.matches({**request.scope, "method": method})[0] == Match.FULL


def _body_of(request: Request) -> type[BaseModel]:
    """The model of a request's body; of a submit, whose union has tags, that of studies that workers run."""
    field = getattr(request.scope.get("route"), "body_field", None)
    wanted = field.field_info.annotation if field is not None else None
    return wanted if isinstance(wanted, type) and issubclass(wanted, BaseModel) else StudySpec


def answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problem responses of a route, for the OpenAPI document."""
    schema = {"$ref": f"#/components/schemas/{Problem.__name__}"}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": {MEDIA_TYPE: {"schema": schema}}}
        for status in (*statuses, 500, 503)
    }


def problem(
    request: Request, status: HTTPStatus, detail: str, found: Sequence[errors.Issue] = (), **more: str
) -> JSONResponse:
    """A problem document as a response, with ``more`` members if need be."""
    document = Problem(
        title=status.phrase,
        status=status.value,
        detail=_text(detail, _MAX_TEXT),
        instance=request.url.path,
        request_id=_request_id(request),
        errors=[
            ProblemIssue(
                field=_text(issue.field, _MAX_VALUE),
                message=_text(issue.message, _MAX_TEXT),
                value=_plain(issue.value, _MAX_VALUE),
                allowed=_plain(issue.allowed, _MAX_TEXT),
            )
            for issue in found
        ],
    )
    return JSONResponse({**document.model_dump(), **more}, status.value, media_type=MEDIA_TYPE)


def _plain(value: Any, longest: int, depth: int = 0) -> Any:
    """A value as JSON can represent it, truncated."""
    if value is None or isinstance(value, bool) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, int) and abs(value) < 2**63:
        return value
    if isinstance(value, list | tuple | Mapping) and depth == _MAX_DEPTH:
        return "…"
    if isinstance(value, list | tuple):
        return [_plain(each, longest, depth + 1) for each in value[:_MAX_ITEMS]]
    if isinstance(value, Mapping):
        return {_text(str(name), longest): _plain(each, longest, depth + 1) for name, each in value.items()}
    return _text(value if isinstance(value, str) else str(value), longest)


def _text(text: str, longest: int) -> str:
    """Text that UTF-8 can encode, truncated."""
    encodable = text.encode("utf-8", "replace").decode("utf-8")
    return encodable if len(encodable) <= longest else encodable[: longest - 1] + "…"


def _request_id(request: Request) -> str:
    return str(request.scope.get("state", {}).get("request_id", ""))
