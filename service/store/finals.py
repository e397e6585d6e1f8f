"""The runs of an external study after its search: settings over seeds, asked and told by the user's programs. Thread-safe.

They are planned by whoever finds the study without any, in steps that follow from the runs so far, so planning twice is
planning once. Everything is fenced by leases, as trials are.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection, RowMapping, insert, select, update

from service.errors import LeaseLost
from service.store import tables as t
from service.store.engine import Database
from service.store.records import FinalRun, Lease, StudyState
from service.store.rows import dumps, fence, lock_study

_OPEN = ("waiting", "running")


class Finals:
    """Operations on final runs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self, study_id: int) -> list[FinalRun]:
        """All runs of a study by number."""
        return self._database.read(lambda connection: _all(connection, study_id))

    def ask(
        self, lease: Lease, n: int, plan: Callable[[Sequence[FinalRun]], Sequence[FinalRun]], key: str
    ) -> tuple[list[FinalRun], bool]:
        """At most ``n`` runs, which now run under this lease, and whether all runs have ended and none is left to plan.

        Args:
            lease: On a study in `finalizing`.
            n: How many.
            plan: The runs to add to those there are, once none of them is open; pure.
            key: Of this ask: the same ask under the same lease returns the same runs.

        Raises:
            LeaseLost: The lease is gone.
        """

        def work(connection: Connection) -> tuple[list[FinalRun], bool]:
            row = lock_study(connection, lease.study_id)
            fence(connection, lease)
            if row["state"] != StudyState.FINALIZING:
                return [], False
            mine = (t.finals.c.lease_token == lease.token) & (t.finals.c.ask_key == key)
            again = connection.execute(select(t.finals).where(mine).order_by(t.finals.c.number)).mappings().all()
            if again:
                return [_run(each) for each in again], False
            runs = _all(connection, lease.study_id)
            if not any(run.state in _OPEN for run in runs):
                added = plan(runs)
                if not added:
                    return [], True
                _insert(connection, lease.study_id, added)
                runs = [*runs, *added]
            chosen = [run.number for run in runs if run.state == "waiting"][:n]
            of_study = (t.finals.c.study_id == lease.study_id) & t.finals.c.number.in_(chosen)
            taken = {"state": "running", "lease_token": lease.token, "ask_key": key}
            connection.execute(update(t.finals).where(of_study).values(taken))
            return [run for run in runs if run.number in chosen], False

        return self._database.write(work)

    def tell(
        self, lease: Lease, number: int, *, value: float | None, test: float | None = None, reason: str | None = None
    ) -> None:
        """Tell how a run ended: its ``value``, or None if it failed for a ``reason``. Telling it again changes nothing.

        Raises:
            LeaseLost: The lease is gone, or the run was not asked under it.
        """

        def work(connection: Connection) -> None:
            lock_study(connection, lease.study_id)
            mine = (t.finals.c.study_id == lease.study_id) & (t.finals.c.number == number)
            row = connection.execute(select(t.finals).where(mine)).mappings().first()
            if row is not None and row["told_by"] == lease.worker_id:
                return
            if row is None or row["lease_token"] != lease.token:
                raise LeaseLost(f"final run {number} of study {lease.study_id} does not run under lease {lease.token}")
            values: dict[str, Any] = {"value": value, "test": test, "reason": reason, "lease_token": None}
            values |= {"state": "fail" if value is None else "complete", "told_by": lease.worker_id}
            connection.execute(update(t.finals).where(mine).values(values))

        self._database.write(work)


def put_back_finals(connection: Connection, row: RowMapping, token: int, *, attempt: bool) -> None:
    """Return the runs of a lease to waiting; one that has lost more programs than ``max_retries`` fails."""
    mine = t.finals.c.lease_token == token
    if attempt:
        lost = {"state": "fail", "reason": "program lost", "lease_token": None}
        connection.execute(update(t.finals).where(mine, t.finals.c.attempt >= row["max_retries"]).values(lost))
    waits = {"state": "waiting", "lease_token": None, "attempt": t.finals.c.attempt + int(attempt)}
    connection.execute(update(t.finals).where(mine).values(waits))


def _all(connection: Connection, study_id: int) -> list[FinalRun]:
    query = select(t.finals).where(t.finals.c.study_id == study_id).order_by(t.finals.c.number)
    return [_run(row) for row in connection.execute(query).mappings()]


def _insert(connection: Connection, study_id: int, runs: Sequence[FinalRun]) -> None:
    rows = [
        {
            "study_id": study_id,
            "number": run.number,
            "name": run.name,
            "role": run.role,
            "trial": run.trial,
            "seed_index": run.seed_index,
            "params": dumps(run.params),
            "state": run.state,
            "attempt": 0,
        }
        for run in runs
    ]
    connection.execute(insert(t.finals), rows)


def _run(row: RowMapping) -> FinalRun:
    names = ("number", "name", "role", "trial", "seed_index", "state", "attempt", "value", "test", "reason")
    return FinalRun(**{name: row[name] for name in names}, params=json.loads(row["params"]))
