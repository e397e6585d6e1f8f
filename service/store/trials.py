"""Trials in bulk over Optuna's schema: ask n, claim n waiting, report and tell many, each one transaction. Thread-safe.

The number of statements does not grow with the number of trials (see `bulk`). Everything a worker writes is fenced: it must
hold its lease, and a trial must be RUNNING under that lease. Locks are taken in one order: study, then trials.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from optuna.trial import TrialState as OptunaState
from sqlalchemy import Connection, RowMapping, select, update

from service.errors import InvalidInput, LeaseLost
from service.store import tables as t
from service.store.bulk import insert_many, update_many, upsert_many
from service.store.engine import Database
from service.store.happenings import happened
from service.store.records import SEARCHED, AskedTrial, Lease, Proposal, Report, StudyState, TrialResult
from service.store.retries import put_back
from service.store.rows import (
    OPTUNA_STATE,
    Distributions,
    count,
    deadline_passed,
    dumps,
    fence,
    is_held,
    lock_study,
    naive_utc,
    settle,
    stored_distribution,
    stored_step_value,
    stored_value,
)

_FRESH, _AGAIN = "n", "w"
"""Suffixes of ask keys, of new trials and of trials that were WAITING."""


class Trials:
    """The operations of workers on trials."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def ask(
        self,
        lease: Lease,
        proposals: Sequence[Proposal],
        planned: Callable[[int], Proposal | None] = lambda _: None,
        key: str | None = None,
    ) -> list[AskedTrial]:
        """Ask for trials to run under this lease, at most one per proposal: first WAITING ones, then new ones.

        Args:
            lease: On the study.
            proposals: The first ones become the parameters of new trials, as far as the budget allows; the others are
                not used.
            planned: Returns the parameters planned for a trial number, which replace its proposal, or None.
            key: Of this ask, at most 31 characters: the same ask under the same lease returns the same trials.

        Returns:
            The trials, now RUNNING; new ones are ``fresh``. Empty if the study's search is paused or over.

        Raises:
            LeaseLost: The lease is gone, but the search continues.
        """
        key = uuid.uuid4().hex[:31] if key is None else key

        def work(connection: Connection) -> list[AskedTrial]:
            row = lock_study(connection, lease.study_id)
            if row["state"] not in SEARCHED:  # another worker has spent the budget, or the study was paused or ended
                return []
            fence(connection, lease)
            done = list(connection.execute(_asked_under(lease, key)).scalars())
            if done:  # the first run was committed before the connection was lost
                return _load(connection, done)
            again = self._claim_waiting(connection, lease, row, len(proposals), key)
            room = min(len(proposals), self._grant(connection, row)) - len(again)
            first = row["asked"]
            new = [planned(first + place) or proposal for place, proposal in enumerate(proposals[: max(0, room)])]
            return again + self._create(connection, lease, row, new, key)

        return self._database.write(work) if proposals else []

    def _grant(self, connection: Connection, row: RowMapping) -> int:
        """Number of trials that may start now, including waiting ones."""
        if row["state"] not in SEARCHED or deadline_passed(row):
            return 0
        left: int = row["budget_trials"] - row["asked"] + row["waiting"]
        if row["max_parallel"] is not None:
            left = min(left, row["max_parallel"] - row["running"])
        return max(0, left)

    def _create(
        self, connection: Connection, lease: Lease, row: RowMapping, proposals: Sequence[Proposal], key: str
    ) -> list[AskedTrial]:
        if not proposals:
            return []
        numbers = range(row["asked"], row["asked"] + len(proposals))
        common = {"study_id": lease.study_id, "state": OptunaState.RUNNING, "datetime_start": naive_utc(row["now"])}
        insert_many(connection, t.o_trials, [{**common, "number": number} for number in numbers])
        # Read back rather than RETURNING, which on SQLite preserves the order only row by row; sorted by the primary key,
        # because numbers have no index.
        mine = (t.o_trials.c.study_id == lease.study_id) & (t.o_trials.c.number >= row["asked"])
        made = select(t.o_trials.c.number, t.o_trials.c.trial_id).where(mine)
        made = made.order_by(t.o_trials.c.trial_id.desc()).limit(len(numbers))
        id_of = {row.number: int(row.trial_id) for row in connection.execute(made)}
        ids = [id_of[number] for number in numbers]
        ours = {"study_id": lease.study_id, "ask_key": key + _FRESH, "lease_token": lease.token, "attempt": 0, "epochs": 0}
        pairs = list(zip(ids, numbers, strict=True))
        insert_many(connection, t.trials, [{**ours, "trial_id": id_, "number": number} for id_, number in pairs])
        params = [
            {
                "trial_id": trial_id,
                "param_name": name,
                "param_value": distribution.to_internal_repr(proposal.params[name]),
                "distribution_json": stored_distribution(distribution),
            }
            for trial_id, proposal in zip(ids, proposals, strict=True)
            for name, distribution in proposal.distributions.items()
        ]
        insert_many(connection, t.o_params, params)
        count(connection, lease.study_id, asked=len(ids), running=len(ids))
        return [
            AskedTrial(trial_id, number, p.params, p.distributions, fresh=True)
            for (trial_id, number), p in zip(pairs, proposals, strict=True)
        ]

    def _claim_waiting(self, connection: Connection, lease: Lease, row: RowMapping, n: int, key: str) -> list[AskedTrial]:
        """Claim up to ``n`` WAITING trials (put back after a lost worker or a pause), lowest numbers first."""
        room = row["max_parallel"] - row["running"] if row["max_parallel"] is not None else n
        wanted = max(0, min(n, room, row["waiting"]))
        if wanted == 0 or row["state"] not in SEARCHED:
            return []
        waiting = select(t.o_trials.c.trial_id).where(
            t.o_trials.c.study_id == lease.study_id, t.o_trials.c.state == OptunaState.WAITING
        )
        ids = list(connection.execute(waiting.order_by(t.o_trials.c.trial_id).limit(wanted)).scalars())
        values = {"state": OptunaState.RUNNING, "datetime_start": naive_utc(row["now"])}
        connection.execute(update(t.o_trials).where(t.o_trials.c.trial_id.in_(ids)).values(values))
        mine = update(t.trials).where(t.trials.c.trial_id.in_(ids))
        connection.execute(mine.values(lease_token=lease.token, ask_key=key + _AGAIN))
        count(connection, lease.study_id, waiting=-len(ids), running=len(ids))
        return _load(connection, ids)

    def record(self, lease: Lease, reports: Sequence[Report], results: Sequence[TrialResult]) -> StudyState:
        """Report intermediate values of this lease's trials, and tell those that ended; returns the study's new state.

        Repeating a call changes nothing: steps are overwritten by the same values, and a trial is told once.

        Raises:
            LeaseLost: The lease is gone, or one of the trials does not run under it; nothing was written.
            InvalidInput: A complete trial has no value, or a trial is told twice.
        """
        _check(results)
        named = {report.trial_id for report in reports} | {result.trial_id for result in results}

        def work(connection: Connection) -> StudyState:
            row = lock_study(connection, lease.study_id)
            # Removing a lease removes its trials from it, so a trial that still runs under it may be written.
            mine = set(connection.execute(_running_under(lease)).scalars())
            if named - mine or not mine:
                _check_told(connection, lease, named - mine)
            _report(connection, [report for report in reports if report.trial_id in mine])
            ended = [each for each in results if each.trial_id in mine]
            if not ended:
                return StudyState(row["state"])
            row = _tell(connection, row, lease, [each for each in ended if each.state != "retry"])
            row = _give_back(connection, row, lease, [each for each in ended if each.state == "retry"])
            return settle(connection, self._database, row)

        return self._database.write(work)


def _check(results: Sequence[TrialResult]) -> None:
    for result in results:
        if result.state == "complete" and (result.value is None or math.isnan(result.value)):
            raise InvalidInput.one("value", "a complete trial needs a value", value=result.value, allowed="a number")
        if any(math.isnan(value) for value in result.also.values()):
            raise InvalidInput.one("also", "every objective needs a value", value=dict(result.also), allowed="numbers")
    if len({result.trial_id for result in results}) < len(results):
        raise InvalidInput.one("trial_id", "a trial can be told only once", value=[result.trial_id for result in results])


def _report(connection: Connection, reports: Sequence[Report]) -> None:
    rows = []
    for report in sorted(reports, key=lambda report: (report.trial_id, report.step)):
        value, kind = stored_step_value(report.value)
        row = {"trial_id": report.trial_id, "step": report.step, "intermediate_value": value}
        rows.append({**row, "intermediate_value_type": kind})
    upsert_many(connection, t.o_steps, rows, keys=("trial_id", "step"))


def _check_told(connection: Connection, lease: Lease, ids: set[int]) -> None:
    """Check that trials which do not run under a lease were told under it, by an earlier run of the same call.

    Raises:
        LeaseLost: They were not, or there are none and the lease is gone.
    """
    told = select(t.trials.c.trial_id).where(t.trials.c.trial_id.in_(ids), t.trials.c.told_by == lease.token)
    if ids and ids == set(connection.execute(told).scalars()):
        return
    if ids or not is_held(connection, lease):
        raise LeaseLost(
            f"lease {lease.token} on study {lease.study_id} is gone, or trials {sorted(ids)} do not run under it"
        )


def _running_under(lease: Lease) -> Any:
    return select(t.trials.c.trial_id).where(t.trials.c.lease_token == lease.token)


def _asked_under(lease: Lease, key: str) -> Any:
    """Trials of one ask; selected by lease as well, which has an index."""
    return _running_under(lease).where(t.trials.c.ask_key.in_((key + _FRESH, key + _AGAIN))).order_by(t.trials.c.trial_id)


def _give_back(connection: Connection, row: RowMapping, lease: Lease, results: Sequence[TrialResult]) -> RowMapping:
    """Put back trials for another attempt by any worker; returns the study's updated row."""
    for reason in sorted({result.stop_reason for result in results}):
        ids = [result.trial_id for result in results if result.stop_reason == reason]
        row = put_back(connection, row, t.trials.c.trial_id.in_(ids), attempt=True, reason=reason, by=lease.token)
    return row


def _tell(connection: Connection, row: RowMapping, lease: Lease, results: Sequence[TrialResult]) -> RowMapping:
    """Tell trials in both schemas and update the study's counters; returns its updated row."""
    if not results:
        return row
    ended = naive_utc(row["now"])
    ends = [
        {"trial_id": result.trial_id, "state": OPTUNA_STATE[result.state], "datetime_complete": ended} for result in results
    ]
    update_many(connection, t.o_trials, ends, "trial_id")
    values = []
    for result in results:
        for objective, reached in enumerate(result.values):
            value, kind = stored_value(reached)
            values.append({"trial_id": result.trial_id, "objective": objective, "value": value, "value_type": kind})
    insert_many(connection, t.o_values, values)
    attributes = [
        {"trial_id": result.trial_id, "key": key, "value_json": dumps(value)}
        for result in results
        for key, value in {"stop_reason": result.stop_reason, **result.attrs}.items()
    ]
    upsert_many(connection, t.o_trial_user, attributes, keys=("trial_id", "key"))
    return _tell_ours(connection, row, lease, results)


def _tell_ours(connection: Connection, row: RowMapping, lease: Lease, results: Sequence[TrialResult]) -> RowMapping:
    rows = [
        {
            "trial_id": result.trial_id,
            "seq": row["told"] + place + 1,
            "value": None if result.value is None or math.isnan(result.value) else result.value,
            "best_step": result.best_step,
            "stop_reason": result.stop_reason,
            "epochs": result.epochs,
            "curve": dumps(result.curve),
            "also": dumps(result.also) if result.also else None,
            "lease_token": None,
            "told_by": lease.token,
        }
        for place, result in enumerate(results)
    ]
    update_many(connection, t.trials, rows, "trial_id")
    by_state = {state: sum(result.state == state for result in results) for state in ("complete", "pruned", "fail")}
    epochs = sum(result.epochs for result in results)
    _improve(connection, row, results)
    by_state["lost_in_a_row"] = -row["lost_in_a_row"]
    return count(connection, row["study_id"], running=-len(results), told=len(results), epochs=epochs, **by_state)


def _improve(connection: Connection, row: RowMapping, results: Iterable[TrialResult]) -> None:
    """Update the study's best trial; of equal values, the earlier trial is kept."""
    sign = 1.0 if row["direction"] == "minimize" else -1.0
    complete = [each for each in results if each.ranked and each.state == "complete" and each.value is not None]
    if not complete:
        return
    best = min(complete, key=lambda result: (sign * (result.value or 0.0), result.trial_id))
    assert best.value is not None
    if row["best_value"] is not None and sign * row["best_value"] <= sign * best.value:
        return
    number = select(t.trials.c.number).where(t.trials.c.trial_id == best.trial_id).scalar_subquery()
    values = {"best_number": number, "best_value": best.value, "best_step": best.best_step}
    connection.execute(update(t.studies).where(t.studies.c.study_id == row["study_id"]).values(values))
    happened(connection, row["study_id"], "study.best")


def _load(connection: Connection, ids: Sequence[int]) -> list[AskedTrial]:
    """Trials with their parameters, ordered by id."""
    distributions = Distributions()
    query = select(t.o_params).where(t.o_params.c.trial_id.in_(ids)).order_by(t.o_params.c.param_id)
    found: dict[int, dict[str, Any]] = {trial_id: {} for trial_id in ids}
    kinds: dict[int, dict[str, Any]] = {trial_id: {} for trial_id in ids}
    for row in connection.execute(query).mappings():
        distribution = distributions.parse(row["distribution_json"])
        found[row["trial_id"]][row["param_name"]] = distribution.to_external_repr(row["param_value"])
        kinds[row["trial_id"]][row["param_name"]] = distribution
    columns = (t.trials.c.trial_id, t.trials.c.number, t.trials.c.attempt, t.trials.c.ask_key)
    mine = select(*columns).where(t.trials.c.trial_id.in_(ids)).order_by(t.trials.c.trial_id)
    return [
        AskedTrial(id_, number, found[id_], kinds[id_], attempt, fresh=key.endswith(_FRESH))
        for id_, number, attempt, key in connection.execute(mine)
    ]


def curve_of(text: str | None) -> dict[str, list[float]]:
    """A stored curve: values by metric; empty if there is none."""
    return json.loads(text) if text else {}
