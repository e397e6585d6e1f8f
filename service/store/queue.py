"""Which study is next: the one query that every claim begins with. Its cost grows with owners, not with queued studies.

The index `rs_studies_next` has open studies by priority and owner, and within these in the order in which they are served. A
recursive query jumps from one pair of priority and owner to the next, and takes the first study of each that needs a worker;
of these few, the one of the owner with the fewest leases is next.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import FromClause, ScalarSelect, Select, and_, any_, bindparam, exists, func, or_, select, tuple_
from sqlalchemy.sql.elements import ColumnElement

from service.store import tables as t
from service.store.engine import Database
from service.store.records import SEARCHED, StudyState


def next_study(database: Database, *conditions: ColumnElement[bool]) -> Any:
    """The query for the next study for `worker`, of those in ``conditions`` on `t.studies`.

    Order: priority, then the owner with the fewest leases, then the study with the fewest, then the study that was claimed
    the longest ago.
    """
    s, kind = t.studies, t.studies.alias("kind")
    pairs = _pairs()
    of_pair = (s.c.priority == kind.c.priority) & (s.c.owner == kind.c.owner)
    first = select(s.c.study_id).where(needs_worker(database, s), of_pair, *conditions).correlate(kind)
    firsts = select(_first(first.order_by(s.c.held, s.c.served_at, s.c.study_id)))
    found = firsts.where(_among(database, kind.c.study_id, select(pairs.c.study_id)))
    # An owner's leases are counted once, not once per study.
    other = t.studies.alias("other")
    owned = (
        select(other.c.owner, func.sum(other.c.held).label("n")).where(t.leased(other)).group_by(other.c.owner).subquery()
    )
    joined = s.outerjoin(owned, owned.c.owner == s.c.owner)
    order = (s.c.priority.desc(), func.coalesce(owned.c.n, 0), s.c.held, s.c.served_at, s.c.study_id)
    query = select(s.c.study_id, s.c.state, s.c.leases).select_from(joined)
    return query.where(_among(database, s.c.study_id, found)).order_by(*order).limit(1)


def next_study_locked(database: Database) -> Any:
    """The same study with its row locked; nothing if there is none, or if it needs no worker once its row is locked."""
    s = t.studies.alias("locked")
    following = next_study(database).with_only_columns(t.studies.c.study_id).scalar_subquery()
    query = select(s.c.study_id, s.c.state, s.c.leases)
    return query.where(s.c.study_id == following, needs_worker(database, s)).with_for_update()


def needs_worker(database: Database, s: FromClause) -> ColumnElement[bool]:
    """Whether a study needs the worker `worker`: it has trials to run, or is to be finalized, and its module and as many
    devices as it wants are there.
    """
    in_time = or_(
        s.c.budget_seconds.is_(None), s.c.started_at.is_(None), database.now <= s.c.started_at + s.c.budget_seconds
    )
    has_work = or_(s.c.waiting > 0, and_(s.c.asked < s.c.budget_trials, in_time))
    has_room = or_(s.c.max_parallel.is_(None), s.c.running < s.c.max_parallel)
    searchable = and_(s.c.state.in_(SEARCHED), has_work, has_room)
    finalizable = and_(s.c.state == StudyState.FINALIZING.value, s.c.held == 0)
    has_it = exists().where(t.modules.c.worker_id == bindparam("worker"), t.modules.c.name == s.c.module)
    enough = exists().where(t.workers.c.id == bindparam("worker"), t.workers.c.devices >= s.c.devices)
    suits = and_(or_(s.c.module.is_(None), has_it), or_(s.c.devices == 1, enough))
    return and_(t.open_for_workers(s), suits, or_(searchable, finalizable))


def _pairs() -> FromClause:
    """One open study of each pair of priority and owner, by one look into the index for each; the last row is null."""
    s, last = t.studies.alias("pair"), t.studies.alias("last")
    backwards = (s.c.priority.desc(), s.c.owner.desc())
    some = select(s.c.study_id).where(t.open_for_workers(s)).order_by(*backwards)
    pairs = select(_first(some).label("study_id")).cte("pairs", recursive=True)
    before = tuple_(s.c.priority, s.c.owner) < tuple_(last.c.priority, last.c.owner)
    further = _first(some.where(before).correlate(last))
    return pairs.union_all(select(further).select_from(pairs.join(last, last.c.study_id == pairs.c.study_id)))


def _among(database: Database, column: ColumnElement[int], ids: Select[Any]) -> ColumnElement[bool]:
    """Whether a column is one of a few ids. PostgreSQL, which does not know that they are few, would read the whole table
    to join it with them; of an array it expects ten.
    """
    return column.in_(ids) if database.is_sqlite else column == any_(func.array(ids.scalar_subquery()))


def _first(query: Any) -> ScalarSelect[int]:
    found: ScalarSelect[int] = query.limit(1).scalar_subquery()
    return found
