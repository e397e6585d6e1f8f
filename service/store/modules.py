"""Modules of the users' own, as workers publish them. Thread-safe."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from service.store import tables as t
from service.store.engine import Database
from service.store.rows import dumps


class Modules:
    """What every worker has; documents are those of `service.spec.modules.ModuleSchema`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def publish(self, worker_id: str, documents: Sequence[Mapping[str, Any]]) -> None:
        """Replace what a worker has published."""
        rows = [
            {"worker_id": worker_id, "name": each["name"], "document": dumps(dict(each)), "usable": int(not each["error"])}
            for each in documents
        ]

        def work(connection: Connection) -> None:
            connection.execute(delete(t.modules).where(t.modules.c.worker_id == worker_id))
            if rows:
                connection.execute(insert(t.modules), rows)

        self._database.write(work)

    def list(self) -> Sequence[Mapping[str, Any]]:
        """Each module once, in order of names: as a worker that can use it has it, and the latest of these."""
        joined = t.modules.join(t.workers, t.workers.c.id == t.modules.c.worker_id)
        latest = (t.workers.c.left_at.is_not(None), t.workers.c.started_at.desc())
        query = select(t.modules.c.name, t.modules.c.document).select_from(joined)
        query = query.order_by(t.modules.c.usable.desc(), *latest)
        found: dict[str, Mapping[str, Any]] = {}
        for name, document in self._database.read(lambda connection: connection.execute(query).all()):
            found.setdefault(name, json.loads(document))
        return [found[name] for name in sorted(found)]
