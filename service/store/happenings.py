"""Writing down what happens to a study, in the transaction in which it happens."""

from __future__ import annotations

from functools import cache
from typing import Literal, get_args

from sqlalchemy import Connection, Executable, bindparam, insert, select

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
_COPIED = ("study_id", "name", "owner", "state", "reason", "metric", "best_number", "best_value")


def happened(connection: Connection, study_id: int, kind: str) -> None:
    """Write down an event of a study, as the study is now."""
    connection.execute(_event(connection.dialect.name), {"event": kind, "of": study_id})


@cache
def _event(dialect: str) -> Executable:
    columns = (bindparam("event", type_=t.events.c.kind.type), clock(dialect), *(t.studies.c[name] for name in _COPIED))
    row = select(*columns).where(t.studies.c.study_id == bindparam("of"))
    return insert(t.events).from_select(["kind", "at", *_COPIED], row)
