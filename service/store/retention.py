"""What is old enough to be deleted, and nobody needs any more. Thread-safe.

Studies that have not ended are never touched, nor is what they begin with, nor what has the tag `keep`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields

from sqlalchemy import ColumnElement, Connection, case, delete, exists, func, select

from service.store import tables as t
from service.store.archives import replace_archive
from service.store.engine import Database
from service.store.records import ENDED

KEEP = "keep"
"""The tag of studies that are kept."""
_DAY = 86_400.0
_MOST = 500


@dataclass(frozen=True)
class Ages:
    """After how many days things are deleted; None for never.

    ``studies``: that have ended, with all that is theirs. ``models`` of such studies, whose results stay. ``datasets`` that
    no study has used. ``steps``: values after single epochs of such studies' trials, whose curves stay.
    """

    studies: float | None = None
    models: float | None = None
    datasets: float | None = None
    steps: float | None = None


@dataclass(frozen=True)
class Old:
    """Ids of what is old: at most 500 of each kind at once."""

    studies: Sequence[int] = ()
    models: Sequence[int] = ()
    datasets: Sequence[str] = ()
    steps: Sequence[int] = ()

    @property
    def things(self) -> list[str]:
        """All of it, as paths such as `studies/3`."""
        named = {"models": "studies/{}/model", "steps": "studies/{}/steps"}
        kinds = [each.name for each in fields(self)]
        return [named.get(kind, f"{kind}/{{}}").format(key) for kind in kinds for key in getattr(self, kind)]


class Retention:
    """Finding and deleting what is old."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, ages: Ages) -> Old:
        """What is older than that."""

        def work(connection: Connection) -> Old:
            needed = _needed(connection)
            s = t.studies
            with_model = exists().where(t.model_archives.c.study_id == s.c.study_id)
            with_steps = exists().where(t.o_trials.c.study_id == s.c.study_id, t.o_steps.c.trial_id == t.o_trials.c.trial_id)
            studies = self._studies(connection, ages.studies, needed)
            models = self._studies(connection, ages.models, needed, with_model)
            steps = self._studies(connection, ages.steps, set(), with_steps)
            gone = {*studies}
            datasets = self._datasets(connection, ages.datasets)
            return Old(
                studies,
                [each for each in models if each not in gone],
                datasets,
                [each for each in steps if each not in gone],
            )

        return self._database.read(work)

    def _studies(
        self, connection: Connection, days: float | None, needed: set[int], *conditions: ColumnElement[bool]
    ) -> list[int]:
        if days is None:
            return []
        s = t.studies
        kept = exists().where(t.tags.c.study_id == s.c.study_id, t.tags.c.tag == KEEP)
        old = s.c.finished_at < self._database.now - days * _DAY
        query = select(s.c.study_id).where(s.c.state.in_(ENDED), old, ~kept, *conditions).order_by(s.c.finished_at)
        found = connection.execute(query.limit(_MOST + len(needed))).scalars()
        return [study_id for study_id in found if study_id not in needed][:_MOST]

    def _datasets(self, connection: Connection, days: float | None) -> list[str]:
        """Data sets that were neither given nor used since, and that no study uses which has not ended, or is kept."""
        if days is None:
            return []
        s, d, o = t.studies, t.datasets, t.dataset_owners
        since = self._database.now - days * _DAY
        kept = exists().where(t.tags.c.study_id == s.c.study_id, t.tags.c.tag == KEEP)
        used = func.coalesce(s.c.finished_at, s.c.created_at) >= since
        busy = case((s.c.state.not_in(ENDED), True), (kept, True), (used, True), else_=False)
        users = exists().where(s.c.dataset_id == d.c.id, busy)
        given = exists().where(o.c.dataset_id == d.c.id, o.c.created_at >= since)
        query = select(d.c.id).where(d.c.created_at < since, ~users, ~given).order_by(d.c.created_at).limit(_MOST)
        return list(connection.execute(query).scalars())

    def drop_model(self, study_id: int) -> None:
        """Delete the trained model of a study, if it has ended."""

        def work(connection: Connection) -> None:
            if connection.execute(select(_has_ended(study_id))).scalar():
                replace_archive(connection, self._database, study_id, None)

        self._database.write(work)

    def drop_steps(self, study_id: int) -> None:
        """Delete the values after single epochs of a study's trials, if it has ended."""
        trials = select(t.o_trials.c.trial_id).where(t.o_trials.c.study_id == study_id)
        gone = delete(t.o_steps).where(t.o_steps.c.trial_id.in_(trials), _has_ended(study_id))
        self._database.write(lambda connection: connection.execute(gone))


def _has_ended(study_id: int) -> ColumnElement[bool]:
    return exists().where(t.studies.c.study_id == study_id, t.studies.c.state.in_(ENDED))


def _needed(connection: Connection) -> set[int]:
    """Studies with which others begin that have not ended."""
    query = select(t.studies.c.spec).where(t.studies.c.state.not_in(ENDED))
    found: set[int] = set()
    for text in connection.execute(query).scalars():
        spec = json.loads(text)
        start = (spec.get("model") or {}).get("start_from")
        found |= {*spec.get("search_from", ()), *([start] if isinstance(start, int) else [])}
    return found
