"""Trials that could not be finished where they ran: they wait for another attempt, or end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from optuna.trial import TrialState as OptunaState
from sqlalchemy import Connection, RowMapping, delete, select, update
from sqlalchemy.sql.elements import ColumnElement

from service.store import tables as t
from service.store.rows import OPTUNA_STATE, STOPPED, count, end_trials


def put_back(
    connection: Connection,
    row: RowMapping,
    which: ColumnElement[bool],
    *,
    attempt: bool,
    reason: str = "worker lost",
    by: int | None = None,
) -> RowMapping:
    """Return running trials to WAITING, to be run again from the beginning with the same number and parameters.

    Those that somebody has stopped are not run again: they end as PRUNED.

    Args:
        connection: In a transaction.
        row: The locked row of their study.
        which: Condition on `rs_trials` that selects them.
        attempt: Whether this counts as one of the study's ``max_retries`` attempts; a trial that has none left fails.
        reason: Stop reason of the trials that fail.
        by: Token of the lease that gives them back, under which the call may be repeated; None if the lease was reaped.

    Returns:
        The study's updated row.
    """
    query = select(t.trials.c.trial_id, t.trials.c.attempt, t.trials.c.stop_asked_at).where(which)
    found = connection.execute(query.order_by(t.trials.c.trial_id)).all()
    ids = [each.trial_id for each in found]
    stopped = [each.trial_id for each in found if each.stop_asked_at is not None]
    left = [each for each in found if each.stop_asked_at is None]
    given_up = [each.trial_id for each in left if attempt and each.attempt + 1 > row["max_retries"]]
    again = [each.trial_id for each in left if each.trial_id not in given_up]
    if ids:
        values: dict[str, Any] = {"lease_token": None, "told_by": by, "attempt": t.trials.c.attempt + int(attempt)}
        connection.execute(update(t.trials).where(t.trials.c.trial_id.in_(ids)).values(values))
    if again:
        _wait(connection, again)
        row = count(connection, row["study_id"], running=-len(again), waiting=len(again))
    for ended, why, state in ((given_up, reason, "fail"), (stopped, STOPPED, "pruned")):
        if ended:
            end_trials(connection, row["study_id"], ended, why, OPTUNA_STATE[state])
            row = count(connection, row["study_id"], running=-len(ended), told=len(ended), **{state: len(ended)})
    return row


def _wait(connection: Connection, ids: Sequence[int]) -> None:
    connection.execute(delete(t.o_steps).where(t.o_steps.c.trial_id.in_(ids)))
    waits = {"state": OptunaState.WAITING, "datetime_start": None}
    connection.execute(update(t.o_trials).where(t.o_trials.c.trial_id.in_(ids)).values(waits))
