"""The exception hierarchy: all failures that a user or another process may have to handle.

Independent of HTTP: `service.api.problems` maps each class to a status code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self


class RegsearchError(Exception):
    """Base class of all expected failures; its message may be shown to users."""


@dataclass(frozen=True)
class Issue:
    """One error in an input: the field, what is wrong, the value given and what is allowed."""

    field: str
    message: str
    value: object = None
    allowed: object = None

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


class InvalidInput(RegsearchError):
    """An input that is refused, with one `Issue` per error."""

    def __init__(self, issues: Sequence[Issue]) -> None:
        super().__init__("; ".join(map(str, issues)))
        self.issues = tuple(issues)

    @classmethod
    def one(cls, field: str, message: str, *, value: object = None, allowed: object = None) -> Self:
        """An error with a single issue."""
        return cls([Issue(field, message, value, allowed)])


class TooLarge(InvalidInput):
    """An upload that exceeds the operator's limit."""


class NotFound(RegsearchError):
    """The named study, trial, data set or worker does not exist."""

    def __init__(self, what: str, key: object) -> None:
        super().__init__(f"{what} {key!r} does not exist")
        self.what = what
        self.key = key


class Conflict(RegsearchError):
    """The request is valid, but not in the current state (for example, resuming a finished study)."""


class NotYet(Conflict):
    """What is asked for is being made: the same request succeeds later."""


class Changed(RegsearchError):
    """What is to be changed is not as the request expects it: somebody has changed it since."""


class LeaseLost(RegsearchError):
    """The lease is gone and its trials may run elsewhere: the holder must drop them and write nothing more."""


class TooMany(RegsearchError):
    """An owner has, or asks for, too much at once: the same request may succeed ``retry_after`` seconds later."""

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class QuotaExceeded(RegsearchError):
    """An owner would keep more than its quota."""


class StorageFull(RegsearchError):
    """There is no room on the server's disk."""


class DatabaseUnavailable(RegsearchError):
    """The database can't be reached or has the wrong schema version."""


class NotReady(RegsearchError):
    """The server can't work at the moment; the same request may succeed later."""


class TrialError(RegsearchError):
    """A failure caused by the trial itself (a loss that is not finite, a model that does not fit the data); not retried."""
