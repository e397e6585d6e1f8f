"""Reading trials: increments for samplers and pruners, pages for people. Thread-safe."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

from sqlalchemy import Connection, Integer, RowMapping, Select, bindparam, func, select
from sqlalchemy.sql.elements import ColumnElement

from service.errors import NotFound
from service.store import tables as t
from service.store.engine import Database
from service.store.records import FinishedTrial, Lease, TrialRecord, TrialState
from service.store.rows import OPTUNA_STATE, STATE_OF, Distributions, step_value
from service.store.trials import curve_of

_JOINED = t.trials.join(t.o_trials, t.o_trials.c.trial_id == t.trials.c.trial_id)
_COLUMNS = (
    *(column for column in t.trials.c if column.name != "curve"),
    t.o_trials.c.state,
    t.o_trials.c.datetime_start,
    t.o_trials.c.datetime_complete,
)
_VALUE = (t.o_steps.c.intermediate_value, t.o_steps.c.intermediate_value_type)

_MOST_IDS = 500
"""Ids in one query; below the limit of bound variables of every SQLite version."""


class History:
    """Finished and running trials of a study, as records."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def since(self, study_id: int, seq: int) -> Sequence[FinishedTrial]:
        """Trials told after the ``seq``-th, in the order in which they were told."""
        told = (t.trials.c.study_id == study_id) & (t.trials.c.seq > seq)
        return self._database.read(lambda connection: _finished(connection, told, curves=True))

    def of_others(self, lease: Lease, seq: int, *, curves: bool) -> tuple[Sequence[FinishedTrial], int]:
        """Trials of a lease's study told after the ``seq``-th by other leases, which its worker does not know yet.

        They include trials that failed because they had no attempt left, whichever worker ran them last.

        Args:
            lease: The trials told under it are omitted, in the query.
            seq: The ``seq`` returned by the previous call; 0 for the first.
            curves: Whether to read the curves, which are most of the data.

        Returns:
            The trials in the order in which they were told, and the ``seq`` to continue from.
        """

        def work(connection: Connection) -> tuple[Sequence[FinishedTrial], int]:
            # Read first: since ``seq`` is assigned under the study's lock, all trials up to it are visible.
            counted = select(t.studies.c.told).where(t.studies.c.study_id == lease.study_id)
            last: int = connection.execute(counted).scalar_one_or_none() or seq
            new = (t.trials.c.study_id == lease.study_id) & t.trials.c.seq.between(seq + 1, last)
            # A told trial has a curve, if only an empty one.
            foreign = t.trials.c.told_by.is_(None) | (t.trials.c.told_by != lease.token) | t.trials.c.curve.is_(None)
            return _finished(connection, new & foreign, curves=curves) if last > seq else [], last

        return self._database.read(work)

    def page(
        self, study_id: int, *, state: TrialState | None = None, offset: int = 0, limit: int = 50
    ) -> tuple[Sequence[TrialRecord], int]:
        """A page of a study's trials by number, and the number of all that match.

        Raises:
            NotFound: There is no such study.
        """

        def work(connection: Connection) -> tuple[Sequence[TrialRecord], int]:
            row = connection.execute(_COUNTS, {"study": study_id}).mappings().first()
            if row is None:
                raise NotFound("study", study_id)
            place = {"study": study_id, "offset": offset, "limit": limit}
            rows = connection.execute(_page(state), place).mappings().all()
            total: int = sum(row[name] for name in OPTUNA_STATE) if state is None else row[state]
            return self._records(connection, rows), total

        return self._database.read(work)

    def trial(self, study_id: int, number: int) -> TrialRecord:
        """One trial with its curves; for a running trial, its intermediate values so far.

        Raises:
            NotFound: There is no such study or trial.
        """

        def work(connection: Connection) -> TrialRecord:
            mine = (t.trials.c.study_id == study_id) & (t.trials.c.number == number)
            query = select(*_COLUMNS, t.trials.c.curve).select_from(_JOINED).where(mine)
            row = connection.execute(query).mappings().first()
            if row is None:
                raise NotFound("trial", f"{study_id}/{number}")
            curve = curve_of(row["curve"]) or self._reported(connection, study_id, row["trial_id"])
            return self._records(connection, [row], {row["trial_id"]: curve})[0]

        return self._database.read(work)

    def _reported(self, connection: Connection, study_id: int, trial_id: int) -> dict[str, list[float]]:
        metric = connection.execute(select(t.studies.c.metric).where(t.studies.c.study_id == study_id)).scalar_one()
        query = select(*_VALUE).where(t.o_steps.c.trial_id == trial_id).order_by(t.o_steps.c.step)
        values = [step_value(value, kind) for value, kind in connection.execute(query)]
        return {metric: values} if values else {}

    def _records(
        self,
        connection: Connection,
        rows: Sequence[RowMapping],
        curves: Mapping[int, Mapping[str, list[float]]] | None = None,
    ) -> list[TrialRecord]:
        if not rows:
            return []
        ids = [row["trial_id"] for row in rows]
        params, _ = _params(connection, ids)
        attrs = _attributes(connection, ids)
        return [
            TrialRecord(
                number=row["number"],
                state=STATE_OF[row["state"]],  # type: ignore[arg-type]
                value=row["value"],
                best_step=row["best_step"],
                stop_reason=row["stop_reason"],
                epochs=row["epochs"],
                attempt=row["attempt"],
                params=params.get(row["trial_id"], {}),
                attrs=attrs.get(row["trial_id"], {}),
                started_at=_aware(row["datetime_start"]),
                finished_at=_aware(row["datetime_complete"]),
                curve=curves.get(row["trial_id"]) if curves else None,
                also=_also(row),
                stopping=row["stop_asked_at"] is not None and not row["state"].is_finished(),
            )
            for row in rows
        ]

    def reported(self, trial_ids: Sequence[int]) -> dict[int, list[float]]:
        """The intermediate values so far of some trials by their ids, one for each step from 0; NaN where one is missing."""
        columns = (t.o_steps.c.trial_id, t.o_steps.c.step, *_VALUE)
        query = select(*columns).where(t.o_steps.c.trial_id.in_(trial_ids)).order_by(t.o_steps.c.trial_id, t.o_steps.c.step)
        curves: dict[int, list[float]] = {trial_id: [] for trial_id in trial_ids}
        for trial_id, step, value, kind in self._database.read(lambda connection: connection.execute(query).all()):
            curve = curves[trial_id]
            curve += [math.nan] * (step - len(curve))
            curve.append(step_value(value, kind))
        return curves

    def running_under(self, lease: Lease) -> dict[int, int]:
        """The trials that run under a lease: ids by number."""
        query = select(t.trials.c.number, t.trials.c.trial_id).where(t.trials.c.lease_token == lease.token)
        return self._database.read(lambda connection: {row.number: row.trial_id for row in connection.execute(query)})

    def open_among(self, trial_ids: Sequence[int]) -> set[int]:
        """Those of the given trials that are WAITING or RUNNING, in any study."""
        states = t.o_trials.c.state.in_((OPTUNA_STATE["waiting"], OPTUNA_STATE["running"]))

        def work(connection: Connection) -> set[int]:
            found: set[int] = set()
            for start in range(0, len(trial_ids), _MOST_IDS):
                some = t.o_trials.c.trial_id.in_(trial_ids[start : start + _MOST_IDS])
                found |= set(connection.execute(select(t.o_trials.c.trial_id).where(some, states)).scalars())
            return found

        return self._database.read(work)

    def trials_of_all(self) -> dict[str, int]:
        """Number of trials in the whole database by state, from the studies' counters."""
        columns = [t.studies.c[name] for name in OPTUNA_STATE]
        query = select(*(func.coalesce(func.sum(column), 0).label(column.name) for column in columns))
        return self._database.read(lambda c: {name: int(n) for name, n in c.execute(query).mappings().one().items()})


_COUNTS = select(*(t.studies.c[name] for name in OPTUNA_STATE)).where(t.studies.c.study_id == bindparam("study"))


@cache
def _page(state: TrialState | None) -> Select[Any]:
    """The query of a page of a study's trials, those of a state if there is one."""
    matching = t.trials.c.study_id == bindparam("study")
    if state is not None:
        matching &= t.o_trials.c.state == OPTUNA_STATE[state]
    query = select(*_COLUMNS).select_from(_JOINED).where(matching).order_by(t.trials.c.number)
    return query.offset(bindparam("offset", type_=Integer)).limit(bindparam("limit", type_=Integer))


def _finished(connection: Connection, which: ColumnElement[bool], *, curves: bool) -> Sequence[FinishedTrial]:
    """Finished trials in the order in which they were told, with the columns that samplers and pruners use."""
    columns = [t.trials.c[name] for name in ("seq", "trial_id", "number", "value", "epochs", "also")]
    columns += [t.o_trials.c.state, *([t.trials.c.curve] if curves else [])]
    query = select(*columns).select_from(_JOINED).where(which).order_by(t.trials.c.seq)
    rows = connection.execute(query).mappings().all()
    params, kinds = _params(connection, select(t.trials.c.trial_id).where(which)) if rows else ({}, {})
    return [
        FinishedTrial(
            seq=row["seq"],
            trial_id=row["trial_id"],
            number=row["number"],
            state=STATE_OF[row["state"]],  # type: ignore[arg-type]  # the keys are the literals
            value=row["value"],
            epochs=row["epochs"],
            params=params.get(row["trial_id"], {}),
            distributions=kinds.get(row["trial_id"], {}),
            curve=curve_of(row["curve"]) if curves else {},
            also=_also(row),
        )
        for row in rows
    ]


def _params(connection: Connection, ids: Any) -> tuple[dict[int, dict[str, Any]], dict[int, dict[str, Any]]]:
    """Parameters and their distributions, by trial."""
    distributions = Distributions()
    params: dict[int, dict[str, Any]] = {}
    kinds: dict[int, dict[str, Any]] = {}
    columns = (t.o_params.c.trial_id, t.o_params.c.param_name, t.o_params.c.param_value, t.o_params.c.distribution_json)
    query = select(*columns).where(t.o_params.c.trial_id.in_(ids)).order_by(t.o_params.c.param_id)
    for trial_id, name, value, text in connection.execute(query):
        distribution = distributions.parse(text)
        params.setdefault(trial_id, {})[name] = distribution.to_external_repr(value)
        kinds.setdefault(trial_id, {})[name] = distribution
    return params, kinds


def _attributes(connection: Connection, ids: Sequence[int]) -> dict[int, dict[str, Any]]:
    table = t.o_trial_user
    attributes: dict[int, dict[str, Any]] = {}
    query = select(table.c.trial_id, table.c.key, table.c.value_json).where(table.c.trial_id.in_(ids))
    for trial_id, key, text in connection.execute(query):
        attributes.setdefault(trial_id, {})[key] = json.loads(text)
    return attributes


def _also(row: RowMapping) -> dict[str, float]:
    return json.loads(row["also"]) if row["also"] else {}


def _aware(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.replace(tzinfo=UTC)
