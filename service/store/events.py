"""What has happened to studies, for those who follow it: numbered, read from any number on, forgotten. Thread-safe.

A transaction takes its id when it writes, and is seen when it commits: who reads by id could pass over one that commits
late. So a row has no number until it is committed; then whoever comes first numbers it, one at a time.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, delete, exists, func, select, text

from service.store import tables as t
from service.store.bulk import update_many
from service.store.engine import Database
from service.store.records import EventRecord
from service.store.rows import moment
from service.store.sharing import shared_with
from service.store.webhooks import enqueue

_LOCK = 0x7265_6576
_AT_ONCE = 1000


class Events:
    """Operations on events."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def publish(self) -> None:
        """Give numbers to what was committed since the last time, and put it into the queues of webhooks."""
        new = select(exists().where(t.events.c.seq.is_(None)))
        if self._database.read(lambda connection: connection.execute(new).scalar()):
            self._database.write(self._number)

    def _number(self, connection: Connection) -> None:
        if not self._database.is_sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        last = _last(connection)
        query = select(t.events.c.id).where(t.events.c.seq.is_(None)).order_by(t.events.c.id).limit(_AT_ONCE)
        ids = connection.execute(query).scalars().all()
        rows = [{"id": event_id, "seq": last + place} for place, event_id in enumerate(ids, 1)]
        update_many(connection, t.events, rows, "id")
        enqueue(connection, ids)

    def last(self) -> int:
        """The number of the latest event; 0 if there is none."""
        return self._database.read(_last)

    def since(self, seq: int, limit: int = _AT_ONCE) -> Sequence[EventRecord]:
        """The first events after the ``seq``-th, in the order of their numbers."""
        query = select(t.events).where(t.events.c.seq > seq).order_by(t.events.c.seq).limit(limit)

        def work(connection: Connection) -> Sequence[EventRecord]:
            found = []
            rows = connection.execute(query).mappings().all()
            shared = shared_with(connection, [row["study_id"] for row in rows]) if rows else {}
            for row in rows:
                at = moment(row["at"])
                assert at is not None, "never null"
                plain = {name: row[name] for name in EventRecord.COPIED}
                shares = shared.get(row["study_id"], frozenset())
                found.append(EventRecord(seq=row["seq"], at=at, shared_with=shares, **plain))
            return found

        return self._database.read(work)

    def forget(self, seconds: float) -> int:
        """Delete events that are older than so many seconds, except the latest, whose number is counted on from."""
        old = (t.events.c.at < self._database.now - seconds) & (
            t.events.c.seq < select(func.max(t.events.c.seq)).scalar_subquery()
        )
        return self._database.write(lambda connection: connection.execute(delete(t.events).where(old)).rowcount)


def _last(connection: Connection) -> int:
    return connection.execute(select(func.max(t.events.c.seq))).scalar() or 0
