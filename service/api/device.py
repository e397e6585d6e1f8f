"""Signing in a command line: it shows a code, which a person confirms in any browser (`confirming`), and gets a token.

Any issuer does, as the service itself has both ends of the flow. Reference: RFC 8628.
"""

from __future__ import annotations

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any, Literal, get_args

from fastapi import APIRouter, Form, Request, Response
from pydantic import BaseModel, Field
from pydantic.json_schema import SkipJsonSchema

from service.api.access import DEVICE, DEVICE_BEGIN, DEVICE_TOKEN
from service.api.bodies import OAuthRoute, storable
from service.api.problems import answers, problem
from service.api.rates import Buckets
from service.errors import TooMany
from service.settings import Settings
from service.store import Store
from service.store.actors import Actor, AuditEntry
from service.store.logins import LIFETIME_SECONDS, PAUSE_SECONDS, Answer
from service.store.records import TokenRecord, TokenScope

Grant = Literal["urn:ietf:params:oauth:grant-type:device_code"]
(GRANT,) = get_args(Grant)
_BEGUN_A_MINUTE, _POLLS_A_MINUTE = 20, 600
"""Of an address, which may be a proxy's."""
_DETAILS: dict[Answer, str] = {
    "authorization_pending": "nobody has confirmed the code yet",
    "slow_down": "too soon after the last request: wait five seconds more than before from now on",
    "access_denied": "the sign-in was refused",
    "expired_token": "the code has expired: begin again",
    "invalid_grant": "the device code is unknown, or was used already",
}


class BeginIn(BaseModel):
    """A device that wants to be signed in."""

    client_id: str = Field(min_length=1, max_length=100, description="Program; not checked.")
    scope: TokenScope | SkipJsonSchema[None] = Field(
        None, description="Of the token, at most; default: that of whoever confirms it."
    )
    device: str = Field("", max_length=100, description="What the person is shown, such as the machine's name.")


class BeginOut(BaseModel):
    """What a device shows a person, and what it polls with."""

    device_code: str
    user_code: str
    verification_uri: str
    verification_uri_complete: str
    expires_in: int = Field(description="Seconds for which the codes are good.")
    interval: int = Field(description="Seconds between two polls.")


class PollIn(BaseModel):
    """A poll of a device."""

    grant_type: Grant
    device_code: str = Field(min_length=1, max_length=200)
    client_id: str = Field("regsearch", max_length=100, description="Program; not checked.")


class PollOut(BaseModel):
    """The token of a device."""

    access_token: str
    token_type: Literal["Bearer"] = "Bearer"
    expires_in: int
    scope: TokenScope
    owner: str


_NOT_YET: dict[int | str, dict[str, Any]] = {
    400: {
        "description": "Not yet, or not at all: `error` in the words of RFC 8628.",
        "content": {
            "application/problem+json": {
                "schema": {
                    "allOf": [
                        {"$ref": "#/components/schemas/Problem"},
                        {"properties": {"error": {"enum": [*_DETAILS]}}, "required": ["error"]},
                    ]
                }
            }
        },
    }
}


def router(store: Store, settings: Settings) -> APIRouter:
    """/v1/login/device and /v1/login/token, for devices, which have no token yet."""
    routes = APIRouter(tags=["tokens"], route_class=OAuthRoute)
    begun, polls = Buckets(_BEGUN_A_MINUTE), Buckets(_POLLS_A_MINUTE)

    @routes.post(DEVICE_BEGIN, responses=answers(413, 415, 422))
    def begin(given: Annotated[BeginIn, Form()], request: Request, response: Response) -> BeginOut:
        """Begin to sign in a device (RFC 8628, 3.1): a form, as all clients of OAuth send it."""
        address = _address(request)
        _take(begun, address)
        response.headers["cache-control"] = "no-store"
        code, shown = store.logins.begin(device=_shown(given.device or given.client_id), address=address, scope=given.scope)
        place = f"{settings.public_url.rstrip('/')}{DEVICE}"
        return BeginOut(
            device_code=code,
            user_code=shown,
            verification_uri=place,
            verification_uri_complete=f"{place}?code={shown}",
            expires_in=int(LIFETIME_SECONDS),
            interval=int(PAUSE_SECONDS),
        )

    @routes.post(DEVICE_TOKEN, responses={**_NOT_YET, **answers(413, 415, 422)}, response_model=PollOut)
    def poll(given: Annotated[PollIn, Form()], request: Request, response: Response) -> Any:
        """The device's token, once, after somebody has confirmed its code (RFC 8628, 3.4)."""
        _take(polls, _address(request))
        answer, token, secret = store.logins.poll(given.device_code)
        if token is None:
            refusal = problem(request, HTTPStatus.BAD_REQUEST, _DETAILS[answer], error=answer)
            refusal.headers["cache-control"] = "no-store"
            return refusal
        _put_on_record(store, token, request)
        response.headers["cache-control"] = "no-store"
        assert token.expires_at is not None, "never null"
        left = int((token.expires_at - datetime.now(UTC)).total_seconds())
        return PollOut(access_token=secret, expires_in=max(0, left), scope=token.scope, owner=token.owner)

    return routes


def _put_on_record(store: Store, token: TokenRecord, request: Request) -> None:
    """Write down that a device has got a token, which is what its owner has confirmed."""
    request_id = getattr(request.state, "request_id", "")
    made = f"tokens/{token.id}"
    store.audit.write(AuditEntry(Actor(token.owner, token.id), "POST", DEVICE_TOKEN, made, HTTPStatus.OK, request_id))


def _shown(name: str) -> str:
    """A name as it may be shown on a terminal."""
    return "".join(each if each.isprintable() and storable(each) else "\N{REPLACEMENT CHARACTER}" for each in name)


def _address(request: Request) -> str:
    return request.client.host[:64] if request.client else ""


def _take(buckets: Buckets, address: str) -> None:
    """Count a request of an address.

    Raises:
        TooMany: It is one too many in this minute.
    """
    if wait := buckets.take(address):
        raise TooMany(f"more than {buckets.per_minute} requests in a minute; send it again in {wait} s", wait)
