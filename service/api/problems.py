"""Every error answer of the API in one shape: RFC 9457 problem documents, with one entry per thing wrong.

One table says which failure has which status. No traceback leaves the process: an unexpected error is logged under the
request's id, and the id is what the client gets.
"""

from __future__ import annotations

import difflib
import logging
import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, ValidationError
from starlette.exceptions import HTTPException

from service import errors
from service.spec import StudySpec

log = logging.getLogger(__name__)

STATUS: Mapping[type[errors.RegsearchError], HTTPStatus] = {
    errors.TooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.InvalidInput: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.NotFound: HTTPStatus.NOT_FOUND,
    errors.Conflict: HTTPStatus.CONFLICT,
    errors.LeaseLost: HTTPStatus.CONFLICT,
    errors.DatabaseUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
}

MEDIA_TYPE = "application/problem+json"
_LONGEST_VALUE = 200


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


def install(app: FastAPI) -> None:
    """Answer every failure of ``app`` with a problem document."""

    def expected(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, errors.RegsearchError)
        status = next((code for kind, code in STATUS.items() if isinstance(error, kind)), HTTPStatus.BAD_REQUEST)
        found = error.issues if isinstance(error, errors.InvalidInput) else ()
        return problem(request, status, str(error), found)

    def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        found = issues_of(error.errors())
        return problem(request, HTTPStatus.UNPROCESSABLE_ENTITY, "; ".join(map(str, found)), found)

    def http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        status = HTTPStatus(error.status_code)
        answer = problem(request, status, f"{request.method} {request.url.path}: {error.detail}")
        answer.headers.update(error.headers or {})
        return answer

    def unexpected(request: Request, error: Exception) -> JSONResponse:
        log.error("unexpected error", exc_info=error, extra={"request_id": _request_id(request)})
        status = HTTPStatus.INTERNAL_SERVER_ERROR
        return problem(request, status, f"an unexpected error; the log has it under request {_request_id(request)}")

    app.add_exception_handler(errors.RegsearchError, expected)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, unexpected)


def problem(request: Request, status: HTTPStatus, detail: str, found: Sequence[errors.Issue] = ()) -> JSONResponse:
    """A problem document as a response."""
    document = Problem(
        title=status.phrase,
        status=status.value,
        detail=detail,
        instance=request.url.path,
        request_id=_request_id(request),
        errors=[
            ProblemIssue(field=issue.field, message=issue.message, value=_plain(issue.value), allowed=_plain(issue.allowed))
            for issue in found
        ],
    )
    return JSONResponse(document.model_dump(), status.value, media_type=MEDIA_TYPE)


def validation_issues(error: ValidationError) -> list[errors.Issue]:
    """What a failed validation outside of a request body has found."""
    return issues_of(error.errors(include_url=False))


def issues_of(found: Sequence[Any]) -> list[errors.Issue]:
    """Pydantic's errors as issues: dotted field, value, and what is allowed."""
    return [_issue(error) for error in found]


def _issue(error: Mapping[str, Any]) -> errors.Issue:
    context = error.get("ctx") or {}
    parts = [part for part in error["loc"] if part not in ("body", "query", "path")]
    key = context.get("key")
    model, names = _walk(parts)
    field = ".".join([*names, key] if key else names) or "body"
    value = context.get("value", error.get("input"))
    if error["type"] == "extra_forbidden" and model is not None:
        known = sorted(model.model_fields)
        close = difflib.get_close_matches(str(parts[-1]), known, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        return errors.Issue(field, f"is not a known key{hint}", value, known)
    if error["type"] == "json_invalid":
        return errors.Issue("body", f"is not valid JSON: {context.get('error', '')}", None, "a JSON object")
    if error["type"] == "missing":
        return errors.Issue(field, "is required", None, error["msg"])
    return errors.Issue(field, error["msg"], value, _allowed(error["type"], context))


def _allowed(kind: str, context: Mapping[str, Any]) -> object:
    """What would have been right, from the constraint that failed."""
    signs = {"greater_than_equal": "≥", "greater_than": ">", "less_than_equal": "≤", "less_than": "<"}
    if kind in signs:
        return f"{signs[kind]} {next(iter(context.values()))}"
    for name in ("allowed", "expected", "expected_tags", "pattern", "class_name"):
        if name in context:
            return context[name]
    return kind.replace("_", " ")


def _walk(parts: Sequence[int | str]) -> tuple[type[BaseModel] | None, list[str]]:
    """Follow an error's location through the spec; tags of unions, which are no keys, are left out of the path.

    Returns:
        The model that holds the last key (None outside of a spec), and the path as a user would write it.
    """
    model: type[BaseModel] | None = StudySpec
    names: list[str] = []
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        if model is None or isinstance(part, int):
            names.append(str(part))
            continue
        if part not in model.model_fields:
            inner = _member(model, part)
            if inner is not None and not last:
                model = inner
                continue
            names.append(str(part))
            continue
        names.append(str(part))
        if not last:
            model = _model_of(model.model_fields[part].annotation, parts[index + 1]) or model
    return model, names


def _member(model: type[BaseModel], tag: str) -> type[BaseModel] | None:
    """The model itself, if ``tag`` is its name in a tagged union."""
    name = model.model_fields.get("name")
    return model if name is not None and name.default == tag else None


def _model_of(annotation: Any, following: int | str) -> type[BaseModel] | None:
    """The model behind a field's annotation; in a union the one whose tag comes next, or the first."""
    models = [kind for kind in _flatten(annotation) if isinstance(kind, type) and issubclass(kind, BaseModel)]
    tagged = [kind for kind in models if isinstance(following, str) and _member(kind, following)]
    return next(iter(tagged or models), None)


def _flatten(annotation: Any) -> list[Any]:
    inner = getattr(annotation, "__args__", None)
    return [annotation] if inner is None else [kind for part in inner for kind in _flatten(part)]


def _plain(value: Any) -> Any:
    """A value as JSON can show it, shortened."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"


def _request_id(request: Request) -> str:
    return str(request.scope.get("state", {}).get("request_id", ""))
