"""Writing down what happens to a study, in the transaction in which it happens."""

from __future__ import annotations

from functools import cache
from typing import Any, Literal, get_args

from sqlalchemy import Connection, Executable, FromClause, Select, bindparam, insert, select
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
    connection.execute(_event(connection.dialect.name), {"event": kind, "of": study_id})


def event_of(
    studies: FromClause, kind: ColumnElement[str], now: ColumnElement[float], which: ColumnElement[bool]
) -> tuple[list[str], Select[Any]]:
    """Columns of `rs_events`, and a query for their values: of those of the ``studies`` that ``which`` selects."""
    return ["kind", "at", *COPIED], select(kind, now, *(studies.c[name] for name in COPIED)).where(which)


@cache
def _event(dialect: str) -> Executable:
    kind = bindparam("event", type_=t.events.c.kind.type)
    columns, row = event_of(t.studies, kind, clock(dialect), t.studies.c.study_id == bindparam("of"))
    return insert(t.events).from_select(columns, row)
