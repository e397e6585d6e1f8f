"""The page on which a person who is signed in confirms the code that a command line shows, or refuses it.

What the device gets is a token of the person's owner, of the scope that it asks for or else the person's own. The form has
a token against requests from elsewhere, beside the origin's check that all writes have. Reference: RFC 8628, 3.3 and 5.
"""

from __future__ import annotations

import hmac
from http import HTTPStatus
from typing import Any, get_args

from anyio import to_thread
from fastapi import APIRouter, Request, Response

from service.api.access import DEVICE, WithCaller, secret_of
from service.api.rates import Buckets
from service.api.signing_in import form_of, page, template
from service.settings import Settings
from service.store import Store
from service.store.records import LoginRecord, TokenRecord, TokenScope
from service.store.tokens import OF_ISSUER, PREFIX

_CODES_A_MINUTE = 10
"""That an owner may try."""
_WITHIN: dict[TokenScope, tuple[TokenScope, ...]] = {
    "admin": get_args(TokenScope),
    "submit": ("submit", "read", "worker"),
    "read": ("read",),
    "worker": ("worker",),
}
"""Scopes that allow nothing that another one does not."""
_UNKNOWN = HTTPStatus.NOT_FOUND, "No device waits for this code: it is mistyped, was used, or has expired."
_TOO_OFTEN = HTTPStatus.TOO_MANY_REQUESTS, "Too many codes in a minute: try it again in one."
_NOT_FROM_HERE = HTTPStatus.FORBIDDEN, "This form is not of this browser's sign-in: open the page again."
_CONFIRMED = HTTPStatus.OK, "The device is signed in. You can close this page and go back to it."
_REFUSED = HTTPStatus.OK, "The device gets nothing."


def pages(store: Store, settings: Settings) -> APIRouter:
    """/login/device, for whoever is signed in."""
    routes = APIRouter(include_in_schema=False)
    decisions = Decisions(store, settings.oidc_login_hours * 3600)

    @routes.get(DEVICE)
    def look(request: Request, caller: WithCaller, code: str = "") -> Response:
        assert caller.token is not None, "without one the request has been refused"
        return decisions.look(caller.token, secret_of(request.headers), code)

    @routes.post(DEVICE)
    @routes.post(f"{DEVICE}/refuse")
    async def decide(request: Request, caller: WithCaller) -> Response:
        fields = await form_of(request)
        confirmed, secret = request.url.path == DEVICE, secret_of(request.headers)
        assert caller.token is not None, "without one the request has been refused"
        return await to_thread.run_sync(decisions.decide, caller.token, secret, fields, confirmed)

    return routes


class Decisions:
    """What people decide on the page. Thread-safe."""

    def __init__(self, store: Store, seconds: float) -> None:
        """``seconds`` is how long a device is signed in."""
        self._store = store
        self._seconds = seconds
        self._template = template("device")
        self._tried = Buckets(_CODES_A_MINUTE)

    def look(self, by: TokenRecord, secret: str, code: str) -> Response:
        """The device that a code is of, and the buttons; without a code the form for one."""
        if not code:
            return self._told(HTTPStatus.OK, "", asking=True)
        if self._tried.take(by.owner):
            return self._told(*_TOO_OFTEN)
        found = self._store.logins.open(code)
        if found is None:
            return self._told(*_UNKNOWN)
        scope = _granted(found, by)
        if scope is None:
            return self._told(HTTPStatus.FORBIDDEN, f"The device asks for the scope {found.scope}, and you have {by.scope}.")
        shown = {"found": found, "code": code, "csrf": _csrf(secret, code), "owner": by.owner, "scope": scope}
        return self._told(HTTPStatus.OK, "", **shown)

    def decide(self, by: TokenRecord, secret: str, fields: dict[str, str], confirmed: bool) -> Response:
        """Do what a button says."""
        code = fields.get("code", "")
        if not hmac.compare_digest(fields.get("csrf", "").encode(), _csrf(secret, code).encode()):
            return self._told(*_NOT_FROM_HERE)
        if self._tried.take(by.owner):
            return self._told(*_TOO_OFTEN)
        if confirmed:
            return self._told(*(_CONFIRMED if self._confirm(by, secret, code) else _UNKNOWN))
        return self._told(*(_REFUSED if self._store.logins.refuse(code) else _UNKNOWN))

    def _confirm(self, by: TokenRecord, secret: str, code: str) -> bool:
        found = self._store.logins.open(code)
        scope = None if found is None else _granted(found, by)
        until = None if _is_session(by, secret) else by.expires_at
        return scope is not None and self._store.logins.confirm(code, by, scope=scope, seconds=self._seconds, until=until)

    def _told(self, status: HTTPStatus, message: str, **more: Any) -> Response:
        wrong = status != HTTPStatus.OK
        shown = {"message": message, "wrong": wrong, "asking": wrong, "found": None, "code": "", **more}
        return page(self._template.render(shown), status)


def _granted(found: LoginRecord, by: TokenRecord) -> TokenScope | None:
    """The scope that a device gets; None if it asks for more than whoever confirms it has."""
    scope = found.scope or by.scope
    return scope if scope in _WITHIN[by.scope] else None


def _is_session(token: TokenRecord, secret: str) -> bool:
    """Whether somebody has signed in at the issuer with a browser.

    A device that they confirm outlives that sign-in. A token that somebody was given, or a JWT, ends when it ends, and so
    do those that are made with it.
    """
    return token.name == OF_ISSUER and secret.startswith(PREFIX)


def _csrf(secret: str, code: str) -> str:
    """What only a page has that this browser was sent for a code."""
    return hmac.digest(secret.encode(), f"{DEVICE} {code}".encode(), "sha256").hex()
