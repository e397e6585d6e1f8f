"""SQL shared by several modules of the store: locking a study, updating its counters, Optuna's stored representations."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution
from optuna.trial import TrialState as OptunaState
from sqlalchemy import Connection, CursorResult, RowMapping, delete, func, select, update
from sqlalchemy.sql.elements import ColumnElement

from service.errors import LeaseLost, NotFound
from service.optuna_private import TrialIntermediateValueModel, TrialValueModel
from service.store import tables as t
from service.store.bell import announce
from service.store.bulk import insert_many, update_many
from service.store.engine import Database, clock
from service.store.happenings import happened
from service.store.records import ENDED, SEARCHED, Lease, StudyState

OPTUNA_STATE = {
    "waiting": OptunaState.WAITING,
    "running": OptunaState.RUNNING,
    "complete": OptunaState.COMPLETE,
    "pruned": OptunaState.PRUNED,
    "fail": OptunaState.FAIL,
}
STATE_OF = {value: key for key, value in OPTUNA_STATE.items()}
STOPPED = "stopped"
"""Stop reason of trials that somebody has stopped."""


_LONG = ("spec", "result", "advice")
_SHORT = [each for each in t.studies.c if each.name not in _LONG]
"""Columns of studies without documents, which few need that lock a study."""


def lock_study(connection: Connection, study_id: int, *also: ColumnElement[Any]) -> RowMapping:
    """The study's row and ``now``, locked until the transaction ends (on SQLite the whole database is locked already).

    Of the long columns it has those that are asked for, ``also``.

    Raises:
        NotFound: There is no such study.
    """
    columns = (*_SHORT, *also, clock(connection.dialect.name).label("now"))
    query = select(*columns).where(t.studies.c.study_id == study_id).with_for_update(of=t.studies)
    row = connection.execute(query).mappings().first()
    if row is None:
        raise NotFound("study", study_id)
    return row


def fence(connection: Connection, lease: Lease) -> None:
    """Check a lease on a locked study. Reaping deletes leases under the same lock, so the clock need not be read here.

    Raises:
        LeaseLost: The lease is gone.
    """
    if not is_held(connection, lease):
        raise LeaseLost(f"lease {lease.token} on study {lease.study_id} is gone")


def is_held(connection: Connection, lease: Lease) -> bool:
    """Whether a worker still holds its lease."""
    return connection.execute(select(t.leases.c.token).where(t.leases.c.token == lease.token)).first() is not None


def remove_leases(connection: Connection, study_id: int, *which: ColumnElement[bool]) -> Sequence[RowMapping]:
    """Delete leases on a locked study, all or those of the conditions; returns what they were."""
    removed = delete(t.leases).where(t.leases.c.study_id == study_id, *which).returning(t.leases)
    found = connection.execute(removed).mappings().all()
    if found:
        count(connection, study_id, held=-len(found))
        announce(connection)  # it may need another worker
    return found


def count(connection: Connection, study_id: int, **changes: int) -> RowMapping:
    """Add to a study's counters; returns its row as `lock_study` does."""
    values = {name: t.studies.c[name] + change for name, change in changes.items() if change}
    if not values:
        return lock_study(connection, study_id)
    change = update(t.studies).where(t.studies.c.study_id == study_id).values(values)
    columns = (*_SHORT, clock(connection.dialect.name).label("now"))
    return connection.execute(change.returning(*columns)).mappings().one()


def set_state(
    connection: Connection, database: Database, study_id: int, state: StudyState, reason: str | None = None
) -> None:
    """Write a study's state, and with a terminal state the time at which the study ended."""
    ended = state in ENDED
    values: dict[str, Any] = {"state": state.value, "reason": reason, "finished_at": database.now if ended else None}
    connection.execute(update(t.studies).where(t.studies.c.study_id == study_id).values(values))
    happened(connection, study_id, f"study.{state.value}")
    if state in (StudyState.QUEUED, StudyState.FINALIZING):
        announce(connection)


def deadline_passed(row: Mapping[Any, Any]) -> bool:
    """Whether the time budget of a locked study is spent."""
    if row["budget_seconds"] is None or row["started_at"] is None:
        return False
    return bool(row["now"] > row["started_at"] + row["budget_seconds"])


def settle(connection: Connection, database: Database, row: RowMapping) -> StudyState:
    """End a study's search if its budget is spent and no trial is open, or if too many trials failed; returns its state.

    ``row`` is the current row of the locked study. A study without a complete trial has nothing to finalize and fails.
    """
    study_id, state = row["study_id"], StudyState(row["state"])
    if state not in SEARCHED:
        return state
    if row["max_failed"] is not None and row["fail"] > row["max_failed"]:
        reason = f"{row['fail']} trials failed, at most {row['max_failed']} may fail"
        reason += _why_most_failed(connection, study_id)
        return end_study(connection, database, study_id, StudyState.FAILED, reason)
    spent = row["asked"] >= row["budget_trials"] or deadline_passed(row)
    if not spent or row["running"] or row["waiting"]:
        return state
    if row["complete"] == 0:
        reason = "no trial was completed" + _why_most_failed(connection, study_id)
        return end_study(connection, database, study_id, StudyState.FAILED, reason)
    return end_study(connection, database, study_id, StudyState.FINALIZING, row["reason"])


def _why_most_failed(connection: Connection, study_id: int) -> str:
    """What most failed trials of a study failed by, to go behind the reason of the study; nothing where none failed."""
    reason, number = t.trials.c.stop_reason, func.count()
    of_both = t.trials.join(t.o_trials, t.o_trials.c.trial_id == t.trials.c.trial_id)
    failed = (
        select(reason, number)
        .select_from(of_both)
        .where(t.o_trials.c.study_id == study_id, t.o_trials.c.state == OptunaState.FAIL, reason.is_not(None))
    )
    most = connection.execute(failed.group_by(reason).order_by(number.desc(), reason).limit(1)).first()
    return "" if most is None else f"; most often: {most[0]}"


def end_study(
    connection: Connection, database: Database, study_id: int, state: StudyState, reason: str | None
) -> StudyState:
    """Give a study its new state and delete its leases."""
    remove_leases(connection, study_id)
    if state is StudyState.FAILED:
        fail_open_trials(connection, study_id, "study failed")
    set_state(connection, database, study_id, state, reason)
    return state


def fail_open_trials(connection: Connection, study_id: int, reason: str) -> None:
    """Tell all WAITING and RUNNING trials of a study as failed."""
    open_states = (OptunaState.WAITING, OptunaState.RUNNING)
    found = select(t.o_trials.c.trial_id, t.o_trials.c.state).where(
        t.o_trials.c.study_id == study_id, t.o_trials.c.state.in_(open_states)
    )
    rows = connection.execute(found.order_by(t.o_trials.c.trial_id)).all()
    ids = [row.trial_id for row in rows]
    if not ids:
        return
    waiting = sum(row.state is OptunaState.WAITING for row in rows)
    end_trials(connection, study_id, ids, reason)
    count(connection, study_id, waiting=-waiting, running=waiting - len(ids), fail=len(ids), told=len(ids))


def end_trials(
    connection: Connection, study_id: int, ids: Sequence[int], reason: str, state: OptunaState = OptunaState.FAIL
) -> None:
    """Tell trials that no worker runs, in both schemas and without a value; the caller updates the study's counters."""
    row = lock_study(connection, study_id)
    now = naive_utc(row["now"])
    begun = func.coalesce(t.o_trials.c.datetime_start, now)  # Optuna's trials that have ended have begun
    ended = {"state": state, "datetime_start": begun, "datetime_complete": now}
    connection.execute(update(t.o_trials).where(t.o_trials.c.trial_id.in_(ids)).values(ended))
    common = {"lease_token": None, "stop_reason": reason}
    told = [{"trial_id": trial_id, "seq": row["told"] + place + 1, **common} for place, trial_id in enumerate(ids)]
    update_many(connection, t.trials, told, "trial_id")
    shown = [{"trial_id": trial_id, "key": "stop_reason", "value_json": dumps(reason)} for trial_id in ids]
    insert_many(connection, t.o_trial_user, shown)


def inserted_key(result: CursorResult[Any]) -> int:
    """The integer primary key of the row just inserted."""
    key = result.inserted_primary_key
    assert key is not None
    return int(key[0])


def naive_utc(seconds: float) -> datetime:
    """A time of the database's clock as Optuna stores it: a naive datetime in UTC."""
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)


def moment(seconds: float | None) -> datetime | None:
    """A stored time as an aware datetime."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def stored_distribution(distribution: BaseDistribution) -> str:
    """Optuna's JSON form."""
    return str(distribution_to_json(distribution))


class Distributions:
    """Parses each JSON text once: the trials of a study share a handful of distributions."""

    def __init__(self) -> None:
        self._parsed: dict[str, BaseDistribution] = {}

    def parse(self, text: str) -> BaseDistribution:
        """The distribution of a stored text."""
        if text not in self._parsed:
            self._parsed[text] = json_to_distribution(text)
        return self._parsed[text]


def stored_value(value: float) -> tuple[float | None, Any]:
    """Optuna's stored form of a final value."""
    return TrialValueModel.value_to_stored_repr(value)


def value_of(value: float | None, kind: Any) -> float:
    """The final value of a stored form."""
    return TrialValueModel.stored_repr_to_value(value, kind)


def stored_step_value(value: float) -> tuple[float | None, Any]:
    """Optuna's stored form of an intermediate value, which may be NaN."""
    return TrialIntermediateValueModel.intermediate_value_to_stored_repr(value)


def step_value(value: float | None, kind: Any) -> float:
    """The intermediate value of a stored form."""
    return TrialIntermediateValueModel.stored_repr_to_intermediate_value(value, kind)


def optuna_direction(direction: str) -> Any:
    """Optuna's `StudyDirection` by name."""
    return optuna.study.StudyDirection[direction.upper()]


def dumps(value: Any) -> str:
    """Compact JSON."""
    return json.dumps(value, separators=(",", ":"))
