"""The audit log: every change that was asked for, by whom, and how it was answered. Thread-safe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, func, insert, or_, select

from service.store import tables as t
from service.store.actors import Actor, AuditEntry, AuditRecord
from service.store.engine import Database
from service.store.rows import moment

PATIENCE_SECONDS = 5.0
"""How long a write waits for the database: an answer waits for it."""
_LENGTHS = {"route": 200, "object": 200}


class Audit:
    """Operations on the log."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def write(self, *entries: AuditEntry) -> None:
        """Add entries, now.

        Raises:
            DatabaseUnavailable: The database did not respond within `PATIENCE_SECONDS`.
        """
        rows = [_row(entry) for entry in entries]
        statement = insert(t.audit).values(at=self._database.now)
        self._database.write(lambda connection: connection.execute(statement, rows), patience_seconds=PATIENCE_SECONDS)

    def page(
        self, *, owner: str | None = None, under: str | None = None, offset: int = 0, limit: int = 50
    ) -> tuple[Sequence[AuditRecord], int]:
        """A page of the log, latest first, and the number of all that match.

        ``owner`` is whose token it was; ``under`` is an object, such as `studies/3`, with what belongs to it.
        """

        def work(connection: Connection) -> tuple[Sequence[AuditRecord], int]:
            matching = [] if owner is None else [t.audit.c.owner == owner]
            if under is not None:
                below = t.audit.c.object.startswith(f"{under}/", autoescape=True)
                matching.append(or_(t.audit.c.object == under, below))
            total = connection.execute(select(func.count()).select_from(t.audit).where(*matching)).scalar_one()
            query = select(t.audit).where(*matching).order_by(t.audit.c.id.desc()).offset(offset).limit(limit)
            found = []
            for row in connection.execute(query).mappings():
                at, by = moment(row["at"]), Actor(row["owner"], row["token_id"])
                assert at is not None
                entry = AuditEntry(by, row["method"], row["route"], row["object"], row["status"], row["request_id"])
                found.append(AuditRecord(row["id"], at, entry))
            return found, int(total)

        return self._database.read(work)


def _row(entry: AuditEntry) -> dict[str, Any]:
    return {
        "owner": entry.by.owner,
        "token_id": entry.by.token,
        "method": entry.method[:8],
        "status": entry.status,
        "request_id": entry.request_id,
        **{name: getattr(entry, name)[:length] for name, length in _LENGTHS.items()},
    }
