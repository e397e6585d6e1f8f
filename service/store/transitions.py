"""What people change in studies: pause, resume, cancel, extend, and their priority and budget. Thread-safe.

Every change is written down in its own transaction (`rs_changes`), and counted by the study's revision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlalchemy import Connection, RowMapping

from service.errors import Conflict, InvalidInput
from service.store import tables as t
from service.store.actors import NOBODY, Actor, StudyChange
from service.store.alterations import alter, check_revision, put_on_record
from service.store.engine import Database, Once
from service.store.records import ENDED, StudyState
from service.store.rows import fail_open_trials, lock_study, remove_leases, set_state, settle
from service.store.usage import NO_QUOTAS, Quotas, check_quotas


class Transitions:
    """Changes of studies. Every method raises `NotFound` for an unknown id.

    ``request`` is that of a change that may be sent again, ``by`` who asks for it.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def pause(self, study_id: int, request: Once | None = None, by: Actor = NOBODY) -> None:
        """Start no further trials; workers put back their running trials within an epoch.

        Raises:
            Conflict: The study is neither queued nor running (nor paused already).
        """
        self._move(study_id, (StudyState.QUEUED, StudyState.RUNNING), StudyState.PAUSED, request, by)

    def resume(self, study_id: int, request: Once | None = None, by: Actor = NOBODY) -> None:
        """Queue a paused study again.

        Raises:
            Conflict: The study is not paused.
        """
        self._move(study_id, (StudyState.PAUSED,), StudyState.QUEUED, request, by, then=self._settle)

    def cancel(self, study_id: int, request: Once | None = None, by: Actor = NOBODY) -> None:
        """End a study permanently: finished trials are kept, open trials fail, leases are deleted.

        Raises:
            Conflict: The study is finished or has failed.
        """

        def work(connection: Connection, row: RowMapping) -> None:
            remove_leases(connection, row["study_id"])
            fail_open_trials(connection, row["study_id"], "cancelled")

        allowed = tuple(state for state in StudyState if state not in ENDED)
        self._move(study_id, allowed, StudyState.CANCELLED, request, by, then=work)

    def extend(
        self,
        study_id: int,
        trials: int,
        request: Once | None = None,
        by: Actor = NOBODY,
        quotas: Quotas = NO_QUOTAS,
    ) -> None:
        """Add trials to a study's budget; a finished study is queued again and will be finalized again.

        Raises:
            Conflict: The study is being finalized, was cancelled or has failed, or its time budget is spent.
            InvalidInput: ``trials`` is not positive.
            TooMany, QuotaExceeded: Its owner would have more than the ``quotas`` allow.
        """
        if trials < 1:
            raise InvalidInput.one("trials", "must be at least 1", value=trials, allowed=">= 1")

        def work(connection: Connection) -> None:
            row = lock_study(connection, study_id, t.studies.c.spec)
            more = StudyChange(budget={"trials": row["budget_trials"] + trials})
            alter(connection, self._database, row, more, by, adding=True)
            check_quotas(connection, row["owner"], quotas)

        self._database.write_once(work, request)

    def change(
        self,
        study_id: int,
        change: StudyChange,
        request: Once | None = None,
        by: Actor = NOBODY,
        quotas: Quotas = NO_QUOTAS,
        *,
        revisions: Sequence[int] | None = None,
    ) -> None:
        """Change priority or budget; a finished study that is given more goes on, and is finalized again.

        ``revisions`` are those of which the study must have one; None for any.

        Raises:
            Conflict: Something can't be changed in the study's state, with the reason; nothing was changed.
            Changed: The study has another revision.
            TooMany, QuotaExceeded: It would do more than before, and its owner have more than the ``quotas`` allow.
        """

        def work(connection: Connection) -> None:
            row = lock_study(connection, study_id, t.studies.c.spec)
            check_revision(row, revisions)
            alter(connection, self._database, row, change, by)
            if row["state"] in ENDED or change.budget.get("trials", 0) > row["budget_trials"]:
                check_quotas(connection, row["owner"], quotas)

        self._database.write_once(work, request)

    def _move(
        self,
        study_id: int,
        allowed: Sequence[StudyState],
        to: StudyState,
        request: Once | None,
        by: Actor,
        then: Callable[[Connection, RowMapping], None] | None = None,
    ) -> None:
        """Move a study from an ``allowed`` state to the state ``to``."""

        def work(connection: Connection) -> None:
            row = lock_study(connection, study_id)
            if row["state"] == to.value and to is not StudyState.QUEUED:
                return
            if row["state"] not in allowed:
                raise Conflict(f"study {study_id} is {row['state']}; the request needs: {', '.join(allowed)}")
            set_state(connection, self._database, study_id, to)
            put_on_record(connection, self._database, study_id, {"state": (row["state"], to.value)}, by)
            if then:
                then(connection, row)

        self._database.write_once(work, request)

    def _settle(self, connection: Connection, row: RowMapping) -> None:
        settle(connection, self._database, lock_study(connection, row["study_id"]))
