"""Who may do what: tokens with scopes, and everybody's own studies and data sets.

Everything is decided here, before a route is reached, by method and path, so that no route can forget it: without a valid
token 401, with too small a scope 403, and what belongs to somebody else does not exist (404). Routes that make or list
something learn their `Caller`. A browser has its token in a cookie, which other sites' pages do not send (`SameSite`), and
whose changing requests `foreign` refuses by their origin.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated
from urllib.parse import quote

from anyio import to_thread
from fastapi import Depends, Request
from pydantic import TypeAdapter, ValidationError
from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.bodies import storable
from service.api.oidc import Issuer, token_of
from service.api.problems import RETRY_SECONDS, problem
from service.api.reference import REFERENCE
from service.datasets import BUILTIN
from service.errors import DatabaseUnavailable, NotFound, NotReady
from service.store import Store
from service.store.actors import NOBODY, Actor
from service.store.datasets import DEFAULT_OWNER
from service.store.records import TokenRecord, TokenScope
from service.store.sharing import Reach

COOKIE = "regsearch_token"
LOGIN = "/login"
SIGN_IN, CALLBACK = "/login/oidc", "/login/callback"
DEVICE = "/login/device"
"""Where a person confirms the sign-in of a device."""
DEVICE_BEGIN, DEVICE_TOKEN = "/v1/login/device", "/v1/login/token"
_SIGNING_IN = frozenset({LOGIN, SIGN_IN, CALLBACK, "/logout", DEVICE_BEGIN, DEVICE_TOKEN})
OPEN = frozenset({"/healthz", "/readyz", "/openapi.json", *REFERENCE, "/favicon.ico"}) | _SIGNING_IN
"""Paths that need no token: they tell nothing of anybody's."""

_READ = frozenset({"GET", "HEAD"})
_ALL: frozenset[TokenScope] = frozenset({"read", "submit", "worker", "admin"})
_NUMBER = TypeAdapter(int)
_OBJECT = re.compile(r"/(?:v1/)?(studies|datasets|webhooks)/([^/]+)(/.*)?")


@dataclass(frozen=True)
class Caller:
    """Who has sent a request. ``owner`` is whose studies it may see and make; None for everybody's."""

    owner: str | None = None
    token: TokenRecord | None = None

    @property
    def actor(self) -> Actor:
        """Who it is, for what is written down of its changes."""
        return NOBODY if self.token is None else Actor(self.token.owner, self.token.id)

    @property
    def whose(self) -> str:
        """Whose the things are that it makes."""
        return DEFAULT_OWNER if self.token is None else self.token.owner


EVERYBODY = Caller()
"""Where there are no tokens."""


async def caller_of(request: Request) -> Caller:
    """Who has sent a request. A plain function would be called in another thread."""
    caller: Caller = getattr(request.state, "caller", EVERYBODY)
    return caller


WithCaller = Annotated[Caller, Depends(caller_of)]


def scopes_for(method: str, path: str) -> frozenset[TokenScope]:
    """The scopes of which a request needs one.

    >>> sorted(scopes_for("GET", "/v1/studies/3/result")), sorted(scopes_for("POST", "/v1/studies"))
    (['admin', 'read', 'submit'], ['admin', 'submit'])
    >>> sorted(scopes_for("POST", "/v1/studies/3/trials:ask")), sorted(scopes_for("GET", "/dashboard"))
    (['admin', 'submit', 'worker'], ['admin'])
    """
    if path == "/v1/token" or path in (DEVICE, f"{DEVICE}/refuse"):
        return _ALL
    if not path.startswith("/v1/"):
        pages = path in ("/", "/new", "/compare", "/metrics") or path.startswith("/studies/")
        return _ALL - {"worker"} if pages and method in _READ else frozenset({"admin"})
    if path.startswith(("/v1/tokens", "/v1/workers", "/v1/prune")):
        return frozenset({"admin"})
    found = _OBJECT.fullmatch(path)
    rest = found[3] or "" if found else None
    if rest is not None and rest.startswith("/trials:"):
        return _ALL - {"read"}
    if method in _READ and not path.startswith("/v1/webhooks"):  # whose addresses may be secrets
        return _ALL if found and found[1] == "studies" and rest == "" else _ALL - {"worker"}
    return frozenset({"submit", "admin"})


class Access:
    """ASGI middleware: finds the token of a request, checks its scope and the owner of what the path names."""

    def __init__(self, app: ASGIApp, store: Store, issuer: Issuer | None = None, audience: str | None = None) -> None:
        """``issuer`` is the operator's, whose JWTs for ``audience`` are accepted."""
        self._app = app
        self._store = store
        self._issuer = issuer
        self._audience = audience

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer or pass on."""
        if scope["type"] != "http" or scope["path"] in OPEN:
            await self._app(scope, receive, send)
            return
        try:
            answer = await to_thread.run_sync(self._refusal, scope)
        except (DatabaseUnavailable, NotReady) as error:
            answer = problem(Request(scope), HTTPStatus.SERVICE_UNAVAILABLE, str(error))
            answer.headers["retry-after"] = str(RETRY_SECONDS)
        await (answer or self._app)(scope, receive, send)

    def _refusal(self, scope: Scope) -> ASGIApp | None:
        """The answer to a request that is not allowed; None for one that is."""
        headers = Headers(scope=scope)
        secret = secret_of(headers)
        token = token_of(secret, self._issuer, self._store, self._audience) if secret else None
        if token is None:
            if scope["method"] == "GET" and "text/html" in headers.get("accept", ""):
                query = scope.get("query_string", b"").decode("latin-1")
                following = f"{scope['path']}?{query}" if query else scope["path"]
                return RedirectResponse(f"{LOGIN}?next={quote(following)}", HTTPStatus.SEE_OTHER)
            why = "the token is unknown, expired or revoked" if secret else "a token is needed"
            detail = f"{why}: send it as `Authorization: Bearer TOKEN`"
            answer = problem(Request(scope), HTTPStatus.UNAUTHORIZED, detail)
            answer.headers["www-authenticate"] = "Bearer"
            return answer
        scope.setdefault("state", {})["caller"] = Caller(None if token.scope == "admin" else token.owner, token)
        needed = scopes_for(scope["method"], scope["path"])
        if token.scope not in needed:
            detail = f"the token's scope is {token.scope}; this request needs one of: {', '.join(sorted(needed))}"
            return problem(Request(scope), HTTPStatus.FORBIDDEN, detail)
        try:
            reach = self._reach(scope["path"], token)
        except NotFound as error:
            return problem(Request(scope), HTTPStatus.NOT_FOUND, str(error))
        if reach == "shared" and (scope["method"] not in _READ or scope["path"].rstrip("/").endswith("/sharing")):
            detail = "it is shared with the token's owner to be read; only its own owner may change it"
            return problem(Request(scope), HTTPStatus.FORBIDDEN, detail)
        return None

    def _reach(self, path: str, token: TokenRecord) -> Reach:
        """How what a path names can be reached with a token: as its owner's own, or as shared with it.

        Raises:
            NotFound: There is none, or it is somebody else's.
        """
        found = _OBJECT.fullmatch(path)
        if token.scope == "admin" or found is None:
            return "own"
        kind, key = found[1], found[2]
        if kind == "datasets":
            if key in BUILTIN or not storable(key):  # the route refuses what no database can hold
                return "own"
            reach, what = self._store.sharing.reach_of_dataset(key, token.owner), "data set"
        else:
            try:
                key = _NUMBER.validate_python(key)  # as the route reads it: `+7` is 7, too
            except ValidationError:
                return "own"  # the route refuses it
            reach, what = self._reach_of_number(kind, key, token.owner)
        if reach is None:
            raise NotFound(what, key)
        return reach

    def _reach_of_number(self, kind: str, number: int, owner: str) -> tuple[Reach, str]:
        what = "study" if kind == "studies" else "webhook"
        if not 0 < number < 2**31:
            return None, what
        if kind == "studies":
            return self._store.sharing.reach_of_study(number, owner), what
        return "own" if self._store.webhooks.owner(number) == owner else None, what


def secret_of(headers: Mapping[str, str]) -> str:
    """The token of a request, of its header or of a browser's cookie; "" if it has none."""
    kind, _, given = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return given.strip()
    return cookie_parser(headers.get("cookie", "")).get(COOKIE, "")
