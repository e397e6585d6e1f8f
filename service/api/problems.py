"""Every error answer of the API in one shape: RFC 9457 problem documents, with one entry per thing wrong.

One table says which failure has which status. No traceback leaves the process: an unexpected error is logged under the
request's id, and the id is what the client gets.
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

from service import errors
from service.api.issues import request_issues
from service.api.models import ExtendIn
from service.spec import StudySpec

log = logging.getLogger(__name__)


class WrongMediaType(errors.InvalidInput):
    """A body of another kind than the route reads."""


STATUS: Mapping[type[errors.RegsearchError], HTTPStatus] = {
    WrongMediaType: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    errors.TooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.InvalidInput: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.NotFound: HTTPStatus.NOT_FOUND,
    errors.Conflict: HTTPStatus.CONFLICT,
    errors.LeaseLost: HTTPStatus.CONFLICT,
    errors.DatabaseUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
}

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 5
_LONGEST_TEXT = 2000
_LONGEST_VALUE = 200
_MOST_ITEMS = 1000
_DEEPEST = 8

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
    """One thing wrong: the field, the value it had, and what it may be."""

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
    """A body longer than its route reads; raised while it arrives, so that the rest is never stored."""

    def __init__(self, limit: int) -> None:
        super().__init__(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        self.issue = errors.Issue("body", f"is larger than {limit} bytes", None, f"at most {limit} bytes")


def install(app: FastAPI) -> None:
    """Answer every failure of ``app`` with a problem document."""

    def expected(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, errors.RegsearchError)
        status = next((code for kind, code in STATUS.items() if isinstance(error, kind)), HTTPStatus.BAD_REQUEST)
        found = error.issues if isinstance(error, errors.InvalidInput) else ()
        answer = problem(request, status, str(error), found)
        if isinstance(error, errors.DatabaseUnavailable | errors.NotYet):
            answer.headers["retry-after"] = str(RETRY_SECONDS)
        return answer

    def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        found = request_issues(error.errors(), ExtendIn if request.url.path.endswith("/extend") else StudySpec)
        return problem(request, HTTPStatus.UNPROCESSABLE_ENTITY, "; ".join(map(str, found)), found)

    def http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        status = HTTPStatus(error.status_code)
        if isinstance(error, BodyTooLarge):
            return problem(request, status, str(error.issue), (error.issue,))
        answer = problem(request, status, f"{request.method} {request.url.path}: {error.detail}")
        answer.headers.update(error.headers or {})
        return answer

    def unexpected(request: Request, error: Exception) -> JSONResponse:
        log.error("unexpected error", exc_info=error, extra={"request_id": _request_id(request)})
        status = HTTPStatus.INTERNAL_SERVER_ERROR
        answer = problem(request, status, f"an unexpected error; the log has it under request {_request_id(request)}")
        # This answer is made outside of every middleware, so the one that adds the header to others does not see it.
        answer.headers["x-request-id"] = _request_id(request)
        return answer

    app.add_exception_handler(errors.RegsearchError, expected)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, unexpected)


def answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problem documents that a route may answer with, for the OpenAPI document."""
    schema = {"$ref": f"#/components/schemas/{Problem.__name__}"}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": {MEDIA_TYPE: {"schema": schema}}}
        for status in (*statuses, 500, 503)
    }


def problem(request: Request, status: HTTPStatus, detail: str, found: Sequence[errors.Issue] = ()) -> JSONResponse:
    """A problem document as a response."""
    document = Problem(
        title=status.phrase,
        status=status.value,
        detail=_text(detail, _LONGEST_TEXT),
        instance=request.url.path,
        request_id=_request_id(request),
        errors=[
            ProblemIssue(
                field=_text(issue.field, _LONGEST_VALUE),
                message=_text(issue.message, _LONGEST_TEXT),
                value=_plain(issue.value, _LONGEST_VALUE),
                allowed=_plain(issue.allowed, _LONGEST_TEXT),
            )
            for issue in found
        ],
    )
    return JSONResponse(document.model_dump(), status.value, media_type=MEDIA_TYPE)


def _plain(value: Any, longest: int, depth: int = 0) -> Any:
    """A value as JSON can show it, shortened."""
    if value is None or isinstance(value, bool) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, int) and abs(value) < 2**63:
        return value
    if isinstance(value, list | tuple | Mapping) and depth == _DEEPEST:
        return "…"
    if isinstance(value, list | tuple):
        return [_plain(each, longest, depth + 1) for each in value[:_MOST_ITEMS]]
    if isinstance(value, Mapping):
        return {_text(str(name), longest): _plain(each, longest, depth + 1) for name, each in value.items()}
    return _text(value if isinstance(value, str) else str(value), longest)


def _text(text: str, longest: int) -> str:
    """Text that UTF-8 can carry, shortened."""
    carried = text.encode("utf-8", "replace").decode("utf-8")
    return carried if len(carried) <= longest else carried[: longest - 1] + "…"


def _request_id(request: Request) -> str:
    return str(request.scope.get("state", {}).get("request_id", ""))
