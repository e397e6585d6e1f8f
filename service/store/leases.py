"""Leases: which worker may write to which study, and what happens to the trials of a lost worker. Thread-safe.

A lease is valid while it is renewed, by the database's clock. Claiming and reaping first remove expired leases: their
trials return to WAITING with the same number and parameters, and their token is no longer valid. As that clock may be set,
a process takes a lease away only if by its own monotonic clock, too, it has not been renewed for a while.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from sqlalchemy import Connection, Row, RowMapping, and_, bindparam, delete, exists, func, insert, or_, select, text, update
from sqlalchemy.sql.elements import ColumnElement

from service.errors import LeaseLost, NotFound
from service.store import tables as t
from service.store.engine import Database
from service.store.finals import put_back_finals
from service.store.happenings import happened
from service.store.records import SEARCHED, Lease, StudyState
from service.store.retries import put_back
from service.store.rows import count, end_study, inserted_key, lock_study, settle
from service.store.sightings import Sightings, has_ended

_CLAIM_LOCK = 0x7265_6774
_ENDED = 0.0
"""When a lease expires whose worker is known to be dead."""


class Leases:
    """Claims on studies."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sightings = Sightings()
        # Built once: constructing such a query costs more than running it.
        self._queue = self._next()
        self._locked = self._next(t.studies.c.study_id == bindparam("study")).with_for_update(of=t.studies)

    def claim(self, worker_id: str, seconds: float) -> Lease | None:
        """Lease the next study that needs a worker, for ``seconds``; None if there is nothing to do.

        Order: priority, then the owner with the fewest leases, then the study with the fewest, then the study that was
        claimed the longest ago. A study in `finalizing` is leased to one worker at a time, one of a module to workers that
        have published it.
        """
        self.reap(seconds)
        mine = {"worker": worker_id}
        if self._database.read(lambda connection: connection.execute(self._queue, mine).first()) is None:
            return None  # an idle worker takes no write lock

        def work(connection: Connection) -> dict[str, Any] | None:
            row = self._first_of_queue(connection, worker_id)
            if row is None:
                return None
            phase = "finalize" if row["state"] == StudyState.FINALIZING else "search"
            token = _taken(connection, self._database, row, worker_id, phase, seconds)
            taken = {"token": token, "study_id": row["study_id"], "worker_id": worker_id, "phase": phase}
            return {**taken, "ordinal": row["leases"]}

        answer = self._database.write_once(work)
        return None if answer is None else Lease(**answer)

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
            phase = "finalize" if row["state"] == StudyState.FINALIZING else "search"
            mine = (t.leases.c.study_id == study_id) & (t.leases.c.worker_id == client)
            until = {"expires_at": self._database.now + seconds, "seconds": seconds}
            token = connection.execute(update(t.leases).where(mine).values(until).returning(t.leases.c.token)).scalar()
            if token is None:
                token = _taken(connection, self._database, row, client, phase, seconds)
            return {"token": token, "study_id": study_id, "worker_id": client, "phase": phase, "ordinal": row["leases"]}

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

    def _first_of_queue(self, connection: Connection, worker_id: str) -> RowMapping | None:
        """The next study, with its row locked.

        Claims are serialized, so that each sees the leases of the earlier ones. A study may no longer need a worker by the
        time its row is locked; the queue is then queried again.
        """
        mine = {"worker": worker_id}
        if self._database.is_sqlite:
            return connection.execute(self._queue, mine).mappings().first()
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _CLAIM_LOCK})
        while (row := connection.execute(self._queue, mine).mappings().first()) is not None:
            locked = connection.execute(self._locked, {**mine, "study": row["study_id"]}).mappings().first()
            if locked is not None:
                return locked
        return None

    def _next(self, *conditions: ColumnElement[bool]) -> Any:
        """The query for the next study."""
        s, other = t.studies, t.studies.alias("other")
        # Each is counted once, not once per study of the queue.
        held_of = select(t.leases.c.study_id, func.count().label("n")).group_by(t.leases.c.study_id).subquery()
        leased = t.leases.join(other, other.c.study_id == t.leases.c.study_id)
        owned_of = select(other.c.owner, func.count().label("n")).select_from(leased).group_by(other.c.owner).subquery()
        held, owned = func.coalesce(held_of.c.n, 0), func.coalesce(owned_of.c.n, 0)
        joined = s.outerjoin(held_of, held_of.c.study_id == s.c.study_id)
        joined = joined.outerjoin(owned_of, owned_of.c.owner == s.c.owner)
        in_time = or_(
            s.c.budget_seconds.is_(None),
            s.c.started_at.is_(None),
            self._database.now <= s.c.started_at + s.c.budget_seconds,
        )
        has_work = or_(s.c.waiting > 0, and_(s.c.asked < s.c.budget_trials, in_time))
        has_room = or_(s.c.max_parallel.is_(None), s.c.running < s.c.max_parallel)
        searchable = and_(s.c.state.in_(SEARCHED), has_work, has_room)
        finalizable = and_(s.c.state == StudyState.FINALIZING.value, held == 0)
        open_states = s.c.state.in_((*SEARCHED, StudyState.FINALIZING))  # implied, but lets the index be used
        query = select(s.c.study_id, s.c.state, s.c.leases).select_from(joined)
        has_it = exists().where(t.modules.c.worker_id == bindparam("worker"), t.modules.c.name == s.c.module)
        ours = and_(s.c.executor == "workers", or_(s.c.module.is_(None), has_it))
        query = query.where(open_states, ours, or_(searchable, finalizable), *conditions)
        served = func.coalesce(s.c.served_at, 0.0)
        return query.order_by(s.c.priority.desc(), owned, held, served, s.c.study_id).limit(1)

    def renew(self, lease: Lease, seconds: float) -> StudyState:
        """Extend a lease to ``seconds`` from now; returns the study's state, after which the worker may have to stop.

        Raises:
            LeaseLost: The lease has expired and was reaped, or the study was ended.
        """

        def work(connection: Connection) -> StudyState:
            mine = update(t.leases).where(t.leases.c.token == lease.token)
            until = {"expires_at": self._database.now + seconds, "seconds": seconds}
            if connection.execute(mine.values(until)).rowcount == 0:
                raise LeaseLost(f"lease {lease.token} on study {lease.study_id} is gone")
            state = select(t.studies.c.state).where(t.studies.c.study_id == lease.study_id)
            return StudyState(connection.execute(state).scalar_one())

        state = self._database.write(work)
        self.reap(seconds)  # so that trials of lost workers return although no worker claims: all may be busy
        return state

    def release(self, lease: Lease) -> None:
        """Give a lease back. Trials still running under it return to WAITING; this does not count as an attempt."""

        def work(connection: Connection) -> None:
            lock_study(connection, lease.study_id)
            if connection.execute(delete(t.leases).where(t.leases.c.token == lease.token)).rowcount:
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
        found, overdue = self._database.read(self._due)
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
            unrenewed = t.leases.c.token == token
            if expires_at is not None:
                unrenewed = and_(unrenewed, t.leases.c.expires_at == expires_at)
            phase = connection.execute(delete(t.leases).where(unrenewed).returning(t.leases.c.phase)).scalar()
            if phase is None:
                return False
            trained = connection.execute(select(_in_training(study_id))).scalar_one()
            self._put_back(connection, token, study_id, lost=True)
            row = count(connection, study_id, lost_leases=1, lost_in_a_row=0 if trained or program else 1)
            if row["lost_in_a_row"] >= row["max_lost"] and row["state"] in (*SEARCHED, StudyState.FINALIZING):
                doing = "loaded its data and prepared its search" if phase == "search" else "finalized it"
                reason = f"{row['lost_in_a_row']} workers in a row were lost, the last while it {doing}: {because}"
                end_study(connection, self._database, study_id, StudyState.FAILED, reason)
            return True

        return self._database.write_once(work)

    def _due(self, connection: Connection) -> tuple[Sequence[Row[Any]], list[int]]:
        """Read without a write lock: all leases with ``now``, and studies past their time budget without one."""
        now, s = self._database.now, t.studies
        columns = (t.leases.c.token, t.leases.c.study_id, t.leases.c.expires_at, t.leases.c.seconds)
        query = select(*columns, now.label("now"))
        found = connection.execute(query.order_by(t.leases.c.token)).all()
        leased = select(t.leases.c.token).where(t.leases.c.study_id == s.c.study_id).correlate(s).exists()
        idle = and_(s.c.state.in_(SEARCHED), s.c.running == 0, s.c.waiting == 0, ~leased)
        overdue = select(s.c.study_id).where(idle, now > s.c.started_at + s.c.budget_seconds)
        return found, list(connection.execute(overdue).scalars())

    def others_wait(self, lease: Lease) -> bool:
        """Whether another study of the same or a higher priority has work and no worker."""
        s = t.studies
        priority = select(s.c.priority).where(s.c.study_id == lease.study_id).scalar_subquery()
        leased = select(t.leases.c.token).where(t.leases.c.study_id == s.c.study_id).correlate(s).exists()
        query = self._next(s.c.study_id != lease.study_id, s.c.priority >= priority, ~leased)
        mine = {"worker": lease.worker_id}
        return self._database.read(lambda connection: connection.execute(query, mine).first() is not None)

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


def _taken(
    connection: Connection,
    database: Database,
    row: RowMapping,
    worker_id: str,
    phase: str,
    seconds: float,
) -> int:
    """Insert a lease on the study of a locked ``row``, which runs from now on; returns its token."""
    values: dict[str, Any] = {"study_id": row["study_id"], "worker_id": worker_id, "phase": phase}
    values |= {"expires_at": database.now + seconds, "seconds": seconds}
    token = inserted_key(connection.execute(insert(t.leases).values(values)))
    study = update(t.studies).where(t.studies.c.study_id == row["study_id"])
    if row["state"] == StudyState.QUEUED:
        started = {"state": StudyState.RUNNING.value, "reason": None}
        first = {"started_at": func.coalesce(t.studies.c.started_at, database.now)}
        connection.execute(study.values(started | first))
        happened(connection, row["study_id"], "study.running")
    connection.execute(study.values(leases=t.studies.c.leases + 1, served_at=database.now))
    return token


def _in_training(study_id: int) -> ColumnElement[bool]:
    """Whether a running trial of a study, of whichever worker, has reported an epoch."""
    running = and_(t.trials.c.study_id == study_id, t.trials.c.lease_token.is_not(None))
    return select(t.trials.c.trial_id).where(running, t.o_steps.c.trial_id == t.trials.c.trial_id).exists()
