"""Studies: submitting, ending, deleting; see `study_reads` and `transitions` for the rest. Thread-safe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any

from sqlalchemy import Connection, Insert, bindparam, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from service.errors import Conflict, LeaseLost
from service.spec import StudySpec
from service.spec.external import ExternalSpec
from service.store import tables as t
from service.store.alterations import insert_tags
from service.store.archives import replace_archive
from service.store.bell import announce
from service.store.bulk import insert_many
from service.store.engine import Once, clock
from service.store.happenings import happened
from service.store.notes import note_attributes, prepend_to_note
from service.store.records import ENDED, Lease, StoredObject, StudyState
from service.store.rows import dumps, fail_open_trials, inserted_key, lock_study, remove_leases, set_state
from service.store.rows import optuna_direction as stored_direction
from service.store.study_reads import StudyReads
from service.store.transitions import Transitions
from service.store.usage import NO_QUOTAS, Quotas, check_quotas
from service.tracing import carried

NAME_RACES = 30
"""How often another submit may take a free name between the search for it and its use."""


class Studies(Transitions, StudyReads):
    """Operations on studies. Every method raises `NotFound` for an unknown id."""

    def submit(
        self,
        spec: StudySpec | ExternalSpec,
        *,
        note: str = "",
        dataset_id: str | None = None,
        attributes: Mapping[str, Any] | None = None,
        advice: Mapping[str, Any] | None = None,
        request: Once | None = None,
        quotas: Quotas = NO_QUOTAS,
    ) -> int:
        """Queue a study; writes Optuna's rows and ours in one transaction.

        Args:
            spec: With task and metric resolved.
            note: Markdown for the study's note in optuna-dashboard.
            dataset_id: Its data set, if that was uploaded.
            attributes: Further user attributes in Optuna's tables.
            advice: What its user is told of it: warnings, and how its data are read.
            request: Of a request that may be sent again, which then returns the same study.
            quotas: Of its owner.

        Returns:
            The id of the study, in Optuna's tables as well.

        Raises:
            TooMany, QuotaExceeded: Its owner would have more than that.
        """
        assert spec.metric is not None, "the spec must be resolved"
        further: dict[str, Any] = {"dataset_id": dataset_id, "advice": dumps(advice) if advice is not None else None}
        further |= {"state": StudyState.QUEUED.value, "budget_trials": spec.budget.trials * spec.searches}
        further["spec"] = text = dumps(spec.model_dump(mode="json"))
        shown = {"study:metric_names": list(spec.objectives), **note_attributes(note)}
        given = {"spec": text, **_texts({"seed": spec.seed, **carried(), **(attributes or {})})}

        def work(connection: Connection) -> int:
            study_id = insert_study(connection, free_name(connection, spec.name), spec, further)
            insert_attributes(connection, study_id, given, _texts(shown))
            happened(connection, study_id, "study.queued")
            check_quotas(connection, spec.owner, quotas)
            announce(connection)
            return study_id

        for _ in range(NAME_RACES):
            with suppress(IntegrityError):  # another submit has taken the name: find a new one
                return self._database.write_once(work, request)
        return self._database.write_once(work, request)

    def delete(self, study_id: int) -> None:
        """Remove a study and all its trials, here and in Optuna's tables.

        Raises:
            Conflict: The study is still queued, running, paused or finalizing.
        """

        def work(connection: Connection) -> None:
            row = lock_study(connection, study_id)
            if row["state"] not in ENDED:
                raise Conflict(f"study {study_id} is {row['state']}: cancel it before deleting it")
            happened(connection, study_id, "study.deleted")
            replace_archive(connection, self._database, study_id, None)
            of_study = select(t.o_trials.c.trial_id).where(t.o_trials.c.study_id == study_id)
            for table in (t.o_params, t.o_values, t.o_steps, t.o_trial_user, t.o_trial_system, t.o_heartbeats):
                connection.execute(delete(table).where(table.c.trial_id.in_(of_study)))
            for table in (
                t.trials,
                t.finals,
                t.test_accesses,
                t.leases,
                t.changes,
                t.tags,
                t.study_shares,
                t.studies,
            ):
                connection.execute(delete(table).where(table.c.study_id == study_id))
            for table in (t.o_trials, t.o_study_user, t.o_study_system, t.o_directions, t.o_studies):
                connection.execute(delete(table).where(table.c.study_id == study_id))

        self._database.write_once(work)

    def beginning_with(self, hashes: Sequence[str]) -> set[str]:
        """Those of the hashes of files of weights that a study begins with."""
        spec = t.studies.c.spec

        def work(connection: Connection) -> set[str]:
            of = {each: select(t.studies.c.study_id).where(spec.contains(each, autoescape=True)).limit(1) for each in hashes}
            return {each for each, query in of.items() if connection.execute(query).first() is not None}

        return self._database.read(work)

    def finish(
        self, lease: Lease, result: Mapping[str, Any], archive: StoredObject | None = None, *, note: str | None = None
    ) -> None:
        """Store the result of a study in `finalizing`, name the archive of its model, and end the lease.

        ``note`` is prepended to the study's note in optuna-dashboard.

        Raises:
            LeaseLost: The lease is gone, and the study is not finished; the archive is a stray.
            NotReady: The archive has been deleted as a stray; nothing has changed.
        """
        self._end(lease, StudyState.FINISHED, None, result, archive, note)

    def fail(self, lease: Lease, reason: str) -> None:
        """End a study that can't continue (its data has been deleted, no model fits into memory), with the reason.

        Raises:
            LeaseLost: The lease is gone, and the study has not failed.
        """
        self._end(lease, StudyState.FAILED, reason, None)

    def open_test(self, study_id: int, who: str, purpose: str) -> None:
        """Record that the locked test part is about to be read."""
        values = {"study_id": study_id, "at": self._database.now, "who": who, "purpose": purpose}

        def work(connection: Connection) -> None:
            lock_study(connection, study_id)
            connection.execute(insert(t.test_accesses).values(values))

        self._database.write_once(work)

    def _end(
        self,
        lease: Lease,
        state: StudyState,
        reason: str | None,
        result: Mapping[str, Any] | None,
        archive: StoredObject | None = None,
        note: str | None = None,
    ) -> None:
        def work(connection: Connection) -> None:
            row = lock_study(connection, lease.study_id)
            if not remove_leases(connection, lease.study_id, t.leases.c.token == lease.token):
                # A repeat after a lost connection finds the study ended by the first run.
                if row["state"] == state.value:
                    return
                raise LeaseLost(f"lease {lease.token} on study {lease.study_id} is gone")
            if state is StudyState.FAILED:
                fail_open_trials(connection, lease.study_id, "study failed")
                remove_leases(connection, lease.study_id)
            # If the search was concluded early, its reason is kept.
            set_state(connection, self._database, lease.study_id, state, reason or row["reason"])
            if result is not None:
                stored = update(t.studies).where(t.studies.c.study_id == lease.study_id).values(result=dumps(result))
                connection.execute(stored)
                replace_archive(connection, self._database, lease.study_id, archive)
            if note is not None:
                prepend_to_note(connection, lease.study_id, note)

        self._database.write(work)


def free_name(connection: Connection, name: str) -> str:
    """The name, with a number appended if it is taken: Optuna requires unique names.

    How many there are tells where to begin; they are counted and looked up by the index, and none is read.
    """
    taken, numbered = connection.execute(_TAKEN, {"name": name, "low": f"{name}-", "high": f"{name}."}).one()
    if taken is None:
        return name
    number, step = numbered + 2, 1
    while connection.execute(_NAMED, {"name": f"{name}-{number}"}).first() is not None:  # where some were deleted
        number, step = number + step, 2 * step
    return f"{name}-{number}"


_NAMED = select(t.o_studies.c.study_id).where(t.o_studies.c.study_name == bindparam("name"))
_NUMBERED = select(func.count()).where(t.o_studies.c.study_name.between(bindparam("low"), bindparam("high")))
_TAKEN = select(_NAMED.scalar_subquery(), _NUMBERED.scalar_subquery())
"""A study that has the name, and how many have it with a number; the full stop follows the hyphen."""


def insert_study(connection: Connection, name: str, spec: StudySpec | ExternalSpec, values: Mapping[str, Any]) -> int:
    """Insert Optuna's rows of a study, without attributes, and ours with its tags; returns its id.

    ``values`` are columns of ours that do not follow from the spec; it is created now, unless they tell when it was.
    """
    study_id = inserted_key(connection.execute(_ADD, {"study_name": name}))
    directions = [
        {"direction": stored_direction(direction), "study_id": study_id, "objective": place}
        for place, direction in enumerate(spec.objectives.values())
    ]
    insert_many(connection, t.o_directions, directions)
    row = {
        "study_id": study_id,
        "name": name,
        "owner": spec.owner,
        "priority": spec.priority,
        "max_parallel": spec.max_parallel_trials,
        "max_retries": spec.budget.max_retries,
        "max_lost": spec.budget.max_lost_workers,
        "max_failed": spec.budget.max_failed_trials,
        "executor": spec.executor,
        "module": spec.model.module if isinstance(spec, StudySpec) else None,
        "devices": spec.model.devices if isinstance(spec, StudySpec) else 1,
        "metric": spec.metric,
        "direction": spec.objectives[str(spec.metric)],
        "budget_seconds": spec.budget.search_seconds,
        "served_at": 0.0,
    }
    added = _ADD_OURS if "created_at" in values else _add_now(connection.dialect.name)
    connection.execute(added, {**row, **values})
    insert_tags(connection, study_id, spec.tags)
    return study_id


_ADD = insert(t.o_studies)
_ADD_OURS = insert(t.studies)


@cache
def _add_now(dialect: str) -> Insert:
    return _ADD_OURS.values(created_at=clock(dialect))


def insert_attributes(connection: Connection, study_id: int, user: Mapping[str, str], system: Mapping[str, str]) -> None:
    """Insert attributes of Optuna's study, which are JSON texts."""
    for table, texts in ((t.o_study_user, user), (t.o_study_system, system)):
        rows = [{"study_id": study_id, "key": key, "value_json": text} for key, text in texts.items()]
        insert_many(connection, table, rows)


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {key: dumps(value) for key, value in values.items()}
