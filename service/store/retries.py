"""What becomes of trials that could not be finished where they ran: they wait for the next worker, or fail for good."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from optuna.trial import TrialState as OptunaState
from sqlalchemy import Connection, RowMapping, delete, select, update
from sqlalchemy.sql.elements import ColumnElement

from service.store import tables as t
from service.store.rows import count, fail_trials


def put_back(
    connection: Connection,
    row: RowMapping,
    which: ColumnElement[bool],
    *,
    attempt: bool,
    reason: str = "worker lost",
    by: int | None = None,
) -> RowMapping:
    """Let running trials wait to be run again, from their beginning, with the same number and parameters.

    Args:
        connection: In a transaction.
        row: Their study's, locked.
        which: Condition on `rs_trials` that finds them.
        attempt: Whether this counts as one of the study's ``max_retries`` attempts; a trial that has none left fails.
        reason: Why it failed, then.
        by: The lease they were given back under, which may say so again; None where it was taken away.

    Returns:
        The study's row after that.
    """
    query = select(t.trials.c.trial_id, t.trials.c.attempt).where(which).order_by(t.trials.c.trial_id)
    found = connection.execute(query).all()
    ids = [each.trial_id for each in found]
    given_up = [each.trial_id for each in found if attempt and each.attempt + 1 > row["max_retries"]]
    again = sorted(set(ids) - set(given_up))
    if ids:
        values: dict[str, Any] = {"lease_token": None, "told_by": by, "attempt": t.trials.c.attempt + int(attempt)}
        connection.execute(update(t.trials).where(t.trials.c.trial_id.in_(ids)).values(values))
    if again:
        _wait(connection, again)
        row = count(connection, row["study_id"], running=-len(again), waiting=len(again))
    if given_up:
        fail_trials(connection, row["study_id"], given_up, reason)
        row = count(connection, row["study_id"], running=-len(given_up), fail=len(given_up), told=len(given_up))
    return row


def _wait(connection: Connection, ids: Sequence[int]) -> None:
    connection.execute(delete(t.o_steps).where(t.o_steps.c.trial_id.in_(ids)))
    waits = {"state": OptunaState.WAITING, "datetime_start": None}
    connection.execute(update(t.o_trials).where(t.o_trials.c.trial_id.in_(ids)).values(waits))
