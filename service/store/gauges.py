"""Gauges of the whole database for operators, from counters only: no trial is ever counted here. Thread-safe."""

from __future__ import annotations

from sqlalchemy import Connection, func, select

from service.store import tables as t
from service.store.engine import Database
from service.store.records import StoreMetrics, StudyState
from service.store.rows import OPTUNA_STATE
from service.store.workers import SILENT_AFTER_SECONDS


def read_metrics(database: Database) -> StoreMetrics:
    """The present state of the queue and of its workers, in one transaction."""

    def work(connection: Connection) -> StoreMetrics:
        sums = (func.sum(t.studies.c[name]).label(name) for name in (*OPTUNA_STATE, "lost_leases"))
        by_state = select(t.studies.c.state, func.count().label("studies"), *sums).group_by(t.studies.c.state)
        rows = connection.execute(by_state).mappings().all()
        found = {row["state"]: int(row["studies"]) for row in rows}
        seen = t.workers.c.seen_at >= database.now - SILENT_AFTER_SECONDS
        workers = select(func.count()).select_from(t.workers).where(seen, t.workers.c.left_at.is_(None))
        leases = select(func.count()).select_from(t.leases).where(t.leases.c.expires_at >= database.now)
        return StoreMetrics(
            studies={state.value: found.get(state.value, 0) for state in StudyState},
            trials={name: sum(int(row[name]) for row in rows) for name in OPTUNA_STATE},
            live_workers=connection.execute(workers).scalar_one(),
            live_leases=connection.execute(leases).scalar_one(),
            lease_losses=sum(int(row["lost_leases"]) for row in rows),
        )

    return database.read(work)
