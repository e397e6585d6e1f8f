"""Checks of request bodies before they are parsed: maximum length, media type, strict JSON.

Python's JSON reader accepts more than RFC 8259 allows (NaN, Infinity), and some of what RFC 8259 allows can't be stored
(lone surrogates, and NUL, which PostgreSQL rejects). All of it is reported with its field, like any other error.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial, wraps
from http import HTTPStatus
from typing import Any, ClassVar, NoReturn

from anyio import to_thread
from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, field_validator
from pydantic_core import PydanticCustomError
from starlette.datastructures import Headers
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.problems import BodyTooLarge, WrongMediaType, problem
from service.errors import InvalidInput

MAX_JSON_BYTES = 2**20
MULTIPART_OVERHEAD = 2**16
_MAX_DEPTH = 16
_MAX_DIGITS = 40
_JSON = ("application/json", "+json")


class BodyLimit:
    """ASGI middleware that rejects a body above its limit, by declared length or on arrival; the rest is not read."""

    def __init__(self, app: ASGIApp, *, uploads: Mapping[str, int]) -> None:
        """``uploads`` are the most bytes of a file by the paths that take one."""
        self._app = app
        self._uploads = uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count the bytes of a request's body; the dashboard's paths have their own guard."""
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        most = self._uploads.get(scope["path"].rstrip("/"))
        is_upload = most is not None and not _media_type(headers.get("content-type", "")).endswith(_JSON)
        limit = most + MULTIPART_OVERHEAD if most is not None and is_upload else MAX_JSON_BYTES
        declared = headers.get("content-length", "0")
        if declared.isdecimal() and int(declared) > limit:
            issue = BodyTooLarge(limit).issue
            answer = problem(Request(scope), HTTPStatus.REQUEST_ENTITY_TOO_LARGE, str(issue), (issue,))
            await answer(scope, receive, send)
            return
        length = 0

        async def counted() -> Message:
            nonlocal length
            message = await receive()
            length += len(message.get("body", b""))
            if length > limit:
                raise BodyTooLarge(limit)
            return message

        await self._app(scope, counted, send)


def in_thread(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    """An endpoint that runs in another thread, if it is a plain function.

    FastAPI would do the same, but then send the answer to another thread once more, to validate it.
    """
    if inspect.iscoroutinefunction(endpoint):
        return endpoint

    @wraps(endpoint)
    async def sent(**given: Any) -> Any:
        return await to_thread.run_sync(partial(endpoint, **given))

    return sent


class JsonModel(BaseModel):
    """A body, or a part of one, of types that are not converted: `false` is no number of days, and 0 not `false`.

    JSON does not tell 3.0 and 3 apart, so both are integers.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    @field_validator("*", mode="before")
    @classmethod
    def _integer(cls, given: Any) -> Any:
        return int(given) if isinstance(given, float) and given.is_integer() else given


class JsonRoute(APIRoute):
    """A route whose body, if any, must be strict JSON."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, in_thread(endpoint), **options)

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        """FastAPI's handler, preceded by the checks of this module."""
        handle = super().get_route_handler()

        async def strict(request: Request) -> Response:
            if self.body_field is not None and (body := await request.body()):
                _require_media_type(request, *_JSON)
                check_json(body)
            elif request.headers.get("content-type"):  # a command without a body is no target for forms either
                _require_media_type(request, *_JSON)
            return await handle(request)

        return strict


class OnlyJsonRoute(JsonRoute):
    """A route that does not exist for other media types, for which the next one of its path and method is tried."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether path, method and media type are its own."""
        match, child = super().matches(scope)
        media_type = _media_type(Headers(scope=scope).get("content-type", ""))
        return (match, child) if media_type.endswith(_JSON) else (Match.NONE, {})


class FormRoute(APIRoute):
    """A route whose body, if any, must be a multipart form."""

    MEDIA_TYPES: ClassVar[tuple[str, ...]] = ("multipart/form-data", "application/json")

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        """FastAPI's handler, preceded by the checks of this module."""
        handle = super().get_route_handler()

        async def strict(request: Request) -> Response:
            if self.body_field is not None and request.headers.get("content-type"):
                _require_media_type(request, *self.MEDIA_TYPES)
            return await handle(request)

        return strict


class OAuthRoute(FormRoute):
    """A route of a protocol whose bodies are forms (RFC 6749)."""

    MEDIA_TYPES = ("application/x-www-form-urlencoded",)


def _media_type(given: str) -> str:
    return given.split(";", maxsplit=1)[0].strip().lower()


def _require_media_type(request: Request, *allowed: str) -> None:
    given = request.headers.get("content-type", "")
    if not _media_type(given).endswith(allowed):
        wanted = " or ".join(each for each in allowed if "/" in each)
        raise WrongMediaType.one(
            "content-type", f"is {given or 'missing'}, not {wanted}", value=given or None, allowed=wanted
        )


def check_json(body: bytes) -> None:
    """Check that a body is JSON whose values can be stored and returned.

    Raises:
        InvalidInput: With the dotted path of the first error.
    """
    try:
        document = json.loads(body, parse_int=_integer, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        _refuse((), f"is not valid JSON: {error.msg} (line {error.lineno}, column {error.colno})", None, "a JSON object")
    except UnicodeDecodeError:
        _refuse((), "is not valid UTF-8", None, "a JSON object in UTF-8")
    except RecursionError:
        _refuse((), "is nested too deeply", None, f"at most {_MAX_DEPTH} levels")
    _check(document, ())


def _integer(text: str) -> float:
    """Parse an integer; one with more digits than any setting has becomes infinity, which `_check` rejects by its field."""
    return int(text) if len(text) <= _MAX_DIGITS else math.inf


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object; of duplicate keys, which are an error here, Python would silently keep the last."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise InvalidInput.one(key, "is given twice", value=value, allowed="each key once")
        found[key] = value
    return found


def _check(value: Any, path: tuple[str, ...]) -> None:
    if len(path) > _MAX_DEPTH:
        _refuse(path[:3], "is nested too deeply", None, f"at most {_MAX_DEPTH} levels")
    match value:
        case float() if not math.isfinite(value):
            _refuse(path, "is not a finite number", str(value), "a finite number")
        case str():
            _check_text(value, path)
        case list():
            for index, each in enumerate(value):
                _check(each, (*path, str(index)))
        case dict():
            for key, each in value.items():
                _check_text(key, path)
                _check(each, (*path, key))


def _check_text(text: str, path: tuple[str, ...]) -> None:
    if not storable(text):
        _refuse(path, "contains NUL or a lone surrogate", text, "text without NUL and lone surrogates")


def storable(text: str) -> bool:
    """Whether both databases can store a text and UTF-8 can encode it."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def storable_text(text: str | None) -> str | None:
    """A text of a query that both databases can hold.

    Raises:
        PydanticCustomError: It has NUL or a lone surrogate.
    """
    if text is not None and not storable(text):
        raise PydanticCustomError("text", "contains NUL or a lone surrogate", {"allowed": "text without them"})
    return text


def _refuse(path: Sequence[str], message: str, value: object, allowed: str) -> NoReturn:
    raise InvalidInput.one(".".join(path) or "body", message, value=value, allowed=allowed)
