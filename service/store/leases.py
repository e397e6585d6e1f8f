"""Leases: which worker may write to which study, and what becomes of trials whose worker was lost. Thread-safe.

A lease lives while it is renewed; the database's clock decides. Whoever claims or reaps takes expired leases away first:
their trials go back to WAITING with the same number and parameters, and the token they were written under is void.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from optuna.trial import TrialState as OptunaState
from sqlalchemy import Connection, and_, bindparam, delete, func, insert, or_, select, update
from sqlalchemy.sql.elements import ColumnElement

from service.errors import LeaseLost
from service.store import tables as t
from service.store.engine import Database
from service.store.records import SEARCHED, Lease, StudyState
from service.store.rows import count, finish_trials, inserted_key, lock_study, settle


class Leases:
    """Claims on studies."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def claim(self, worker_id: str, seconds: float) -> Lease | None:
        """The next study that needs a worker, leased for so long; None while there is nothing to do.

        Order: priority, then the owner with the fewest leases, then the study with the fewest, then the one that was
        served the longest ago. A study being finalized is leased to one worker only.
        """
        self.reap()
        self._settle_overdue()

        def work(connection: Connection) -> Lease | None:
            row = connection.execute(self._next()).mappings().first()
            if row is None:
                return None
            phase = "finalize" if row["state"] == StudyState.FINALIZING else "search"
            if phase == "finalize" and self._is_held(connection, row["study_id"]):
                return None  # another worker was faster, between this statement's snapshot and its lock
            expires = self._database.now + seconds
            values = {"study_id": row["study_id"], "worker_id": worker_id, "phase": phase, "expires_at": expires}
            token = inserted_key(connection.execute(insert(t.leases).values(values)))
            if row["state"] == StudyState.QUEUED:
                started = {"state": StudyState.RUNNING.value, "reason": None}
                first = {"started_at": func.coalesce(t.studies.c.started_at, self._database.now)}
                query = update(t.studies).where(t.studies.c.study_id == row["study_id"])
                connection.execute(query.values(started | first))
            counted = update(t.studies).where(t.studies.c.study_id == row["study_id"])
            connection.execute(counted.values(leases=t.studies.c.leases + 1, served_at=self._database.now))
            return Lease(token, row["study_id"], worker_id, phase, row["leases"])  # type: ignore[arg-type]

        return self._database.write(work)

    def _next(self, *conditions: ColumnElement[bool]) -> Any:
        """The query for the next study, its row locked and rows locked by others passed over."""
        s = t.studies
        held = select(func.count()).where(t.leases.c.study_id == s.c.study_id).correlate(s).scalar_subquery()
        other = s.alias("other")
        of_owner = (
            select(func.count())
            .select_from(t.leases.join(other, other.c.study_id == t.leases.c.study_id))
            .where(other.c.owner == s.c.owner)
            .correlate(s)
            .scalar_subquery()
        )
        in_time = or_(
            s.c.budget_seconds.is_(None),
            s.c.started_at.is_(None),
            self._database.now <= s.c.started_at + s.c.budget_seconds,
        )
        has_work = or_(s.c.waiting > 0, and_(s.c.asked < s.c.budget_trials, in_time))
        has_room = or_(s.c.max_parallel.is_(None), s.c.running < s.c.max_parallel)
        searchable = and_(s.c.state.in_(SEARCHED), has_work, has_room)
        finalizable = and_(s.c.state == StudyState.FINALIZING.value, held == 0)
        query = select(s.c.study_id, s.c.state, s.c.leases).where(or_(searchable, finalizable), *conditions)
        served = func.coalesce(s.c.served_at, 0.0)
        query = query.order_by(s.c.priority.desc(), of_owner, held, served, s.c.study_id).limit(1)
        return query.with_for_update(skip_locked=True, of=s)

    def _is_held(self, connection: Connection, study_id: int) -> bool:
        query = select(t.leases.c.token).where(t.leases.c.study_id == study_id).limit(1)
        return connection.execute(query).first() is not None

    def _settle_overdue(self) -> None:
        """Move on studies whose time ran out while no worker was at them."""
        s = t.studies
        idle = and_(s.c.state.in_(SEARCHED), s.c.running == 0, s.c.waiting == 0)
        overdue = select(s.c.study_id).where(idle, self._database.now > s.c.started_at + s.c.budget_seconds)
        for study_id in self._database.read(lambda connection: connection.execute(overdue).scalars().all()):
            self._database.write(partial(self._settle, study_id))

    def _settle(self, study_id: int, connection: Connection) -> None:
        settle(connection, self._database, study_id)

    def renew(self, lease: Lease, seconds: float) -> StudyState:
        """Keep a lease for so long from now; returns the study's state, which may ask the worker to stop.

        Raises:
            LeaseLost: It was taken away.
        """

        def work(connection: Connection) -> StudyState:
            mine = update(t.leases).where(t.leases.c.token == lease.token)
            if connection.execute(mine.values(expires_at=self._database.now + seconds)).rowcount == 0:
                raise LeaseLost(f"lease {lease.token} on study {lease.study_id} is gone")
            state = select(t.studies.c.state).where(t.studies.c.study_id == lease.study_id)
            return StudyState(connection.execute(state).scalar_one())

        return self._database.write(work)

    def release(self, lease: Lease) -> None:
        """Give a lease back; trials still running under it wait for the next worker, without counting as an attempt."""

        def work(connection: Connection) -> None:
            lock_study(connection, lease.study_id)
            if connection.execute(delete(t.leases).where(t.leases.c.token == lease.token)).rowcount:
                self._put_back(connection, lease.token, lease.study_id, lost=False)

        self._database.write(work)

    def reap(self) -> int:
        """Take away every expired lease; returns how many.

        Their trials wait to be retried; one that has lost more workers than the study's ``max_retries`` fails.
        """

        def work(connection: Connection) -> int:
            expired = select(t.leases.c.token, t.leases.c.study_id).where(t.leases.c.expires_at < self._database.now)
            # The study is locked before its lease, as everywhere; whoever comes second finds nothing left to delete.
            rows = connection.execute(expired.order_by(t.leases.c.study_id, t.leases.c.token)).all()
            reaped = 0
            for token, study_id in rows:
                lock_study(connection, study_id)
                still = and_(t.leases.c.token == token, t.leases.c.expires_at < self._database.now)
                if connection.execute(delete(t.leases).where(still)).rowcount:
                    self._put_back(connection, token, study_id, lost=True)
                    count(connection, study_id, lost_leases=1)
                    reaped += 1
            return reaped

        return self._database.write(work) if self._any_expired() else 0

    def others_wait(self, lease: Lease) -> bool:
        """Whether another study of at least this one's priority has work and no worker."""
        s = t.studies
        priority = select(s.c.priority).where(s.c.study_id == lease.study_id).scalar_subquery()
        leased = select(t.leases.c.token).where(t.leases.c.study_id == s.c.study_id).correlate(s).exists()
        query = self._next(s.c.study_id != lease.study_id, s.c.priority >= priority, ~leased)
        return self._database.write(lambda connection: connection.execute(query).first() is not None)

    def expire(self, worker_id: str) -> None:
        """Let the leases of a worker that is known to be dead run out now, instead of when their time is over."""
        mine = update(t.leases).where(t.leases.c.worker_id == worker_id)
        self._database.write(lambda connection: connection.execute(mine.values(expires_at=0.0)))

    def lost(self) -> int:
        """Leases that were ever reaped."""
        query = select(func.coalesce(func.sum(t.studies.c.lost_leases), 0))
        return int(self._database.read(lambda connection: connection.execute(query).scalar_one()))

    def _any_expired(self) -> bool:
        """Whether there is anything to reap, asked without a write lock."""
        query = select(t.leases.c.token).where(t.leases.c.expires_at < self._database.now).limit(1)
        return self._database.read(lambda connection: connection.execute(query).first() is not None)

    def _put_back(self, connection: Connection, token: int, study_id: int, *, lost: bool) -> None:
        query = select(t.trials.c.trial_id, t.trials.c.attempt).where(t.trials.c.lease_token == token)
        rows = connection.execute(query.order_by(t.trials.c.trial_id)).all()
        retries = lock_study(connection, study_id)["max_retries"]
        given_up = [row.trial_id for row in rows if lost and row.attempt + 1 > retries]
        again = [row.trial_id for row in rows if row.trial_id not in set(given_up)]
        if again:
            connection.execute(delete(t.o_steps).where(t.o_steps.c.trial_id.in_(again)))
            waits = {"state": OptunaState.WAITING, "datetime_start": None}
            connection.execute(update(t.o_trials).where(t.o_trials.c.trial_id.in_(again)).values(waits))
            free = update(t.trials).where(t.trials.c.trial_id.in_(again))
            connection.execute(free.values(lease_token=None, attempt=t.trials.c.attempt + int(lost)))
            count(connection, study_id, running=-len(again), waiting=len(again))
        if given_up:
            self._give_up(connection, study_id, given_up)
        settle(connection, self._database, study_id)

    def _give_up(self, connection: Connection, study_id: int, ids: Sequence[int]) -> None:
        """Fail trials that have cost too many workers already."""
        told = lock_study(connection, study_id)["told"]
        finish_trials(connection, ids, OptunaState.FAIL)
        change = update(t.trials).where(t.trials.c.trial_id == bindparam("b_id"))
        change = change.values(
            seq=bindparam("b_seq"), lease_token=None, attempt=t.trials.c.attempt + 1, stop_reason="worker lost"
        )
        rows = [{"b_id": trial_id, "b_seq": told + place + 1} for place, trial_id in enumerate(ids)]
        connection.execute(change, rows)
        count(connection, study_id, running=-len(ids), fail=len(ids), told=len(ids))
