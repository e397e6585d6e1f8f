"""Reading studies: one, pages of them, what was changed in them. Thread-safe."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import Any, assert_never

from sqlalchemy import ColumnElement, Connection, Integer, RowMapping, Select, bindparam, case, func, select

from service.errors import NotFound
from service.store import tables as t
from service.store.actors import Actor, ChangeRecord
from service.store.engine import Database, clock
from service.store.records import SEARCHED, StudyOrder, StudyRecord, StudyState
from service.store.rows import moment
from service.store.sharing import seen_by
from service.store.study_rows import best_params, study_record

_TAG = ("revision", "state", "told", "asked", "running", "budget_trials", "best_number")
"""Columns of which one changes whenever there is news of a study."""


class StudyReads:
    """What is read of studies. Every method about one raises `NotFound` for an unknown id."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, study_id: int, owner: str | None = None) -> StudyRecord:
        """One study, of anybody, or one that an ``owner`` may see."""
        return self.tagged(study_id, owner)[1]

    def tagged(self, study_id: int, owner: str | None = None) -> tuple[str, StudyRecord]:
        """The tag of a study (see `versions`), and the study as it was then."""

        def work(connection: Connection) -> tuple[str, StudyRecord]:
            query = _one(connection.dialect.name)
            if owner is not None:
                query = query.where(seen_by(owner))
            row = connection.execute(query, {"id": study_id}).mappings().first()
            if row is None:
                raise NotFound("study", study_id)
            return _tag(row), study_record(row, best_params(connection, [row]))

        return self._database.read(work)

    def versions(self, study_ids: Sequence[int]) -> dict[int, str]:
        """What changes whenever there is news of a study, by id; studies that are not there are left out.

        Its first part, up to a bar, counts what people have changed.
        """
        query = select(*(t.studies.c[name] for name in ("study_id", *_TAG))).where(t.studies.c.study_id.in_(study_ids))
        rows = self._database.read(lambda connection: connection.execute(query).mappings().all())
        return {row["study_id"]: _tag(row) for row in rows}

    def owner(self, study_id: int) -> str:
        """Whose it is."""
        query = select(t.studies.c.owner).where(t.studies.c.study_id == study_id)
        owner: str | None = self._database.read(lambda connection: connection.execute(query).scalar())
        if owner is None:
            raise NotFound("study", study_id)
        return owner

    def list(
        self,
        *,
        state: StudyState | None = None,
        owner: str | None = None,
        seer: str | None = None,
        name: str | None = None,
        tags: Sequence[str] = (),
        metric: str | None = None,
        sort: StudyOrder = "newest",
        offset: int = 0,
        limit: int = 50,
    ) -> tuple[Sequence[StudyRecord], int]:
        """A page of studies without their results, and the number of all that match.

        With a ``seer`` only what that owner may see. ``name`` is a part of theirs, in letters of any case; they have all
        ``tags``. Sorted by ``best``, those without a value come last; of equals the newest comes first.
        """
        count, page = _lists(self._database.engine.dialect.name, state, owner, seer, name, tuple(tags), metric, sort)

        def work(connection: Connection) -> tuple[Sequence[StudyRecord], int]:
            total = connection.execute(count).scalar_one()
            rows = connection.execute(page, {"offset": offset, "limit": limit}).mappings().all()
            params = best_params(connection, rows)
            return [study_record(row, params) for row in rows], int(total)

        return self._database.read(work)

    def open_trials(self) -> Mapping[int, int]:
        """Number of trials left in the budget of each queued, running or paused study."""
        s = t.studies
        left = s.c.budget_trials - s.c.complete - s.c.pruned - s.c.fail
        query = select(s.c.study_id, left).where(s.c.state.in_((*SEARCHED, StudyState.PAUSED)))
        return self._database.read(lambda connection: {row[0]: int(row[1]) for row in connection.execute(query)})

    def seconds_left(self, study_id: int) -> float:
        """How long trials may still run by the study's time budget; infinite without one, or before it begins."""
        s = t.studies
        query = select(s.c.budget_seconds, s.c.started_at, self._database.now.label("now")).where(s.c.study_id == study_id)
        row = self._database.read(lambda connection: connection.execute(query).first())
        if row is None or row.budget_seconds is None or row.started_at is None:
            return math.inf
        return float(row.started_at + row.budget_seconds - row.now)

    def of_workers(self) -> tuple[int, int]:
        """The number of open studies that wait for a worker, and that of the leases which workers hold."""
        s = t.studies
        waiting = select(func.count()).select_from(s).where(t.open_for_workers(s), s.c.held == 0).scalar_subquery()
        held = select(func.coalesce(func.sum(s.c.held), 0)).where(t.leased(s)).scalar_subquery()
        found = self._database.read(lambda connection: connection.execute(select(waiting, held)).one())
        return int(found[0]), int(found[1])

    def changes(self, study_id: int, *, offset: int = 0, limit: int = 50) -> tuple[Sequence[ChangeRecord], int]:
        """A page of what people have changed in a study, latest first, and the number of all changes."""

        def work(connection: Connection) -> tuple[Sequence[ChangeRecord], int]:
            mine = t.changes.c.study_id == study_id
            total = connection.execute(select(func.count()).select_from(t.changes).where(mine)).scalar_one()
            query = select(t.changes).where(mine).order_by(t.changes.c.id.desc()).offset(offset).limit(limit)
            found = []
            for row in connection.execute(query).mappings():
                at = moment(row["at"])
                assert at is not None
                found.append(ChangeRecord(at, Actor(row["owner"], row["token_id"]), json.loads(row["what"])))
            return found, int(total)

        self.owner(study_id)
        return self._database.read(work)

    def test_accesses(self, study_id: int) -> Sequence[Mapping[str, Any]]:
        """Who read the test part, when and for which purpose, oldest first."""
        query = select(t.test_accesses).where(t.test_accesses.c.study_id == study_id).order_by(t.test_accesses.c.id)
        rows = self._database.read(lambda connection: connection.execute(query).mappings().all())
        return [{"at": moment(row["at"]), "who": row["who"], "purpose": row["purpose"]} for row in rows]


@cache
def _one(dialect: str) -> Select[Any]:
    """The query of a study, with ``now``. It is made once, as making it takes longer than its answer."""
    return select(t.studies, clock(dialect).label("now")).where(t.studies.c.study_id == bindparam("id"))


@lru_cache(maxsize=64)
def _lists(
    dialect: str,
    state: StudyState | None,
    owner: str | None,
    seer: str | None,
    name: str | None,
    tags: tuple[str, ...],
    metric: str | None,
    sort: StudyOrder,
) -> tuple[Select[Any], Select[Any]]:
    """The queries of how many studies match, and of a page of them by its ``offset`` and ``limit``."""
    matching = [] if state is None else [t.studies.c.state == state.value]
    matching += [] if owner is None else [t.studies.c.owner == owner]
    matching += [] if seer is None else [seen_by(seer)]
    matching += [] if name is None else [t.studies.c.name.icontains(name, autoescape=True)]
    matching += [] if metric is None else [t.studies.c.metric == metric]
    matching += [_has_tag(tag) for tag in tags]
    columns = [column for column in t.studies.c if column.name != "result"]
    page = (
        select(*columns, clock(dialect).label("now")).where(*matching).order_by(*_order(sort), t.studies.c.study_id.desc())
    )
    count = select(func.count()).select_from(t.studies).where(*matching)
    return count, page.offset(bindparam("offset", type_=Integer)).limit(bindparam("limit", type_=Integer))


def _tag(row: RowMapping) -> str:
    return f"{row['revision']}|{'-'.join(str(row[name]) for name in _TAG[1:])}"


def _has_tag(tag: str) -> ColumnElement[bool]:
    return t.studies.c.study_id.in_(select(t.tags.c.study_id).where(t.tags.c.tag == tag))


def _order(sort: StudyOrder) -> list[ColumnElement[Any]]:
    """What comes before the newest first."""
    s = t.studies
    match sort:
        case "newest":
            return []
        case "oldest":
            return [s.c.study_id]
        case "name":
            return [func.lower(s.c.name)]
        case "priority":
            return [s.c.priority.desc()]
        case "best":
            return [case((s.c.direction == "minimize", s.c.best_value), else_=-s.c.best_value).nulls_last()]
        case "finished":
            return [s.c.finished_at.desc().nulls_last()]
        case _:
            assert_never(sort)
