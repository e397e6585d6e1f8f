"""Searches that a worker concludes before their budget is spent, with the reason. Thread-safe."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from service.store import tables as t
from service.store.engine import Database
from service.store.records import SEARCHED, Lease
from service.store.rows import dumps, fence, lock_study, settle

_KEY = "concluded"


class Conclusions:
    """Writes and reads conclusions."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def conclude(self, lease: Lease, reason: str) -> None:
        """Start no further trials: the budget becomes the number of trials asked so far. Running trials are finished.

        Raises:
            LeaseLost: The lease is gone.
        """

        def work(connection: Connection) -> None:
            row = lock_study(connection, lease.study_id)
            fence(connection, lease)
            if row["state"] not in SEARCHED or row["asked"] >= row["budget_trials"]:
                return
            mine = update(t.studies).where(t.studies.c.study_id == lease.study_id)
            connection.execute(mine.values(budget_trials=row["asked"], reason=reason))
            conclusion = {"reason": reason, "trials": row["asked"], "budget": row["budget_trials"]}
            table = t.o_study_user
            here = (table.c.study_id == lease.study_id) & (table.c.key == _KEY)
            connection.execute(delete(table).where(here))
            connection.execute(insert(table).values(study_id=lease.study_id, key=_KEY, value_json=dumps(conclusion)))
            settle(connection, self._database, lock_study(connection, lease.study_id))

        self._database.write(work)

    def get(self, study_id: int) -> dict[str, Any] | None:
        """``reason``, ``trials`` asked until then and ``budget`` before; None if not concluded, or extended since."""
        table = t.o_study_user
        here = (table.c.study_id == study_id) & (table.c.key == _KEY)
        query = select(table.c.value_json, t.studies.c.budget_trials)
        query = query.join(t.studies, t.studies.c.study_id == table.c.study_id).where(here)
        row = self._database.read(lambda connection: connection.execute(query).first())
        if row is None:
            return None
        conclusion: dict[str, Any] = json.loads(row[0])
        return conclusion if conclusion["trials"] == row[1] else None
