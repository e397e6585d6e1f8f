"""Leases: which worker may write to which study, and what happens to the trials of a lost worker. Thread-safe.

A lease is valid while it is renewed, by the database's clock. Claiming and reaping first remove expired leases: their
trials return to WAITING with the same number and parameters, and their token is no longer valid. As that clock may be set,
a process takes a lease away only if by its own monotonic clock, too, it has not been renewed for a while.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from sqlalchemy import (
    Connection,
    Float,
    FromClause,
    and_,
    bindparam,
    exists,
    func,
    null,
    or_,
    select,
    update,
)
from sqlalchemy.sql.elements import ColumnElement

from service.errors import LeaseLost, NotFound
from service.store import tables as t
from service.store.claims import Claims, phase_of, take_lease
from service.store.engine import Database, unhurried
from service.store.finals import put_back_finals
from service.store.queue import next_study
from service.store.records import SEARCHED, Lease, StudyState
from service.store.retries import put_back
from service.store.rows import count, end_study, lock_study, remove_leases, settle
from service.store.sightings import OF_ANOTHER_TIME, Sightings, has_ended

_ENDED = 0.0
"""When a lease expires whose worker is known to be dead."""

_WATCHED = 50
"""Most leases that a renewal looks at. Where there are more, there is always somebody whose time to `reap` has come."""


class Leases:
    """Claims on studies."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sightings = Sightings()
        self._reaped = -math.inf
        self._idle = True
        self._claims = Claims(database)
        # Built once: constructing such a query costs more than running it.
        self._others = next_study(database, *_others())
        self._renewal = _renewal(database)
        self._due = _due(database)

    def claim(self, worker_id: str, seconds: float) -> Lease | None:
        """Lease the next study that needs a worker, for ``seconds``; None if there is nothing to do.

        Order: priority, then the owner with the fewest leases, then the study with the fewest, then the study that was
        claimed the longest ago. A study in `finalizing` is leased to one worker at a time, one of a module to workers that
        have published it.
        """
        self.reap(seconds)
        # An idle worker takes no write lock: one that has found nothing looks first.
        if self._idle and self._claims.is_empty(worker_id):
            return None
        taken = self._claims.take(worker_id, seconds)
        self._idle = taken is None
        return None if taken is None else Lease(**taken)

    def hold(self, study_id: int, client: str, seconds: float) -> Lease | None:
        """The lease of a user's program on an external study, renewed, or a new one; None where there is nothing to do.

        Args:
            study_id: Of a study whose trials a program runs.
            client: What the program calls itself; the only one that knows it, so that nobody else writes for it.
            seconds: For how long.

        Raises:
            NotFound: There is no such study.
        """

        def work(connection: Connection) -> dict[str, Any] | None:
            row = lock_study(connection, study_id)
            if row["state"] not in (*SEARCHED, StudyState.FINALIZING):
                return None
            mine = (t.leases.c.study_id == study_id) & (t.leases.c.worker_id == client)
            until = {"expires_at": self._database.now + seconds, "seconds": seconds}
            token = connection.execute(update(t.leases).where(mine).values(until).returning(t.leases.c.token)).scalar()
            if token is None:
                return take_lease(connection, self._database, row, client, seconds)
            return {
                "token": token,
                "study_id": study_id,
                "worker_id": client,
                "phase": phase_of(row),
                "ordinal": row["leases"],
            }

        answer = self._database.write_once(work)
        return None if answer is None else Lease(**answer)

    def held(self, study_id: int, client: str) -> Lease:
        """The lease that a program holds.

        Raises:
            LeaseLost: It holds none.
        """
        mine = (t.leases.c.study_id == study_id) & (t.leases.c.worker_id == client)
        query = select(t.leases.c.token, t.leases.c.phase).where(mine)
        row = self._database.read(lambda connection: connection.execute(query).first())
        if row is None:
            raise LeaseLost(f"no program {client} holds trials of study {study_id}: its lease has expired")
        return Lease(row.token, study_id, client, row.phase, 0)

    def renew(self, lease: Lease, seconds: float) -> StudyState:
        """Extend a lease to ``seconds`` from now; returns the study's state, after which the worker may have to stop.

        Raises:
            LeaseLost: The lease has expired and was reaped, or the study was ended.
        """
        values = {"mine": lease.token, "of_study": lease.study_id, "for_seconds": seconds}
        row = next(iter(self._database.alone(self._renewal, values, reading=False)), None)
        if row is None:
            raise LeaseLost(f"lease {lease.token} on study {lease.study_id} is gone")
        # So that trials of lost workers return although no worker claims: all may be busy.
        if row.suspects or time.monotonic() - self._reaped > seconds:
            self.reap(seconds)
        return StudyState(row.state)

    def release(self, lease: Lease) -> None:
        """Give a lease back. Trials still running under it return to WAITING; this does not count as an attempt."""

        def work(connection: Connection) -> None:
            lock_study(connection, lease.study_id)
            if remove_leases(connection, lease.study_id, t.leases.c.token == lease.token):
                self._put_back(connection, lease.token, lease.study_id, lost=False)

        self._database.write(work)

    def give_up(self, lease: Lease, because: str) -> None:
        """End a lease whose worker could not go on, as if it had been lost: the study may fail, with ``because`` told."""
        with suppress(NotFound):
            self._take_away(lease.token, lease.study_id, None, because)

    def reap(self, seconds: float = 0.0) -> int:
        """Remove all expired leases; returns the number that this call removed.

        ``seconds`` is for how long leases are renewed of which that is not known; 0 is to wait for none. A lease is removed
        if this process has seen it without a renewal for half of its time, and it has expired or is valid for longer than it
        can be: the clock was set. Leases that `expire` ended are removed at once.

        Their trials return to WAITING; a trial that has lost more workers than the study's ``max_retries`` fails. A study
        that loses ``max_lost`` workers in a row with no epoch reported fails, so that it does not take worker after worker.
        A study whose time budget ended while no worker had a lease on it moves to its next state as well.
        """
        self._reaped = time.monotonic()
        rows = self._database.alone(self._due, {"for_seconds": seconds})
        found, overdue = [row for row in rows if row.token is not None], [row.study_id for row in rows if row.token is None]
        seen = self._sightings.since({lease.token: lease.expires_at for lease in found})
        ended = [
            lease
            for lease in found
            if lease.expires_at == _ENDED
            or has_ended(lease.expires_at, lease.now, seen[lease.token], lease.seconds or seconds, waits=seconds > 0)
        ]
        # One transaction each: none waits for the lock of a study while it holds another.
        reaped = sum(self._take_away(lease.token, lease.study_id, lease.expires_at) for lease in ended)
        for study_id in overdue:
            with suppress(NotFound):  # deleted in the meantime
                self._database.write(partial(self._settle, study_id))
        return reaped

    def _settle(self, study_id: int, connection: Connection) -> None:
        settle(connection, self._database, lock_study(connection, study_id))

    def _take_away(
        self, token: int, study_id: int, expires_at: float | None, because: str = "killed, or out of memory"
    ) -> bool:
        """Delete a lease, unless it was renewed after ``expires_at``; returns whether it was there."""

        def work(connection: Connection) -> bool:
            # The study is locked before its lease, as everywhere; a second process then finds nothing left to delete.
            lock = select(t.studies.c.executor).where(t.studies.c.study_id == study_id).with_for_update()
            # Of a program nothing is known that would tell why it ended, or whether it had trials at all.
            program = connection.execute(lock).scalar() == "external"
            unrenewed = [] if expires_at is None else [t.leases.c.expires_at == expires_at]
            removed = remove_leases(connection, study_id, t.leases.c.token == token, *unrenewed)
            if not removed:
                return False
            phase = removed[0]["phase"]
            trained = connection.execute(select(_in_training(study_id))).scalar_one()
            self._put_back(connection, token, study_id, lost=True)
            row = count(connection, study_id, lost_leases=1, lost_in_a_row=0 if trained or program else 1)
            if row["lost_in_a_row"] >= row["max_lost"] and row["state"] in (*SEARCHED, StudyState.FINALIZING):
                doing = "loaded its data and prepared its search" if phase == "search" else "finalized it"
                reason = f"{row['lost_in_a_row']} workers in a row were lost, the last while it {doing}: {because}"
                end_study(connection, self._database, study_id, StudyState.FAILED, reason)
            return True

        return self._database.write_once(work)

    def others_wait(self, lease: Lease) -> bool:
        """Whether another study of the same or a higher priority has work and no worker."""
        mine = {"worker": lease.worker_id, "mine": lease.study_id}
        return bool(self._database.alone(self._others, mine))

    def expire(self, worker_id: str) -> None:
        """Let the leases of a worker that is known to be dead expire now."""
        mine = update(t.leases).where(t.leases.c.worker_id == worker_id)
        self._database.write(lambda connection: connection.execute(mine.values(expires_at=_ENDED)))

    def lost(self) -> int:
        """Number of leases reaped so far, over all studies."""
        query = select(func.coalesce(func.sum(t.studies.c.lost_leases), 0))
        return int(self._database.read(lambda connection: connection.execute(query).scalar_one()))

    def _put_back(self, connection: Connection, token: int, study_id: int, *, lost: bool) -> None:
        row = lock_study(connection, study_id)
        row = put_back(connection, row, t.trials.c.lease_token == token, attempt=lost)
        put_back_finals(connection, row, token, attempt=lost)
        settle(connection, self._database, row)


def _others() -> Sequence[ColumnElement[bool]]:
    """Studies without a worker that go before `mine`, or are its equals."""
    s = t.studies
    mine = s.alias("mine")
    priority = select(mine.c.priority).where(mine.c.study_id == bindparam("mine")).scalar_subquery()
    return s.c.study_id != bindparam("mine"), s.c.priority >= priority, s.c.held == 0


def _suspect(database: Database, leases: FromClause) -> ColumnElement[bool]:
    """Whether a lease has not been renewed for half of its time, as none that is alive; or the clock was set back.

    The time of a lease that does not know it is `for_seconds`. The clock is read once, and not for each lease.
    """
    left = leases.c.expires_at - select(database.now).scalar_subquery()
    whole = func.coalesce(leases.c.seconds, bindparam("for_seconds", type_=Float(53)))
    return or_(left < whole / 2, left > OF_ANOTHER_TIME * whole)


def _due(database: Database) -> Any:
    """Suspect leases, with the time ``now``; and studies past their time budget without a lease, with no token."""
    of, s, now = t.leases.c, t.studies, database.now
    suspects = select(of.token, of.study_id, of.expires_at, of.seconds, now.label("now")).where(_suspect(database, t.leases))
    idle = and_(t.timed(s), s.c.running == 0, s.c.waiting == 0, s.c.held == 0)
    overdue = select(null(), s.c.study_id, null(), null(), null()).where(idle, now > s.c.started_at + s.c.budget_seconds)
    return suspects.union_all(overdue).order_by("token")


def _renewal(database: Database) -> Any:
    """Renews the lease `mine` for `for_seconds`, and tells the state of `of_study` and whether some leases are suspect.

    SQLAlchemy names columns without their tables in SQLite's RETURNING, so nothing in it may be compared with the lease.
    """
    own, seconds = t.leases, bindparam("for_seconds", type_=Float(53))
    until = {"expires_at": database.now + seconds, "seconds": seconds}
    state = select(t.studies.c.state).where(t.studies.c.study_id == bindparam("of_study")).scalar_subquery()
    some = select(own.c.token, own.c.expires_at, own.c.seconds).limit(_WATCHED).subquery("some")
    suspects = exists(select(some.c.token).where(_suspect(database, some))).label("suspects")
    mine = update(own).where(own.c.token == bindparam("mine"), *unhurried(database.engine.dialect))
    return mine.values(until).returning(state.label("state"), suspects)


def _in_training(study_id: int) -> ColumnElement[bool]:
    """Whether a running trial of a study, of whichever worker, has reported an epoch."""
    running = and_(t.trials.c.study_id == study_id, t.trials.c.lease_token.is_not(None))
    return select(t.trials.c.trial_id).where(running, t.o_steps.c.trial_id == t.trials.c.trial_id).exists()
