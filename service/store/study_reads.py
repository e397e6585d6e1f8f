"""Reading studies: one, pages of them, what was changed in them. Thread-safe."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, assert_never

from sqlalchemy import ColumnElement, Connection, case, func, select

from service.errors import NotFound
from service.store import tables as t
from service.store.actors import Actor, ChangeRecord
from service.store.engine import Database
from service.store.records import SEARCHED, StudyOrder, StudyRecord, StudyState
from service.store.rows import moment
from service.store.study_rows import best_params, study_record


class StudyReads:
    """What is read of studies. Every method about one raises `NotFound` for an unknown id."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, study_id: int, owner: str | None = None) -> StudyRecord:
        """One study, of anybody or of an ``owner``."""

        def work(connection: Connection) -> StudyRecord:
            query = select(t.studies, self._database.now.label("now")).where(t.studies.c.study_id == study_id)
            if owner is not None:
                query = query.where(t.studies.c.owner == owner)
            row = connection.execute(query).mappings().first()
            if row is None:
                raise NotFound("study", study_id)
            return study_record(row, best_params(connection, [row]))

        return self._database.read(work)

    def versions(self, study_ids: Sequence[int]) -> dict[int, str]:
        """What changes whenever there is news of a study, by id; studies that are not there are left out.

        Its first part, up to a bar, counts what people have changed.
        """
        s = t.studies
        columns = (s.c.state, s.c.told, s.c.asked, s.c.running, s.c.budget_trials, s.c.best_number)
        query = select(s.c.study_id, s.c.revision, *columns).where(s.c.study_id.in_(study_ids))
        rows = self._database.read(lambda connection: connection.execute(query).all())
        return {row.study_id: f"{row.revision}|{'-'.join(map(str, row[2:]))}" for row in rows}

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
        name: str | None = None,
        tags: Sequence[str] = (),
        metric: str | None = None,
        sort: StudyOrder = "newest",
        offset: int = 0,
        limit: int = 50,
    ) -> tuple[Sequence[StudyRecord], int]:
        """A page of studies without their results, and the number of all that match.

        ``name`` is a part of theirs, in letters of any case; they have all ``tags``. Sorted by ``best``, those without a
        value come last; of equals the newest comes first.
        """

        def work(connection: Connection) -> tuple[Sequence[StudyRecord], int]:
            matching = [] if state is None else [t.studies.c.state == state.value]
            matching += [] if owner is None else [t.studies.c.owner == owner]
            matching += [] if name is None else [t.studies.c.name.icontains(name, autoescape=True)]
            matching += [] if metric is None else [t.studies.c.metric == metric]
            matching += [_has_tag(tag) for tag in tags]
            total = connection.execute(select(func.count()).select_from(t.studies).where(*matching)).scalar_one()
            columns = [column for column in t.studies.c if column.name != "result"]
            query = select(*columns, self._database.now.label("now")).where(*matching)
            query = query.order_by(*_order(sort), t.studies.c.study_id.desc()).offset(offset).limit(limit)
            rows = connection.execute(query).mappings().all()
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
