"""Worker processes and what they last reported. Thread-safe."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Literal

from sqlalchemy import RowMapping, Select, Text, bindparam, func, select, update

from service.store import tables as t
from service.store.engine import Database, clock, unhurried, upsert
from service.store.records import WorkerRecord
from service.store.rows import dumps, moment

SILENT_AFTER_SECONDS = 60.0
"""A worker that has not reported for longer is `silent`."""


class Workers:
    """Registers worker processes and what they report about themselves."""

    def __init__(self, database: Database) -> None:
        self._database = database
        mine = (t.workers.c.id == bindparam("mine"), *unhurried(database.engine.dialect))
        self._beat = update(t.workers).where(*mine).values(seen_at=database.now, stats=bindparam("told", type_=Text))

    def register(self, *, name: str, host: str, pid: int, device: str, memory: int | None = None, devices: int = 1) -> str:
        """Register a process, whose studies may take ``memory`` bytes, and its networks ``devices``; returns its id."""
        worker_id = uuid.uuid4().hex
        values: dict[str, Any] = {"id": worker_id, "name": name, "host": host, "pid": pid, "device": device, "stats": "{}"}
        values |= {"memory": memory, "devices": devices}
        times = {"started_at": self._database.now, "seen_at": self._database.now}
        self._database.write(
            lambda connection: connection.execute(
                upsert(connection, t.workers).values(values | times).on_conflict_do_nothing(index_elements=["id"])
            )
        )
        return worker_id

    def beat(self, worker_id: str, stats: Mapping[str, Any]) -> None:
        """Record that a worker is alive, and its ``stats``."""
        self._database.alone(self._beat, {"mine": worker_id, "told": dumps(stats)}, reading=False)

    def leave(self, worker_id: str) -> None:
        """Record that a worker has left."""
        change = update(t.workers).where(t.workers.c.id == worker_id)
        values = {"seen_at": self._database.now, "left_at": self._database.now}
        self._database.write(lambda connection: connection.execute(change.values(values)))

    def list(self) -> Sequence[WorkerRecord]:
        """All workers, newest first."""
        query = select(t.workers, self._database.now.label("now")).order_by(t.workers.c.started_at.desc())
        rows = self._database.read(lambda connection: connection.execute(query).mappings().all())
        return [_worker(row) for row in rows]

    def most(self, name: Literal["memory", "devices"]) -> int | None:
        """The bytes of memory, or the devices, of the living worker with most of them; None where none has told it."""
        return self._database.read(lambda connection: connection.execute(_most(connection.dialect.name, name)).scalar())


@cache
def _most(dialect: str, name: str) -> Select[Any]:
    living = t.workers.c.left_at.is_(None) & (clock(dialect) - t.workers.c.seen_at <= SILENT_AFTER_SECONDS)
    return select(func.max(t.workers.c[name])).where(living)


def _worker(row: RowMapping) -> WorkerRecord:
    silent = row["now"] - row["seen_at"] > SILENT_AFTER_SECONDS
    started, seen = moment(row["started_at"]), moment(row["seen_at"])
    assert started is not None
    assert seen is not None
    return WorkerRecord(
        id=row["id"],
        name=row["name"],
        host=row["host"],
        pid=row["pid"],
        device=row["device"],
        state="left" if row["left_at"] is not None else "silent" if silent else "alive",
        started_at=started,
        seen_at=seen,
        stats=json.loads(row["stats"]),
        memory=row["memory"],
        devices=row["devices"],
    )
