"""The exception tree: every failure that a user or a peer process may meet, with what it needs to be understood.

Knows nothing of HTTP: `service.api.problems` maps each class to a status in one table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class RegsearchError(Exception):
    """Base of all expected failures; its message is fit to be shown to a user."""


@dataclass(frozen=True)
class Issue:
    """One thing wrong with an input: where it is, what was given, what would have been allowed."""

    field: str
    message: str
    value: object = None
    allowed: object = None

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


class InvalidInput(RegsearchError):
    """An input that cannot be accepted, with one `Issue` per thing wrong."""

    def __init__(self, issues: Sequence[Issue]) -> None:
        super().__init__("; ".join(map(str, issues)))
        self.issues = tuple(issues)

    @classmethod
    def one(cls, field: str, message: str, *, value: object = None, allowed: object = None) -> InvalidInput:
        """The common case of a single issue."""
        return cls([Issue(field, message, value, allowed)])


class TooLarge(InvalidInput):
    """An upload above the operator's limit."""


class NotFound(RegsearchError):
    """The named study, trial, data set or worker does not exist."""

    def __init__(self, what: str, key: object) -> None:
        super().__init__(f"{what} {key!r} does not exist")
        self.what = what
        self.key = key


class Conflict(RegsearchError):
    """The request is valid, but not in the present state (resuming a finished study, a name already taken)."""


class NotYet(Conflict):
    """What is asked for is being made: the same request succeeds later."""


class LeaseLost(RegsearchError):
    """The lease expired and its work was given to others: the holder must drop its trials and write nothing more."""


class DatabaseUnavailable(RegsearchError):
    """The database can't be reached or has the wrong schema version."""


class TrialError(RegsearchError):
    """A trial's own failure (a loss that is not finite, a model that does not fit the data); never retried."""
