"""Routes of tokens, and the page on which a browser signs in with one. Only where the operator has switched tokens on."""

from __future__ import annotations

from datetime import datetime
from http import HTTPStatus
from typing import Annotated
from urllib.parse import parse_qs

from fastapi import APIRouter, Path, Request, Response, status
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import BaseModel, ConfigDict, Field

from service.api.access import COOKIE, LOGIN, WithCaller
from service.api.bodies import JsonRoute
from service.api.problems import answers
from service.errors import InvalidInput
from service.store import Store
from service.store.records import TokenRecord, TokenScope

TokenId = Annotated[int, Path(ge=1, lt=2**31, description="A token's id.")]
_MOST_BYTES = 4096
_COOKIE_SECONDS = 30 * 86_400
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"


class TokenOut(BaseModel):
    """A token, without its secret."""

    id: int
    name: str
    owner: str
    scope: TokenScope
    created_at: datetime
    expires_at: datetime | None
    used_at: datetime | None = Field(description="Its last use, to a minute.")
    revoked_at: datetime | None

    @classmethod
    def of(cls, record: TokenRecord) -> TokenOut:
        """The response for a record."""
        return cls.model_validate(record, from_attributes=True)


class NewToken(TokenOut):
    """A token with its secret, which is shown this once."""

    token: str


class TokenIn(BaseModel):
    """A token to make."""

    model_config = ConfigDict(extra="forbid")

    owner: str = Field(min_length=1, max_length=100, description="Whose studies and data sets it is for.")
    scope: TokenScope = Field(
        description="`read`: look at what is the owner's; `submit`: change it, too; `worker`: only run trials of "
        "external studies; `admin`: everything of everybody, tokens and the dashboard included."
    )
    name: str = Field("", max_length=200, description="What it is for.")
    days: float | None = Field(90.0, gt=0, le=36_500, description="Days until it expires; null for never.")


def router(store: Store) -> APIRouter:
    """/v1/tokens, for admins, and /v1/token, which tells a caller its own."""
    routes = APIRouter(tags=["tokens"], route_class=JsonRoute)

    @routes.post("/v1/tokens", status_code=status.HTTP_201_CREATED, responses=answers(401, 403, 413, 415, 422))
    def create_token(given: TokenIn, response: Response) -> NewToken:
        """Make a token; its secret is in this answer only."""
        record, secret = store.tokens.create(**given.model_dump())
        response.headers["Location"] = f"/v1/tokens/{record.id}"
        return NewToken(**TokenOut.of(record).model_dump(), token=secret)

    @routes.get("/v1/tokens", responses=answers(401, 403))
    def list_tokens() -> list[TokenOut]:
        """All tokens, newest first."""
        return [TokenOut.of(record) for record in store.tokens.list()]

    @routes.delete("/v1/tokens/{token_id}", responses=answers(401, 403, 404, 422))
    def revoke_token(token_id: TokenId) -> TokenOut:
        """End a token now."""
        return TokenOut.of(store.tokens.revoke(token_id))

    @routes.get("/v1/token", responses=answers(401))
    def own_token(caller: WithCaller) -> TokenOut:
        """The token of this request."""
        assert caller.token is not None, "without one the request has been refused"
        return TokenOut.of(caller.token)

    return routes


def pages(store: Store) -> APIRouter:
    """/login and /logout, for browsers."""
    routes = APIRouter(include_in_schema=False)
    environment = Environment(loader=PackageLoader("service.api"), autoescape=True, undefined=StrictUndefined)
    template = environment.get_template("login.html.j2")

    def page(following: str, message: str = "", code: int = HTTPStatus.OK) -> Response:
        text = template.render(following=following, message=message)
        return HTMLResponse(text, code, {"content-security-policy": _POLICY, "cache-control": "no-store"})

    @routes.get(LOGIN)
    def login_page(next: str = "/") -> Response:
        return page(_local(next))

    @routes.post(LOGIN)
    async def login(request: Request) -> Response:
        fields = await _form(request)
        following, secret = _local(fields.get("next", "/")), fields.get("token", "").strip()
        if not secret or store.tokens.find(secret) is None:
            return page(following, "This token is unknown, expired or revoked.", HTTPStatus.UNAUTHORIZED)
        answer = RedirectResponse(following, HTTPStatus.SEE_OTHER)
        secure = request.url.scheme == "https"
        answer.set_cookie(COOKIE, secret, max_age=_COOKIE_SECONDS, httponly=True, samesite="strict", secure=secure)
        return answer

    @routes.post("/logout")
    def logout() -> Response:
        answer = RedirectResponse(LOGIN, HTTPStatus.SEE_OTHER)
        answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return answer

    return routes


async def _form(request: Request) -> dict[str, str]:
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
