"""Claiming: the study that is next gets a lease, in the order of the queue, whoever claims at the same time.

Each claim must see the leases of the earlier ones. SQLite has one writer anyway. On PostgreSQL a lock is held from the
choice to the commit: by one statement that does all, sent together with those that take and end the lock, so that no
other claim waits for a client, a network or a disk. Nor does one wait with the lock for a study that others write to: it
takes the next of the same priority, or, where there is none, gives the lock back until that study is free.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

from sqlalchemy import (
    ARRAY,
    CTE,
    Connection,
    Float,
    Integer,
    String,
    all_,
    bindparam,
    case,
    cast,
    exists,
    func,
    insert,
    literal,
    select,
    true,
    update,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.elements import ColumnElement

from service.store import tables as t
from service.store.bell import driver_errors
from service.store.engine import Database
from service.store.happenings import COPIED, event_of, happened
from service.store.queue import needs_worker, next_study, next_study_locked
from service.store.records import StudyState
from service.store.rows import inserted_key

_BEGIN = (
    "SELECT set_config('synchronous_commit', 'off', true), set_config('plan_cache_mode', 'force_generic_plan', true), "
    f"pg_advisory_xact_lock({0x7265_6774})"
)
"""A claim waits for no disk, as a lease that a crash of the server takes is one that is lost; and it is planned once for
each connection, which takes longer than to run it.
"""
_QUEUED, _FINALIZING = StudyState.QUEUED.value, StudyState.FINALIZING.value


_LEAST = -(2**31)
_MOST_BUSY = 3
"""After so many studies that others write to, a claim waits for the first one."""


class _Found(NamedTuple):
    """The study that is next, if any, and what a claim has become, unless others write to this study."""

    study_id: int | None
    priority: int
    answer: str | None


class Claims:
    """Takes leases from the queue. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database
        # Built once: constructing such a query costs more than running it.
        self._queue, self._locked = next_study(database), next_study_locked(database)
        if not database.is_sqlite:
            compiled = _claim(database).compile(dialect=database.engine.dialect)
            expanded = compiled.construct_expanded_state(
                {"worker": "", "for_seconds": 0.0, "once": "", "busy": [], "least": 0}
            )
            self._text, self._constants = expanded.statement, expanded.parameters

    def is_empty(self, worker_id: str) -> bool:
        """Whether the queue has nothing for a worker; takes no lock."""
        return not self._database.alone(self._queue, {"worker": worker_id})

    def take(self, worker_id: str, seconds: float) -> Mapping[str, Any] | None:
        """Lease the next study that needs this worker; the fields of a `Lease`, or None if none does."""
        if self._database.is_sqlite:
            return self._database.write_once(lambda connection: self._step_by_step(connection, worker_id, seconds))
        values = {"worker": worker_id, "for_seconds": seconds, "once": uuid.uuid4().hex}
        busy: list[int] = []
        least, free = _LEAST, None
        while True:
            given = {**values, "busy": busy, "least": least}
            found = self._database.write(partial(self._at_once, values=given, free=free))
            if found.answer is not None:
                fields: Mapping[str, Any] = json.loads(found.answer)[1]
                return fields
            if found.study_id is not None and len(busy) < _MOST_BUSY:
                busy, least, free = [*busy, found.study_id], found.priority, None
            elif busy:
                busy, least, free = [], _LEAST, busy[0]
            else:
                return None

    def _step_by_step(self, connection: Connection, worker_id: str, seconds: float) -> dict[str, Any] | None:
        """A study may no longer need a worker by the time its row is locked; the queue is then queried again."""
        mine = {"worker": worker_id}
        while (row := connection.execute(self._locked, mine).mappings().first()) is None:
            if connection.execute(self._queue, mine).first() is None:
                return None
        return take_lease(connection, self._database, row, worker_id, seconds)

    def _at_once(self, connection: Connection, *, values: Mapping[str, Any], free: int | None) -> Any:
        """One message to PostgreSQL, and the end of its transaction; returns the row of `_claim`.

        Args:
            connection: In a transaction in which nothing has been done.
            values: Of the claim.
            free: A study that nobody else must be writing to.
        """
        driver: Any = connection.connection.driver_connection
        try:
            with driver.pipeline():
                if free is not None:
                    driver.execute("SELECT 1 FROM rs_studies WHERE study_id = %s FOR UPDATE", [free])
                driver.execute(_BEGIN)
                cursor = driver.execute(self._text, {**self._constants, **values}, prepare=True)
                driver.commit()
            return _Found(*cursor.fetchone())
        except driver_errors() as error:
            if driver.closed:
                connection.invalidate(error)
            raise DBAPIError(self._text, None, error, connection_invalidated=driver.closed) from error


def take_lease(
    connection: Connection, database: Database, row: Mapping[Any, Any], worker_id: str, seconds: float
) -> dict[str, Any]:
    """Insert a lease on the study of a locked ``row``, which runs from now on; returns the fields of the `Lease`."""
    values: dict[str, Any] = {"study_id": row["study_id"], "worker_id": worker_id, "phase": phase_of(row)}
    until = {"expires_at": database.now + seconds, "seconds": seconds}
    token = inserted_key(connection.execute(insert(t.leases).values(values | until)))
    connection.execute(update(t.studies).where(t.studies.c.study_id == row["study_id"]).values(_changes(database)))
    if row["state"] == _QUEUED:
        happened(connection, row["study_id"], "study.running")
    return {"token": token, **values, "ordinal": row["leases"]}


def phase_of(row: Mapping[Any, Any]) -> str:
    """What the worker of a study has to do."""
    return "finalize" if row["state"] == _FINALIZING else "search"


def _changes(database: Database) -> dict[str, ColumnElement[Any]]:
    """What a lease changes in the row of its study."""
    s, now = t.studies.c, database.now
    queued = s.state == _QUEUED
    return {
        "leases": s.leases + 1,
        "held": s.held + 1,
        "served_at": now,
        "state": case((queued, StudyState.RUNNING.value), else_=s.state),
        "reason": case((queued, None), else_=s.reason),
        "started_at": case((queued, func.coalesce(s.started_at, now)), else_=s.started_at),
    }


def _claim(database: Database) -> Any:
    """PostgreSQL's claim, as one row (`_Found`): the study that is next of those with a priority of at least `least`, but
    for the `busy` ones, locked and leased.

    The answer is kept as `Database.write_once` does, by the key `once`: a repeat returns that of the first run.
    """
    once, seconds = bindparam("once", type_=String), bindparam("for_seconds", type_=Float(53))
    known = select(t.writes.c.answer).where(t.writes.c.key == once).cte("known")
    free = t.studies.c.study_id != all_(bindparam("busy", type_=ARRAY(Integer)))
    following = next_study(database, free, t.studies.c.priority >= bindparam("least", type_=Integer))
    following = following.add_columns(t.studies.c.priority).subquery("following")
    chosen = select(following.c.study_id, following.c.priority).where(~exists(select(known.c.answer))).cte("chosen")
    locked = _locked(database, chosen)
    phase = case((locked.c.state == _FINALIZING, "finalize"), else_="search")
    worker = bindparam("worker", type_=String)
    lease = select(locked.c.study_id, worker, phase, database.now + seconds, seconds)
    names = ["study_id", "worker_id", "phase", "expires_at", "seconds"]
    added = insert(t.leases).from_select(names, lease).returning(*(t.leases.c[name] for name in ("token", *names[:3])))
    taken = added.cte("taken")
    of_it = update(t.studies).where(t.studies.c.study_id == locked.c.study_id)
    served = of_it.values(_changes(database)).returning(*(t.studies.c[name] for name in COPIED)).cte("served")
    queued = exists().where(locked.c.state == _QUEUED)
    event = insert(t.events).from_select(*event_of(served, literal("study.running"), database.now, queued)).cte("event")
    fields = {name: taken.c[name] for name in ("token", "study_id", "worker_id", "phase")} | {"ordinal": locked.c.leases}
    pairs = [part for name, value in fields.items() for part in (literal(name), value)]
    answer = cast(func.json_build_array(literal(""), func.json_build_object(*pairs)), String)
    remembered = select(once, database.now, answer).select_from(taken.join(locked, true()))
    kept = insert(t.writes).from_select(["key", "at", "answer"], remembered).returning(t.writes.c.answer).cte("kept")
    found = func.coalesce(_only(kept.c.answer), _only(known.c.answer))
    return select(_only(chosen.c.study_id), _only(chosen.c.priority), found).add_cte(event)


def _locked(database: Database, chosen: CTE) -> CTE:
    """The study that is chosen with its row locked, unless others lock it, or it needs no worker any more."""
    s = t.studies.alias("locked_study")
    query = select(s.c.study_id, s.c.state, s.c.leases).where(s.c.study_id == _only(chosen.c.study_id))
    return query.where(needs_worker(database, s)).with_for_update(of=s, skip_locked=True).cte("locked")


def _only(column: ColumnElement[Any]) -> Any:
    return select(column).scalar_subquery()
