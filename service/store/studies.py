"""Studies: submitting, reading, and transitions between their states. Thread-safe."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from sqlalchemy import Connection, RowMapping, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from service.errors import Conflict, InvalidInput, LeaseLost, NotFound
from service.spec import StudySpec
from service.spec.external import ExternalSpec
from service.store import tables as t
from service.store.archives import replace_archive
from service.store.engine import Database, Once
from service.store.notes import note_attributes, prepend_to_note
from service.store.records import ENDED, SEARCHED, Lease, StudyRecord, StudyState
from service.store.rows import (
    deadline_passed,
    dumps,
    fail_open_trials,
    inserted_key,
    lock_study,
    moment,
    set_state,
    settle,
)
from service.store.rows import optuna_direction as stored_direction
from service.store.study_rows import best_params, study_record

_NAME_RACES = 30
"""How often another submit may take a free name between the search for it and its use."""


class Studies:
    """Operations on studies. Every method raises `NotFound` for an unknown id."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def submit(
        self,
        spec: StudySpec | ExternalSpec,
        *,
        note: str = "",
        dataset_id: str | None = None,
        attributes: Mapping[str, Any] | None = None,
        advice: Mapping[str, Any] | None = None,
        request: Once | None = None,
    ) -> int:
        """Queue a study; writes Optuna's rows and ours in one transaction.

        Args:
            spec: With task and metric resolved.
            note: Markdown for the study's note in optuna-dashboard.
            dataset_id: Its data set, if that was uploaded.
            attributes: Further user attributes in Optuna's tables.
            advice: What its user is told of it: warnings, and how its data are read.
            request: Of a request that may be sent again, which then returns the same study.

        Returns:
            The id of the study, in Optuna's tables as well.
        """
        assert spec.metric is not None, "the spec must be resolved"
        whole = spec.model_dump(mode="json")
        further = {"dataset_id": dataset_id, "advice": dumps(advice) if advice is not None else None}

        def work(connection: Connection) -> int:
            name = _free_name(connection, spec.name)
            made = connection.execute(insert(t.o_studies).values(study_name=name))
            study_id = inserted_key(made)
            directions = [
                {"direction": stored_direction(direction), "study_id": study_id, "objective": place}
                for place, direction in enumerate(spec.objectives.values())
            ]
            connection.execute(insert(t.o_directions), directions)
            _attributes(connection, t.o_study_user, study_id, {"spec": whole, "seed": spec.seed, **(attributes or {})})
            shown = {"study:metric_names": list(spec.objectives), **note_attributes(note)}
            _attributes(connection, t.o_study_system, study_id, shown)
            connection.execute(insert(t.studies).values({**self._row(study_id, name, spec, whole), **further}))
            return study_id

        for _ in range(_NAME_RACES):
            with suppress(IntegrityError):  # another submit has taken the name: find a new one
                return self._database.write_once(work, request)
        return self._database.write_once(work, request)

    def _row(self, study_id: int, name: str, spec: StudySpec | ExternalSpec, whole: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "study_id": study_id,
            "name": name,
            "state": StudyState.QUEUED.value,
            "spec": dumps(whole),
            "owner": spec.owner,
            "priority": spec.priority,
            "max_parallel": spec.max_parallel_trials,
            "max_retries": spec.budget.max_retries,
            "max_lost": spec.budget.max_lost_workers,
            "max_failed": spec.budget.max_failed_trials,
            "executor": spec.executor,
            "module": spec.model.module if isinstance(spec, StudySpec) else None,
            "metric": spec.metric,
            "direction": spec.objectives[str(spec.metric)],
            "budget_trials": spec.budget.trials,
            "budget_seconds": spec.budget.search_seconds,
            "created_at": self._database.now,
        }

    def get(self, study_id: int, owner: str | None = None) -> StudyRecord:
        """One study, of anybody or of an ``owner``."""

        def work(connection: Connection) -> StudyRecord:
            query = select(t.studies, self._database.now.label("now")).where(t.studies.c.study_id == study_id)
            if owner is not None:
                query = query.where(t.studies.c.owner == owner)
            row = connection.execute(query).mappings().first()
            if row is None:
                raise NotFound("study", study_id)
            return study_record(row, best_params(connection, [row]))

        return self._database.read(work)

    def tags(self, study_ids: Sequence[int]) -> dict[int, str]:
        """What changes whenever there is news of a study, by id; studies that are not there are left out."""
        s = t.studies
        columns = (s.c.state, s.c.told, s.c.asked, s.c.running, s.c.budget_trials, s.c.best_number)
        query = select(s.c.study_id, *columns).where(s.c.study_id.in_(study_ids))
        rows = self._database.read(lambda connection: connection.execute(query).all())
        return {row.study_id: "-".join(map(str, row[1:])) for row in rows}

    def owner(self, study_id: int) -> str:
        """Whose it is."""
        query = select(t.studies.c.owner).where(t.studies.c.study_id == study_id)
        owner: str | None = self._database.read(lambda connection: connection.execute(query).scalar())
        if owner is None:
            raise NotFound("study", study_id)
        return owner

    def list(
        self,
        *,
        state: StudyState | None = None,
        owner: str | None = None,
        name: str | None = None,
        offset: int = 0,
        limit: int = 50,
    ) -> tuple[Sequence[StudyRecord], int]:
        """A page of studies without their results, newest first, and the number of all that match.

        ``name`` is a part of theirs, in letters of any case.
        """

        def work(connection: Connection) -> tuple[Sequence[StudyRecord], int]:
            matching = [] if state is None else [t.studies.c.state == state.value]
            matching += [] if owner is None else [t.studies.c.owner == owner]
            matching += [] if name is None else [t.studies.c.name.icontains(name, autoescape=True)]
            total = connection.execute(select(func.count()).select_from(t.studies).where(*matching)).scalar_one()
            columns = [column for column in t.studies.c if column.name != "result"]
            query = select(*columns, self._database.now.label("now")).where(*matching)
            query = query.order_by(t.studies.c.study_id.desc()).offset(offset).limit(limit)
            rows = connection.execute(query).mappings().all()
            params = best_params(connection, rows)
            return [study_record(row, params) for row in rows], int(total)

        return self._database.read(work)

    def open_trials(self) -> Mapping[int, int]:
        """Number of trials left in the budget of each queued, running or paused study."""
        s = t.studies
        left = s.c.budget_trials - s.c.complete - s.c.pruned - s.c.fail
        query = select(s.c.study_id, left).where(s.c.state.in_((*SEARCHED, StudyState.PAUSED)))
        return self._database.read(lambda connection: {row[0]: int(row[1]) for row in connection.execute(query)})

    def pause(self, study_id: int, request: Once | None = None) -> None:
        """Start no further trials; workers put back their running trials within an epoch.

        Raises:
            Conflict: The study is neither queued nor running (nor paused already).
        """
        self._move(study_id, (StudyState.QUEUED, StudyState.RUNNING), StudyState.PAUSED, request)

    def resume(self, study_id: int, request: Once | None = None) -> None:
        """Queue a paused study again.

        Raises:
            Conflict: The study is not paused.
        """
        self._move(study_id, (StudyState.PAUSED,), StudyState.QUEUED, request, then=self._settle)

    def cancel(self, study_id: int, request: Once | None = None) -> None:
        """End a study permanently: finished trials are kept, open trials fail, leases are deleted.

        Raises:
            Conflict: The study is finished or has failed.
        """

        def work(connection: Connection, row: RowMapping) -> None:
            connection.execute(delete(t.leases).where(t.leases.c.study_id == row["study_id"]))
            fail_open_trials(connection, row["study_id"], "cancelled")

        allowed = tuple(state for state in StudyState if state not in ENDED)
        self._move(study_id, allowed, StudyState.CANCELLED, request, then=work)

    def extend(self, study_id: int, trials: int, request: Once | None = None) -> None:
        """Add trials to a study's budget; a finished study is queued again and will be finalized again.

        Raises:
            Conflict: The study is being finalized, was cancelled or has failed, or its time budget is spent.
            InvalidInput: ``trials`` is not positive.
        """
        if trials < 1:
            raise InvalidInput.one("trials", "must be at least 1", value=trials, allowed=">= 1")

        def work(connection: Connection, row: RowMapping) -> None:
            if deadline_passed(row):
                raise Conflict(
                    f"study {study_id} has spent the {row['budget_seconds']:g} seconds of its time budget that are for "
                    "searching; submit a new study"
                )
            spec = json.loads(row["spec"])
            spec["budget"]["trials"] = row["budget_trials"] + trials
            values = {"budget_trials": row["budget_trials"] + trials, "spec": dumps(spec)}
            connection.execute(update(t.studies).where(t.studies.c.study_id == study_id).values(values))
            connection.execute(delete(t.finals).where(t.finals.c.study_id == study_id))

        allowed = (*SEARCHED, StudyState.PAUSED, StudyState.FINISHED)
        self._move(study_id, allowed, StudyState.QUEUED, request, then=work, keep=(*SEARCHED, StudyState.PAUSED))

    def delete(self, study_id: int) -> None:
        """Remove a study and all its trials, here and in Optuna's tables.

        Raises:
            Conflict: The study is still queued, running, paused or finalizing.
        """

        def work(connection: Connection) -> None:
            row = lock_study(connection, study_id)
            if row["state"] not in ENDED:
                raise Conflict(f"study {study_id} is {row['state']}: cancel it before deleting it")
            of_study = select(t.o_trials.c.trial_id).where(t.o_trials.c.study_id == study_id)
            for table in (t.o_params, t.o_values, t.o_steps, t.o_trial_user, t.o_trial_system, t.o_heartbeats):
                connection.execute(delete(table).where(table.c.trial_id.in_(of_study)))
            for table in (t.trials, t.finals, t.test_accesses, t.model_archives, t.leases, t.studies):
                connection.execute(delete(table).where(table.c.study_id == study_id))
            for table in (t.o_trials, t.o_study_user, t.o_study_system, t.o_directions, t.o_studies):
                connection.execute(delete(table).where(table.c.study_id == study_id))

        self._database.write_once(work)

    def finish(
        self, lease: Lease, result: Mapping[str, Any], archive: bytes | None = None, *, note: str | None = None
    ) -> None:
        """Store the result of a study in `finalizing` and the archive of its model, and end the lease.

        ``note`` is prepended to the study's note in optuna-dashboard.

        Raises:
            LeaseLost: The lease is gone, and the study is not finished.
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

    def test_accesses(self, study_id: int) -> Sequence[Mapping[str, Any]]:
        """Who read the test part, when and for which purpose, oldest first."""
        query = select(t.test_accesses).where(t.test_accesses.c.study_id == study_id).order_by(t.test_accesses.c.id)
        rows = self._database.read(lambda connection: connection.execute(query).mappings().all())
        return [{"at": moment(row["at"]), "who": row["who"], "purpose": row["purpose"]} for row in rows]

    def _end(
        self,
        lease: Lease,
        state: StudyState,
        reason: str | None,
        result: Mapping[str, Any] | None,
        archive: bytes | None = None,
        note: str | None = None,
    ) -> None:
        def work(connection: Connection) -> None:
            row = lock_study(connection, lease.study_id)
            gone = connection.execute(delete(t.leases).where(t.leases.c.token == lease.token)).rowcount == 0
            if gone:
                # A repeat after a lost connection finds the study ended by the first run.
                if row["state"] == state.value:
                    return
                raise LeaseLost(f"lease {lease.token} on study {lease.study_id} is gone")
            if state is StudyState.FAILED:
                fail_open_trials(connection, lease.study_id, "study failed")
                connection.execute(delete(t.leases).where(t.leases.c.study_id == lease.study_id))
            # If the search was concluded early, its reason is kept.
            set_state(connection, self._database, lease.study_id, state, reason or row["reason"])
            if result is not None:
                stored = update(t.studies).where(t.studies.c.study_id == lease.study_id).values(result=dumps(result))
                connection.execute(stored)
                replace_archive(connection, self._database, lease.study_id, archive)
            if note is not None:
                prepend_to_note(connection, lease.study_id, note)

        self._database.write(work)

    def _move(
        self,
        study_id: int,
        allowed: Sequence[StudyState],
        to: StudyState,
        request: Once | None,
        then: Callable[[Connection, RowMapping], None] | None = None,
        keep: Sequence[StudyState] = (),
    ) -> None:
        """Move a study from an ``allowed`` state to the state ``to``, unless its state is one to ``keep``."""

        def work(connection: Connection) -> None:
            row = lock_study(connection, study_id)
            if row["state"] == to.value and to is not StudyState.QUEUED:
                return
            if row["state"] not in allowed:
                raise Conflict(f"study {study_id} is {row['state']}; the request needs: {', '.join(allowed)}")
            if row["state"] not in keep:
                set_state(connection, self._database, study_id, to)
            if then:
                then(connection, row)

        self._database.write_once(work, request)

    def _settle(self, connection: Connection, row: RowMapping) -> None:
        settle(connection, self._database, lock_study(connection, row["study_id"]))


def _free_name(connection: Connection, name: str) -> str:
    """The name, with a number appended if it is taken: Optuna requires unique names."""
    like = t.o_studies.c.study_name.startswith(name, autoescape=True)
    taken = set(connection.execute(select(t.o_studies.c.study_name).where(like)).scalars())
    if name not in taken:
        return name
    number = len(taken) + 1
    while f"{name}-{number}" in taken:
        number += 1
    return f"{name}-{number}"


def _attributes(connection: Connection, table: Any, study_id: int, values: Mapping[str, Any]) -> None:
    rows = [{"study_id": study_id, "key": key, "value_json": dumps(value)} for key, value in values.items()]
    connection.execute(insert(table), rows)
