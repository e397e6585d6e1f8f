"""Who changes what: frozen dataclasses without SQL. Times are timezone-aware datetimes in UTC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class Actor:
    """Who changes something: an owner by a token, of which only its id is kept; None where the service asks for none."""

    owner: str | None = None
    token: int | None = None


NOBODY = Actor()
"""Where there are no tokens."""


@dataclass(frozen=True)
class StudyChange:
    """What is to change in a study; None, and what a ``budget`` does not name, stay as they are.

    ``budget`` has valid values by their names in `BudgetSpec`.
    """

    priority: int | None = None
    tags: Sequence[str] | None = None
    notes: str | None = None
    budget: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ChangeRecord:
    """What somebody has changed in a study: by name, what it was before and what it was then."""

    at: datetime
    by: Actor
    what: Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class AuditEntry:
    """A change that was asked for: the ``object`` is a path such as `studies/3`, the ``status`` that of the answer."""

    by: Actor
    method: str
    route: str
    object: str
    status: int
    request_id: str = ""


@dataclass(frozen=True)
class AuditRecord:
    """An entry of the audit log."""

    id: int
    at: datetime
    entry: AuditEntry
