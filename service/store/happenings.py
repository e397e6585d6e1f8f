"""Writing down what happens to a study, in the transaction in which it happens."""

from __future__ import annotations

from typing import Any, Literal, get_args

from sqlalchemy import Connection, FromClause, Select, insert, literal, select
from sqlalchemy.sql.elements import ColumnElement

from service.store import tables as t
from service.store.engine import clock

EventKind = Literal[
    "study.queued",
    "study.running",
    "study.paused",
    "study.finalizing",
    "study.finished",
    "study.cancelled",
    "study.failed",
    "study.best",
    "study.changed",
    "study.deleted",
    "study.restored",
]
"""A state that a study has come to; a new best trial; a change of priority, budget, tags or notes; its end for good; its
return from an archive.
"""
EVENT_KINDS: tuple[EventKind, ...] = get_args(EventKind)
COPIED = ("study_id", "name", "owner", "state", "reason", "metric", "best_number", "best_value")


def happened(connection: Connection, study_id: int, kind: str) -> None:
    """Write down an event of a study, as the study is now."""
    columns, row = event_of(t.studies, kind, clock(connection.dialect), t.studies.c.study_id == study_id)
    connection.execute(insert(t.events).from_select(columns, row))


def event_of(
    studies: FromClause, kind: str, now: ColumnElement[float], which: ColumnElement[bool]
) -> tuple[list[str], Select[Any]]:
    """Columns of `rs_events`, and a query for their values: of those of the ``studies`` that ``which`` selects."""
    return ["kind", "at", *COPIED], select(literal(kind), now, *(studies.c[name] for name in COPIED)).where(which)
