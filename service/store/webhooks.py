"""Webhooks, and what is sent to them: a queue for each, filled in the transaction that numbers an event. Thread-safe."""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, RowMapping, delete, func, insert, select, update

from service.errors import Conflict, NotFound, QuotaExceeded
from service.store import tables as t
from service.store.engine import Database, Once
from service.store.rows import dumps, inserted_key, moment
from service.store.sharing import EVERYBODY, shared_with

EVERYTHING = "*"
MOST = 50
"""Webhooks of an owner."""
DeliveryState = Literal["waiting", "delivered", "failed"]


@dataclass(frozen=True)
class WebhookRecord:
    """A webhook, without its secrets; ``state`` is `active` or `disabled`, with a ``reason`` if we did that."""

    id: int
    owner: str
    url: str
    description: str
    events: Sequence[str]
    everyone: bool
    """Whether it is sent what happens to everybody's studies."""
    state: str
    reason: str | None
    failing_since: datetime | None
    created_at: datetime


@dataclass(frozen=True)
class DeliveryRecord:
    """One message to one webhook; ``status``, ``error`` and ``ms`` are those of its last attempt."""

    id: int
    webhook_id: int
    message: str
    kind: str
    payload: str
    state: DeliveryState
    attempts: int
    created_at: datetime
    next_at: datetime | None
    ended_at: datetime | None
    status: int | None
    error: str | None
    ms: float | None


@dataclass(frozen=True)
class Outgoing:
    """A message that was taken to be sent; ``attempt`` counts the earlier ones.

    ``failing`` is whether its receiver did not get the last one.
    """

    id: int
    webhook_id: int
    message: str
    payload: str
    attempt: int
    url: str
    secrets: Sequence[str]
    failing: bool


class Webhooks:
    """Operations on webhooks. Every method about one raises `NotFound` for an unknown id."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, *, owner: str, secret: str, request: Once | None = None, **given: Any) -> tuple[int, str]:
        """Make a webhook; returns its id and its secret, of a request that was sent again the first one's.

        Raises:
            QuotaExceeded: The owner has `MOST`.
        """
        values = {"owner": owner, "secret": secret, "state": "active", "created_at": self._database.now, **_stored(given)}

        def work(connection: Connection) -> list[Any]:
            owned = select(func.count()).select_from(t.webhooks).where(t.webhooks.c.owner == owner)
            if connection.execute(owned).scalar_one() >= MOST:
                raise QuotaExceeded(f"{owner} has {MOST} webhooks, which is the most: delete one")
            return [inserted_key(connection.execute(insert(t.webhooks).values(values))), secret]

        made, first = self._database.write_once(work, request)
        return int(made), str(first)

    def get(self, webhook_id: int) -> WebhookRecord:
        """One webhook."""
        return self._database.read(lambda connection: _record(_row(connection, webhook_id)))

    def owner(self, webhook_id: int) -> str:
        """Whose it is."""
        return self.get(webhook_id).owner

    def list(self, owner: str | None = None) -> Sequence[WebhookRecord]:
        """All webhooks, or those of an owner, newest first."""
        query = select(t.webhooks).order_by(t.webhooks.c.id.desc())
        if owner is not None:
            query = query.where(t.webhooks.c.owner == owner)
        return self._database.read(lambda connection: [_record(row) for row in connection.execute(query).mappings()])

    def change(self, webhook_id: int, enabled: bool | None = None, **given: Any) -> None:
        """Change what is given; ``enabled`` again it has a new begin."""
        values = _stored(given)
        if enabled is not None:
            values |= {"state": "active" if enabled else "disabled", "reason": None, "failing_since": None}
        mine = t.webhooks.c.id == webhook_id

        def work(connection: Connection) -> None:
            _row(connection, webhook_id)
            if values:
                connection.execute(update(t.webhooks).where(mine).values(values))

        self._database.write(work)

    def rotate(self, webhook_id: int, secret: str, overlap_seconds: float, request: Once | None = None) -> str:
        """Give a webhook another secret; requests are signed by the present one, too, for so many seconds.

        Returns:
            The secret; of a request that was sent again the first one's.
        """

        def work(connection: Connection) -> str:
            row = _row(connection, webhook_id)
            until = self._database.now + overlap_seconds
            values = {"secret": secret, "previous_secret": row["secret"], "previous_until": until}
            connection.execute(update(t.webhooks).where(t.webhooks.c.id == webhook_id).values(values))
            return secret

        return self._database.write_once(work, request)

    def delete(self, webhook_id: int) -> None:
        """Remove a webhook and the log of its deliveries."""

        def work(connection: Connection) -> None:
            _row(connection, webhook_id)
            connection.execute(delete(t.deliveries).where(t.deliveries.c.webhook_id == webhook_id))
            connection.execute(delete(t.webhooks).where(t.webhooks.c.id == webhook_id))

        self._database.write_once(work)

    def disable(self, webhook_id: int, reason: str, *, failing_seconds: float | None = None) -> None:
        """Switch a webhook off, at once or if it has been failing for so many seconds; what waits is not sent."""
        which = (t.webhooks.c.id == webhook_id) & (t.webhooks.c.state == "active")
        if failing_seconds is not None:
            which &= t.webhooks.c.failing_since < self._database.now - failing_seconds

        def work(connection: Connection) -> None:
            off = update(t.webhooks).where(which).values(state="disabled", reason=reason)
            if connection.execute(off).rowcount:
                waiting = (t.deliveries.c.webhook_id == webhook_id) & (t.deliveries.c.state == "waiting")
                ended = {"state": "failed", "next_at": None, "ended_at": self._database.now}
                connection.execute(update(t.deliveries).where(waiting).values(ended))

        self._database.write(work)

    def add(self, webhook_id: int, kind: str, data: Mapping[str, Any], request: Once | None = None) -> int:
        """Put a message of its own into a webhook's queue; returns its id.

        Raises:
            Conflict: The webhook is disabled.
        """

        def work(connection: Connection) -> int:
            if _row(connection, webhook_id)["state"] != "active":
                raise Conflict(f"webhook {webhook_id} is disabled: enable it first")
            now = float(connection.execute(select(self._database.now)).scalar_one())
            return inserted_key(connection.execute(insert(t.deliveries).values(_message(webhook_id, kind, now, data))))

        return self._database.write_once(work, request)

    def again(self, webhook_id: int, delivery_id: int, request: Once | None = None) -> None:
        """Send a message once more, as soon as may be, with the attempts that a new one has.

        Raises:
            Conflict: The webhook is disabled.
        """
        values = {"state": "waiting", "attempts": 0, "next_at": self._database.now, "ended_at": None}
        mine = (t.deliveries.c.id == delivery_id) & (t.deliveries.c.webhook_id == webhook_id)

        def work(connection: Connection) -> None:
            if _row(connection, webhook_id)["state"] != "active":
                raise Conflict(f"webhook {webhook_id} is disabled: enable it first")
            if connection.execute(update(t.deliveries).where(mine).values(values)).rowcount == 0:
                raise NotFound("delivery", delivery_id)

        self._database.write_once(work, request)

    def delivery(self, webhook_id: int, delivery_id: int) -> DeliveryRecord:
        """One message."""
        query = select(t.deliveries).where(t.deliveries.c.id == delivery_id, t.deliveries.c.webhook_id == webhook_id)
        row = self._database.read(lambda connection: connection.execute(query).mappings().first())
        if row is None:
            raise NotFound("delivery", delivery_id)
        return _delivery(row)

    def deliveries(
        self, webhook_id: int, *, state: DeliveryState | None = None, offset: int = 0, limit: int = 50
    ) -> tuple[Sequence[DeliveryRecord], int]:
        """A page of the messages to a webhook, latest first, and the number of all."""
        mine = t.deliveries.c.webhook_id == webhook_id
        if state is not None:
            mine &= t.deliveries.c.state == state

        def work(connection: Connection) -> tuple[Sequence[DeliveryRecord], int]:
            _row(connection, webhook_id)
            total = connection.execute(select(func.count()).select_from(t.deliveries).where(mine)).scalar_one()
            query = select(t.deliveries).where(mine).order_by(t.deliveries.c.id.desc()).offset(offset).limit(limit)
            return [_delivery(row) for row in connection.execute(query).mappings()], int(total)

        return self._database.read(work)

    def take(self, most: int, seconds: float, *, failing: bool, each: int, but: Collection[int] = ()) -> Sequence[Outgoing]:
        """Take messages that are due, so that nobody else does for so many ``seconds``.

        Those of webhooks that are ``failing``, or of the others; at most so many of ``each``, and none of some (``but``).
        """
        d, hook = t.deliveries, t.webhooks
        failed = hook.c.failing_since
        due = (d.c.state == "waiting") & (d.c.next_at <= self._database.now)
        mine = due & (failed.is_not(None) if failing else failed.is_(None)) & hook.c.id.not_in(sorted(but))
        joined = d.join(hook, hook.c.id == d.c.webhook_id)
        any_of_them = select(d.c.id).select_from(joined).where(mine).limit(1)
        if self._database.read(lambda connection: connection.execute(any_of_them).first()) is None:
            return ()
        named = ("id", "webhook_id", "message", "payload", "attempts")
        older = (hook.c.previous_until > self._database.now).label("older")
        columns = (*(d.c[name] for name in named), hook.c.url, hook.c.secret, hook.c.previous_secret, failed, older)
        order = (d.c.next_at, d.c.id)
        place = func.row_number().over(partition_by=d.c.webhook_id, order_by=order).label("place")
        ranked = select(d.c.id, place).select_from(joined).where(mine).subquery()
        first = d.c.id.in_(select(ranked.c.id).where(ranked.c.place <= each))
        query = select(*columns).select_from(joined).where(due, first).order_by(*order).limit(most)

        def work(connection: Connection) -> Sequence[Outgoing]:
            rows = connection.execute(query.with_for_update(of=d, skip_locked=True)).mappings().all()
            taken = update(d).where(d.c.id.in_([row["id"] for row in rows]))
            connection.execute(taken.values(next_at=self._database.now + seconds))
            return [_outgoing(row) for row in rows]

        return self._database.write(work)

    def tell(
        self, sent: Outgoing, *, received: bool, status: int | None, error: str | None, ms: float, again_in: float | None
    ) -> None:
        """Write down what came of an attempt; ``again_in`` so many seconds there is another, with None there is none."""
        now = self._database.now
        state = "delivered" if received else "waiting" if again_in is not None else "failed"
        values: dict[str, Any] = {"state": state, "attempts": sent.attempt + 1, "status": status, "error": error, "ms": ms}
        values |= {"next_at": now + again_in} if state == "waiting" else {"next_at": None, "ended_at": now}
        mine = (
            (t.deliveries.c.id == sent.id) & (t.deliveries.c.attempts == sent.attempt) & (t.deliveries.c.state == "waiting")
        )
        failing = None if received else func.coalesce(t.webhooks.c.failing_since, now)

        def work(connection: Connection) -> None:
            if connection.execute(update(t.deliveries).where(mine).values(values)).rowcount:  # else another one was sooner
                hook = update(t.webhooks).where(t.webhooks.c.id == sent.webhook_id)
                connection.execute(hook.values(failing_since=failing))

        self._database.write(work)

    def forget(self, seconds: float) -> int:
        """Delete messages that ended so many seconds ago or earlier; returns how many."""
        old = delete(t.deliveries).where(t.deliveries.c.ended_at < self._database.now - seconds)
        return self._database.write(lambda connection: connection.execute(old).rowcount)


def enqueue(connection: Connection, event_ids: Sequence[int]) -> None:
    """Put events into the queues of all webhooks that want them."""
    hooks = connection.execute(select(t.webhooks).where(t.webhooks.c.state == "active")).mappings().all()
    if not hooks:
        return
    query = select(t.events).where(t.events.c.id.in_(event_ids)).order_by(t.events.c.seq)
    events = connection.execute(query).mappings().all()
    shared = shared_with(connection, [event["study_id"] for event in events])
    rows = [
        _message(hook["id"], event["kind"], event["at"], _data(event))
        for event in events
        for hook in hooks
        if {event["kind"], EVERYTHING} & {*json.loads(hook["events"])} and _may_see(hook, event, shared)
    ]
    if rows:
        connection.execute(insert(t.deliveries), rows)


def _may_see(hook: RowMapping, event: RowMapping, shared: Mapping[int, Collection[str]]) -> bool:
    owners = {event["owner"], *shared.get(event["study_id"], ())}
    return bool(hook["everyone"] or {hook["owner"], EVERYBODY} & owners)


def _data(event: RowMapping) -> dict[str, Any]:
    names = ("study_id", "name", "owner", "state", "reason", "metric", "best_number")
    return {**{name: event[name] for name in names}, "best": event["best_value"], "event": event["seq"]}


def _message(webhook_id: int, kind: str, at: float, data: Mapping[str, Any]) -> dict[str, Any]:
    when = moment(at)
    assert when is not None
    payload = dumps({"type": kind, "timestamp": when.isoformat(), "data": data})
    common = {"webhook_id": webhook_id, "message": f"msg_{uuid.uuid4().hex}", "kind": kind, "payload": payload}
    return {**common, "state": "waiting", "attempts": 0, "created_at": at, "next_at": at}


def _row(connection: Connection, webhook_id: int) -> RowMapping:
    row = connection.execute(select(t.webhooks).where(t.webhooks.c.id == webhook_id)).mappings().first()
    if row is None:
        raise NotFound("webhook", webhook_id)
    return row


def _stored(given: Mapping[str, Any]) -> dict[str, Any]:
    values = dict(given)
    if "events" in values:
        values["events"] = dumps([*values["events"]])
    if "everyone" in values:
        values["everyone"] = int(values["everyone"])
    return values


def _record(row: RowMapping) -> WebhookRecord:
    created = moment(row["created_at"])
    assert created is not None
    plain = {name: row[name] for name in ("id", "owner", "url", "description", "state", "reason")}
    return WebhookRecord(
        **plain,
        events=json.loads(row["events"]),
        everyone=bool(row["everyone"]),
        failing_since=moment(row["failing_since"]),
        created_at=created,
    )


def _delivery(row: RowMapping) -> DeliveryRecord:
    times = {name: moment(row[name]) for name in ("created_at", "next_at", "ended_at")}
    names = ("id", "webhook_id", "message", "kind", "payload", "state", "attempts", "status", "error", "ms")
    return DeliveryRecord(**{name: row[name] for name in names}, **times)  # type: ignore[arg-type]  # created_at is set


def _outgoing(row: RowMapping) -> Outgoing:
    secrets = [row["secret"], *([row["previous_secret"]] if row["previous_secret"] and row["older"] else [])]
    failing = row["failing_since"] is not None
    sent = (row["id"], row["webhook_id"], row["message"], row["payload"], row["attempts"], row["url"])
    return Outgoing(*sent, secrets, failing)
