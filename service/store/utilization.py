"""How the time of a study's search was spent, summed over all leases and workers. Thread-safe."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from service.errors import NotFound
from service.store import tables as t
from service.store.engine import Database
from service.store.rows import dumps, lock_study

_KEY = "utilization"


class Utilization:
    """Writes and reads utilization: an attribute in Optuna's tables, so that it is deleted with its study."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, study_id: int, seconds: float, shares: Mapping[str, float]) -> None:
        """Add the ``seconds`` (> 0) of one lease, and their ``shares`` in [0, 1] by kind of work.

        Ignored if the study has been deleted.
        """

        def work(connection: Connection) -> None:
            try:
                lock_study(connection, study_id)
            except NotFound:
                return
            before, spent = self._spent(connection, study_id)
            for name, share in shares.items():
                spent[name] = spent.get(name, 0.0) + share * seconds
            total = {"seconds": before + seconds, "spent": spent}
            table = t.o_study_user
            connection.execute(delete(table).where(table.c.study_id == study_id, table.c.key == _KEY))
            connection.execute(insert(table).values(study_id=study_id, key=_KEY, value_json=dumps(total)))

        self._database.write_once(work)

    def get(self, study_id: int) -> dict[str, float]:
        """Share of the total time in [0, 1] by kind of work; empty if no lease has ended yet."""
        seconds, spent = self._database.read(lambda connection: self._spent(connection, study_id))
        return {name: round(part / seconds, 4) for name, part in spent.items()}

    def _spent(self, connection: Connection, study_id: int) -> tuple[float, dict[str, float]]:
        """All seconds so far, and the seconds by kind of work."""
        table = t.o_study_user
        mine = select(table.c.value_json).where(table.c.study_id == study_id, table.c.key == _KEY)
        text = connection.execute(mine).scalar_one_or_none()
        found: dict[str, Any] = {"seconds": 0.0, "spent": {}} if text is None else json.loads(text)
        return found["seconds"], found["spent"]
