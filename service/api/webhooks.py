"""Routes of webhooks: whom the service tells what has happened."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Response, status
from pydantic import AfterValidator, BaseModel, Field

from service.addresses import parse_address
from service.api.access import WithCaller
from service.api.bodies import JsonModel, JsonRoute, storable_text
from service.api.idempotency import WithKey
from service.api.problems import answers
from service.api.queries import LINKED, WithPage
from service.errors import InvalidInput
from service.store import Store
from service.store.happenings import EventKind
from service.store.webhooks import DeliveryRecord, DeliveryState, WebhookRecord
from service.webhooks.signing import new_secret

WebhookId = Annotated[int, Path(ge=1, lt=2**31, description="A webhook's id.")]
DeliveryId = Annotated[int, Path(ge=1, lt=2**31, description="A delivery's id.")]
TEST = "webhook.test"
_HOUR = 3600.0


def _url(url: str) -> str:
    try:
        address = parse_address(url, "url")
    except InvalidInput as error:
        raise ValueError(f"{error.issues[0].message}; allowed: {error.issues[0].allowed}") from None
    if not address.is_web:
        raise ValueError("must be an address of a web server, such as https://example.org/hook")
    return url


Url = Annotated[str, Field(max_length=2000, description="Where requests are sent."), AfterValidator(_url)]
Events = Annotated[
    list[EventKind | Literal["*"]], Field(min_length=1, max_length=20, description="Of what it is told; `*`: everything.")
]
Description = Annotated[str, Field(max_length=200, description="What it is for."), AfterValidator(storable_text)]


class WebhookIn(JsonModel):
    """A webhook to make."""

    url: Url
    events: Events = Field(["study.finished", "study.failed"])
    description: Description = ""
    everyone: bool = Field(False, description="What happens to everybody's studies, not only the owner's; for admins.")


class WebhookPatch(JsonModel):
    """What is to change of a webhook; what is not named stays as it is."""

    url: Url | None = None
    events: Events | None = None
    description: Description | None = None
    enabled: bool | None = Field(None, description="Enabled again, it has a new begin; what it missed is not sent.")


class RotateIn(JsonModel):
    """How to change a secret."""

    overlap_hours: float = Field(24.0, ge=0, le=720, description="For how long requests are signed by the old one, too.")


class WebhookOut(BaseModel):
    """A webhook, without its secret."""

    id: int
    owner: str
    url: str
    description: str
    events: list[str]
    everyone: bool
    state: str = Field(description="`active` or `disabled`.")
    reason: str | None = Field(description="Why the service has disabled it.")
    failing_since: datetime | None = Field(description="Since when nothing was received.")
    created_at: datetime

    @classmethod
    def of(cls, record: WebhookRecord) -> WebhookOut:
        """The response for a record."""
        return cls.model_validate(record, from_attributes=True)


class NewSecret(WebhookOut):
    """A webhook with its secret, which is shown this once."""

    secret: str


class DeliveryOut(BaseModel):
    """A message to a webhook, and what came of it."""

    id: int
    message: str = Field(description="The `webhook-id` of its requests.")
    type: str
    state: DeliveryState
    attempts: int
    created_at: datetime
    next_at: datetime | None
    ended_at: datetime | None
    status: int | None = Field(description="Of the last answer.")
    error: str | None = Field(description="Why there was none.")
    ms: float | None = Field(description="How long the last attempt took.")
    payload: dict[str, Any]

    @classmethod
    def of(cls, record: DeliveryRecord) -> DeliveryOut:
        """The response for a record."""
        names = ("id", "message", "state", "attempts", "created_at", "next_at", "ended_at", "status", "error", "ms")
        plain = {name: getattr(record, name) for name in names}
        return cls(type=record.kind, payload=json.loads(record.payload), **plain)


class DeliveryPage(BaseModel):
    """A page of messages, latest first."""

    deliveries: list[DeliveryOut]
    total: int
    offset: int
    limit: int


def router(store: Store) -> APIRouter:
    """/v1/webhooks."""
    routes = APIRouter(prefix="/v1/webhooks", tags=["webhooks"], route_class=JsonRoute)

    @routes.post("", status_code=status.HTTP_201_CREATED, responses=answers(403, 413, 415, 422))
    def create_webhook(given: WebhookIn, request: WithKey, caller: WithCaller, response: Response) -> NewSecret:
        """Make a webhook; its secret is in this answer only."""
        if given.everyone and caller.owner is not None:
            message = "is for admins: others are told of their own studies"
            raise InvalidInput.one("everyone", message, value=True, allowed=False)
        made, secret = store.webhooks.create(owner=caller.whose, secret=new_secret(), request=request, **given.model_dump())
        response.headers["Location"] = f"/v1/webhooks/{made}"
        return NewSecret(**WebhookOut.of(store.webhooks.get(made)).model_dump(), secret=secret)

    @routes.get("")
    def list_webhooks(caller: WithCaller) -> list[WebhookOut]:
        """All webhooks, newest first."""
        return [WebhookOut.of(record) for record in store.webhooks.list(caller.owner)]

    @routes.get("/{webhook_id}", responses=answers(404, 422))
    def get_webhook(webhook_id: WebhookId) -> WebhookOut:
        """One webhook."""
        return WebhookOut.of(store.webhooks.get(webhook_id))

    @routes.patch("/{webhook_id}", responses=answers(404, 413, 415, 422))
    def change_webhook(webhook_id: WebhookId, patch: WebhookPatch) -> WebhookOut:
        """Change a webhook, disable or enable it."""
        store.webhooks.change(webhook_id, **patch.model_dump(exclude_none=True))
        return WebhookOut.of(store.webhooks.get(webhook_id))

    @routes.delete("/{webhook_id}", status_code=status.HTTP_204_NO_CONTENT, responses=answers(404, 422))
    def delete_webhook(webhook_id: WebhookId) -> None:
        """Remove a webhook, with the log of its deliveries."""
        store.webhooks.delete(webhook_id)

    @routes.post("/{webhook_id}/rotate", responses=answers(404, 413, 415, 422))
    def rotate_secret(webhook_id: WebhookId, given: RotateIn, request: WithKey) -> NewSecret:
        """Give it a new secret, which is in this answer only; for a while requests are signed by both."""
        secret = store.webhooks.rotate(webhook_id, new_secret(), given.overlap_hours * _HOUR, request)
        return NewSecret(**WebhookOut.of(store.webhooks.get(webhook_id)).model_dump(), secret=secret)

    _deliveries(routes, store)
    return routes


def _deliveries(routes: APIRouter, store: Store) -> None:
    @routes.post("/{webhook_id}/test", status_code=status.HTTP_202_ACCEPTED, responses=answers(404, 409, 422))
    def send_test(webhook_id: WebhookId, request: WithKey) -> DeliveryOut:
        """Send it a message of the type `webhook.test`."""
        made = store.webhooks.add(webhook_id, TEST, {"webhook": webhook_id}, request)
        return DeliveryOut.of(store.webhooks.delivery(webhook_id, made))

    @routes.get("/{webhook_id}/deliveries", responses={**LINKED, **answers(404, 422)})
    def list_deliveries(
        webhook_id: WebhookId, page: WithPage, state: Annotated[DeliveryState | None, Query()] = None
    ) -> DeliveryPage:
        """What was sent to it, or waits to be sent, latest first."""
        records, total = store.webhooks.deliveries(webhook_id, state=state, offset=page.offset, limit=page.limit)
        page.link(total)
        deliveries = [DeliveryOut.of(record) for record in records]
        return DeliveryPage(deliveries=deliveries, total=total, offset=page.offset, limit=page.limit)

    @routes.post(
        "/{webhook_id}/deliveries/{delivery_id}/redeliver",
        status_code=status.HTTP_202_ACCEPTED,
        responses=answers(404, 409, 422),
    )
    def redeliver(webhook_id: WebhookId, delivery_id: DeliveryId, request: WithKey) -> DeliveryOut:
        """Send a message once more, with its id."""
        store.webhooks.again(webhook_id, delivery_id, request)
        return DeliveryOut.of(store.webhooks.delivery(webhook_id, delivery_id))
