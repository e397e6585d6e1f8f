"""Routes of tokens, only where the operator has switched them on."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Response, status
from pydantic import BaseModel, Field

from service.api.access import WithCaller
from service.api.bodies import JsonModel, JsonRoute
from service.api.problems import answers
from service.errors import Conflict
from service.store import Store
from service.store.records import TokenRecord, TokenScope
from service.store.tokens import OF_DEVICE, OF_ISSUER

TokenId = Annotated[int, Path(ge=1, lt=2**31, description="A token's id.")]


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


class TokenIn(JsonModel):
    """A token to make."""

    owner: str = Field(min_length=1, max_length=100, description="Whose studies and data sets it is for.")
    scope: TokenScope = Field(
        description="`read`: look at what is the owner's; `submit`: change it, too; `worker`: only run trials of "
        "external studies; `admin`: everything of everybody, tokens and the dashboard included."
    )
    name: str = Field("", max_length=200, description="What it is for.")
    days: float | None = Field(90.0, gt=0, le=36_500, description="Days until it expires; null for never.")


def router(store: Store) -> APIRouter:
    """/v1/tokens, for admins, and /v1/token, which is a caller's own."""
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

    @routes.delete("/v1/token", responses=answers(401, 409))
    def end_own_token(caller: WithCaller) -> TokenOut:
        """End the token of this request, if a sign-in has made it; one that an admin has made may be that of others, too."""
        token = caller.token
        assert token is not None, "without one the request has been refused"
        if token.name != OF_ISSUER and not token.name.startswith(OF_DEVICE):
            raise Conflict(f"token {token.id} was made by an admin, perhaps for other programs too: only an admin ends it")
        return TokenOut.of(store.tokens.revoke(token.id))

    return routes
