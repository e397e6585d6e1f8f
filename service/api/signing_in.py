"""Pages on which browsers sign in and out, with a token or at the operator's issuer. Only where tokens are switched on.

The cookie of a browser that has signed in is sent by no other site's page, not even by one that leads here
(`SameSite=Strict`). So whoever comes back from the issuer gets a page that goes on by itself. What a sign-in must come back
with is in a cookie of ten minutes, and only a browser that began it can end it.
"""

from __future__ import annotations

import base64
import json
import secrets
from dataclasses import asdict
from http import HTTPStatus
from urllib.parse import parse_qs

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from service.api.access import CALLBACK, COOKIE, LOGIN, SIGN_IN, secret_of
from service.api.oidc import Attempt, Issuer, NotKnown
from service.errors import InvalidInput, NotReady
from service.settings import Settings
from service.store import Store
from service.store.tokens import OF_ISSUER

_MOST_BYTES = 4096
_COOKIE_SECONDS = 30 * 86_400
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
_ATTEMPT, _ATTEMPT_SECONDS = "regsearch_sign_in", 600


def template(name: str) -> Template:
    """A page's template."""
    environment = Environment(loader=PackageLoader("service.api"), autoescape=True, undefined=StrictUndefined)
    return environment.get_template(f"{name}.html.j2")


def page(text: str, code: int) -> Response:
    """An answer that is a page, which nobody keeps, frames or runs scripts in."""
    return HTMLResponse(text, code, {"content-security-policy": _POLICY, "cache-control": "no-store"})


class Pages:
    """The pages by template."""

    def __init__(self, *, issuer: bool) -> None:
        self._login = template("login")
        self._onward = template("onward")
        self._issuer = issuer

    def login(self, following: str, message: str = "", code: int = HTTPStatus.OK) -> Response:
        """The form, and the link to the issuer if there is one."""
        text = self._login.render(following=following, message=message, issuer=SIGN_IN if self._issuer else None)
        return page(text, code)

    def onward(self, place: str) -> Response:
        """A page that goes on to another address by itself."""
        return page(self._onward.render(place=place), HTTPStatus.OK)


def pages(store: Store, issuer: Issuer | None, settings: Settings) -> APIRouter:
    """/login and /logout, and the way to the issuer and back."""
    routes = APIRouter(include_in_schema=False)
    shown = Pages(issuer=issuer is not None)

    @routes.get(LOGIN)
    def login_page(next: str = "/") -> Response:
        return shown.login(_local(next))

    @routes.post(LOGIN)
    async def login(request: Request) -> Response:
        fields = await form_of(request)
        following, secret = _local(fields.get("next", "/")), fields.get("token", "").strip()
        if not secret or store.tokens.find(secret) is None:
            return shown.login(following, "This token is unknown, expired or revoked.", HTTPStatus.UNAUTHORIZED)
        answer = RedirectResponse(following, HTTPStatus.SEE_OTHER)
        _keep(answer, request, secret, _COOKIE_SECONDS)
        return answer

    @routes.post("/logout")
    def logout(request: Request) -> Response:
        token = store.tokens.find(secret_of(request.headers))
        answer: Response = RedirectResponse(LOGIN, HTTPStatus.SEE_OTHER)
        if token is not None and token.name == OF_ISSUER:
            store.tokens.revoke(token.id)
            place = _sign_out(issuer)
            answer = answer if place is None else shown.onward(place)
        answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return answer

    if issuer is not None:
        _by_issuer(routes, store, issuer, shown, settings)
    return routes


def _by_issuer(routes: APIRouter, store: Store, issuer: Issuer, shown: Pages, settings: Settings) -> None:
    @routes.get(SIGN_IN)
    def begin(request: Request, next: str = "/") -> Response:
        try:
            url, attempt = issuer.authorize()
        except NotReady as error:
            return shown.login(_local(next), f"{error}.", HTTPStatus.SERVICE_UNAVAILABLE)
        answer = RedirectResponse(url, HTTPStatus.SEE_OTHER)
        kept = base64.urlsafe_b64encode(json.dumps({**asdict(attempt), "next": _local(next)}).encode()).decode()
        secure = request.url.scheme == "https"
        answer.set_cookie(
            _ATTEMPT, kept, max_age=_ATTEMPT_SECONDS, httponly=True, samesite="lax", secure=secure, path=CALLBACK
        )
        return answer

    @routes.get(CALLBACK)
    def come_back(request: Request, code: str = "", state: str = "", error: str = "") -> Response:
        kept = _attempt(request.cookies.get(_ATTEMPT, ""))
        if kept is None or not secrets.compare_digest(kept[0].state.encode(), state.encode()):
            answer = shown.login("/", "This sign-in was not begun in this browser, or long ago.", HTTPStatus.BAD_REQUEST)
        else:
            answer = come_in(request, code, kept, error)
        answer.delete_cookie(_ATTEMPT, httponly=True, samesite="lax", path=CALLBACK)
        return answer

    def come_in(request: Request, code: str, kept: tuple[Attempt, str], error: str) -> Response:
        attempt, following = kept
        try:
            if error or not code:
                raise NotKnown(f"the issuer has refused the sign-in: {error[:100] or 'no code'}")
            person = issuer.signed_in(code, attempt)
        except NotKnown as refused:
            return shown.login(following, f"{refused}.", HTTPStatus.FORBIDDEN)
        except NotReady as away:
            return shown.login(following, f"{away}.", HTTPStatus.SERVICE_UNAVAILABLE)
        hours = settings.oidc_session_hours
        _, secret = store.tokens.create(owner=person.owner, scope=person.scope, name=OF_ISSUER, days=hours / 24)
        answer = shown.onward(following)
        _keep(answer, request, secret, int(hours * 3600))
        return answer


def _keep(answer: Response, request: Request, secret: str, seconds: int) -> None:
    secure = request.url.scheme == "https"
    answer.set_cookie(COOKIE, secret, max_age=seconds, httponly=True, samesite="strict", secure=secure)


def _attempt(cookie: str) -> tuple[Attempt, str] | None:
    """The sign-in that a browser has begun, and where it goes then."""
    try:
        kept = {str(name): str(value) for name, value in json.loads(base64.urlsafe_b64decode(cookie)).items()}
        return Attempt(kept["state"], kept["nonce"], kept["verifier"]), _local(kept["next"])
    except (ValueError, KeyError, AttributeError):
        return None


def _sign_out(issuer: Issuer | None) -> str | None:
    try:
        return issuer.sign_out() if issuer is not None else None
    except NotReady:
        return None


async def form_of(request: Request) -> dict[str, str]:
    """The fields of a small form."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _MOST_BYTES:
            raise InvalidInput.one("body", f"is larger than {_MOST_BYTES} bytes", allowed="a token")
    return {name: values[0] for name, values in parse_qs(body.decode("utf-8", "replace")).items()}


def _local(following: str) -> str:
    r"""A path of ours to go to after signing in; the start for anything that leads elsewhere.

    >>> [_local(path) for path in ("/dashboard", "//evil.example", "https://evil.example", "/\\evil.example", "x")]
    ['/dashboard', '/', '/', '/', '/']
    """
    good = following.startswith("/") and not following.startswith(("//", "/\\")) and following.isprintable()
    return following if good else "/"
