"""A study as the parts of an archive, and back: everything in both schemas but what is one server's own. Thread-safe."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping, insert, select
from sqlalchemy.exc import IntegrityError

from service.errors import Conflict, NotFound
from service.result.portable import (
    BestPart,
    ChangePart,
    FinalPart,
    ModelPart,
    Origin,
    ParamPart,
    ReadingPart,
    StudyPart,
    TrialPart,
)
from service.spec import StudySpec
from service.spec.external import ExternalSpec
from service.store import tables as t
from service.store.archives import archive_values, name_object
from service.store.bulk import insert_many
from service.store.engine import Database
from service.store.happenings import happened
from service.store.provenance import REPLAY_OF, RESTORED_FROM
from service.store.records import ENDED, StoredObject
from service.store.rows import (
    OPTUNA_STATE,
    STATE_OF,
    dumps,
    step_value,
    stored_step_value,
    stored_value,
    value_of,
)
from service.store.studies import NAME_RACES, free_name, insert_attributes, insert_study
from service.store.usage import NO_QUOTAS, Quotas, check_quotas

_PAGE = 500
_FINAL_COLUMNS = tuple(FinalPart.model_fields)


@dataclass(frozen=True)
class StudyParts:
    """Everything of a study but its trials, models and data; ``spec``, ``result`` and ``advice`` are JSON texts.

    ``onnx`` is whether it has an ONNX model; whether it has a model at all is in ``study``.
    """

    origin: Origin
    study: StudyPart
    spec: str
    result: str | None
    advice: str | None
    onnx: bool


@dataclass(frozen=True)
class Restored:
    """A study to be restored: its parts, its spec as its new owner's, and how many of its ``counts`` trials ended how.

    ``digest`` is the SHA-256 of the archive's manifest, ``dataset_id`` that of its data set, if its owner has it; ``model``
    and ``onnx`` are objects that have been written.
    """

    parts: StudyParts
    spec: StudySpec | ExternalSpec
    counts: Mapping[str, int]
    digest: str
    dataset_id: str | None
    model: StoredObject | None
    onnx: StoredObject | None


class Portable:
    """Reads studies for archives, and restores them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def parts(self, study_id: int) -> StudyParts:
        """Everything of a study but its trials.

        Raises:
            NotFound: There is no such study.
            Conflict: It has not ended.
        """
        return self._database.read(lambda connection: _parts(connection, study_id))

    def trials(self, study_id: int) -> Iterator[TrialPart]:
        """Its trials by number, read in pages."""
        first = 0
        while True:
            page = self._database.read(lambda connection, first=first: _page(connection, study_id, first))  # type: ignore[misc]
            yield from page
            if len(page) < _PAGE:
                return
            first = page[-1].number + 1

    def find(self, owner: str, digest: str) -> int | None:
        """The study that an owner has restored from the archive with this digest."""
        return self._database.read(lambda connection: _found(connection, owner, digest))

    def restore(
        self, given: Restored, trials: Callable[[], Iterator[TrialPart]], quotas: Quotas = NO_QUOTAS
    ) -> tuple[int, bool]:
        """Restore a study; returns its id, and whether it is new. An owner has one study of the same archive.

        ``trials`` returns the trials by number each time that it is called.

        Raises:
            QuotaExceeded: Its owner would keep more than the ``quotas`` allow.
        """
        owner = given.spec.owner

        def work(connection: Connection) -> list[int]:
            found = _found(connection, owner, given.digest)
            if found is not None:
                return [found, 0]
            study_id = _insert(connection, given)
            some: list[TrialPart] = []
            for trial in trials():
                some.append(trial)
                if len(some) == _PAGE:
                    _insert_trials(connection, study_id, some)
                    some = []
            _insert_trials(connection, study_id, some)
            happened(connection, study_id, "study.restored")
            check_quotas(connection, owner, Quotas(size=quotas.size))
            return [study_id, 1]

        for _ in range(NAME_RACES):
            with suppress(IntegrityError):  # another one has taken the name, or restored the same archive
                study_id, new = self._database.write_once(work)
                return study_id, bool(new)
        study_id, new = self._database.write_once(work)
        return study_id, bool(new)


def _found(connection: Connection, owner: str, digest: str) -> int | None:
    query = select(t.studies.c.study_id).where(t.studies.c.owner == owner, t.studies.c.restored == digest)
    return connection.execute(query).scalar()


def _parts(connection: Connection, study_id: int) -> StudyParts:
    row = connection.execute(select(t.studies).where(t.studies.c.study_id == study_id)).mappings().first()
    if row is None:
        raise NotFound("study", study_id)
    if row["state"] not in ENDED:
        raise Conflict(f"study {study_id} is {row['state']}: only one that has ended ({', '.join(ENDED)}) can be archived")
    best = None
    if row["best_number"] is not None:
        best = BestPart(number=row["best_number"], value=row["best_value"], step=row["best_step"])
    of_study = t.model_archives.c.study_id == study_id
    model = connection.execute(select(t.model_archives).where(of_study)).mappings().first()
    same = ("name", "state", "reason", "dataset_id", "budget_trials", "budget_seconds", "epochs", "leases", "lost_leases")
    times = ("created_at", "started_at", "served_at", "finished_at")
    study = StudyPart(
        **{name: row[name] for name in (*same, *times)},
        best=best,
        attributes=_attributes(connection, t.o_study_user, study_id),
        shown=_attributes(connection, t.o_study_system, study_id),
        changes=[
            ChangePart(at=each["at"], owner=each["owner"], what=json.loads(each["what"]))
            for each in _of(connection, t.changes, study_id)
        ],
        readings=[
            ReadingPart(at=each["at"], who=each["who"], purpose=each["purpose"])
            for each in _of(connection, t.test_accesses, study_id)
        ],
        finals=[
            FinalPart(**{name: each[name] for name in _FINAL_COLUMNS if name != "params"}, params=json.loads(each["params"]))
            for each in _of(connection, t.finals, study_id)
        ],
        model=ModelPart(created_at=model["created_at"], onnx_reason=model["onnx_reason"]) if model else None,
    )
    return StudyParts(
        origin=Origin(id=study_id, name=row["name"], owner=row["owner"]),
        study=study,
        spec=row["spec"],
        result=row["result"],
        advice=row["advice"],
        onnx=model is not None and model["onnx_size"] is not None,
    )


def _of(connection: Connection, table: Any, study_id: int) -> Sequence[RowMapping]:
    return connection.execute(select(table).where(table.c.study_id == study_id).order_by(table.c.id)).mappings().all()


def _attributes(connection: Connection, table: Any, study_id: int) -> dict[str, str]:
    """Attributes as their JSON texts, by key, so that the same study makes the same archive."""
    query = select(table.c.key, table.c.value_json).where(table.c.study_id == study_id).order_by(table.c.key)
    return {row.key: row.value_json for row in connection.execute(query)}


def _page(connection: Connection, study_id: int, first: int) -> list[TrialPart]:
    joined = t.trials.join(t.o_trials, t.o_trials.c.trial_id == t.trials.c.trial_id)
    columns = (*t.trials.c, t.o_trials.c.state, t.o_trials.c.datetime_start, t.o_trials.c.datetime_complete)
    mine = (t.trials.c.study_id == study_id) & (t.trials.c.number >= first)
    query = select(*columns).select_from(joined).where(mine).order_by(t.trials.c.number).limit(_PAGE)
    rows = connection.execute(query).mappings().all()
    ids = [row["trial_id"] for row in rows]
    params, values, steps = (
        _grouped(connection, table, ids, order)
        for table, order in (
            (t.o_params, t.o_params.c.param_id),
            (t.o_values, t.o_values.c.objective),
            (t.o_steps, t.o_steps.c.step),
        )
    )
    user, system = (_grouped(connection, table, ids, table.c.key) for table in (t.o_trial_user, t.o_trial_system))
    same = ("number", "seq", "attempt", "value", "best_step", "stop_reason", "epochs", "stop_asked_at")
    return [
        TrialPart(
            **{name: row[name] for name in same},
            state=STATE_OF[row["state"]],  # type: ignore[arg-type]  # of a study that has ended
            started_at=row["datetime_start"],
            finished_at=row["datetime_complete"],
            params=[
                ParamPart(name=each["param_name"], value=each["param_value"], distribution=each["distribution_json"])
                for each in params[row["trial_id"]]
            ],
            values=[value_of(each["value"], each["value_type"]) for each in values[row["trial_id"]]],
            intermediate_values={
                each["step"]: step_value(each["intermediate_value"], each["intermediate_value_type"])
                for each in steps[row["trial_id"]]
            },
            attributes={each["key"]: each["value_json"] for each in user[row["trial_id"]]},
            shown={each["key"]: each["value_json"] for each in system[row["trial_id"]]},
            curve=json.loads(row["curve"]) if row["curve"] else None,
            also=json.loads(row["also"]) if row["also"] else None,
        )
        for row in rows
    ]


def _grouped(connection: Connection, table: Any, ids: Sequence[int], order: Any) -> dict[int, list[RowMapping]]:
    found: dict[int, list[RowMapping]] = {trial_id: [] for trial_id in ids}
    for row in connection.execute(select(table).where(table.c.trial_id.in_(ids)).order_by(order)).mappings():
        found[row["trial_id"]].append(row)
    return found


def _insert(connection: Connection, given: Restored) -> int:
    parts, study, spec = given.parts, given.parts.study, given.spec
    best = study.best
    told = sum(given.counts.values())
    same = ("state", "reason", "budget_trials", "budget_seconds", "epochs", "leases", "lost_leases")
    times = ("created_at", "started_at", "served_at", "finished_at")
    whole = {**json.loads(parts.spec), "owner": spec.owner}
    values = {name: getattr(study, name) for name in (*same, *times)} | {
        "spec": dumps(whole),
        "dataset_id": given.dataset_id,
        "asked": told,
        "told": told,
        **given.counts,
        "best_number": best.number if best else None,
        "best_value": best.value if best else None,
        "best_step": best.step if best else None,
        "result": parts.result,
        "advice": parts.advice,
        "restored": given.digest,
    }
    study_id = insert_study(connection, free_name(connection, study.name), spec, values)
    # The original of a replay is a study of another server, or a stranger's.
    attributes = {key: text for key, text in study.attributes.items() if key != REPLAY_OF}
    attributes["spec"] = dumps(whole)
    attributes[RESTORED_FROM] = dumps(parts.origin.model_dump())
    insert_attributes(connection, study_id, attributes, study.shown)
    for table, rows in ((t.changes, study.changes), (t.test_accesses, study.readings), (t.finals, study.finals)):
        for row in rows:
            texts = {name: dumps(value) for name, value in row if isinstance(value, dict)}
            connection.execute(insert(table).values({"study_id": study_id, **dict(row), **texts}))
    if given.model is not None and study.model is not None:
        reason = study.model.onnx_reason
        if given.onnx is None and reason is None:  # no worker is to make it of a file that somebody has sent
            reason = "it had none when it was archived"
        about = {"study_id": study_id, "created_at": study.model.created_at, "onnx_reason": reason}
        connection.execute(insert(t.model_archives).values({**about, **archive_values(given.model, given.onnx)}))
        name_object(connection, given.model)
        name_object(connection, given.onnx)
    return study_id


def _insert_trials(connection: Connection, study_id: int, trials: Sequence[TrialPart]) -> None:
    if not trials:
        return
    rows = [
        {
            "study_id": study_id,
            "number": trial.number,
            "state": OPTUNA_STATE[trial.state],
            "datetime_start": trial.started_at,
            "datetime_complete": trial.finished_at,
        }
        for trial in trials
    ]
    insert_many(connection, t.o_trials, rows)
    mine = (t.o_trials.c.study_id == study_id) & t.o_trials.c.number.between(trials[0].number, trials[-1].number)
    found = connection.execute(select(t.o_trials.c.number, t.o_trials.c.trial_id).where(mine))
    ids: dict[int, int] = {row.number: row.trial_id for row in found}
    same = ("number", "seq", "attempt", "value", "best_step", "stop_reason", "epochs", "stop_asked_at")
    ours = [
        {
            "trial_id": ids[trial.number],
            "study_id": study_id,
            "ask_key": "",
            "curve": dumps(trial.curve) if trial.curve is not None else None,
            "also": dumps(trial.also) if trial.also is not None else None,
            **{name: getattr(trial, name) for name in same},
        }
        for trial in trials
    ]
    insert_many(connection, t.trials, ours)
    insert_many(connection, t.o_params, [_param(ids[trial.number], each) for trial in trials for each in trial.params])
    insert_many(connection, t.o_values, [row for trial in trials for row in _values(ids[trial.number], trial)])
    insert_many(connection, t.o_steps, [row for trial in trials for row in _steps(ids[trial.number], trial)])
    for table, name in ((t.o_trial_user, "attributes"), (t.o_trial_system, "shown")):
        pairs = [(ids[trial.number], getattr(trial, name)) for trial in trials]
        texts = [{"trial_id": id_, "key": key, "value_json": text} for id_, found in pairs for key, text in found.items()]
        insert_many(connection, table, texts)


def _param(trial_id: int, param: ParamPart) -> dict[str, Any]:
    named = {"param_name": param.name, "param_value": param.value}
    return {"trial_id": trial_id, **named, "distribution_json": param.distribution}


def _values(trial_id: int, trial: TrialPart) -> Iterator[dict[str, Any]]:
    for objective, reached in enumerate(trial.values):
        value, kind = stored_value(reached)
        yield {"trial_id": trial_id, "objective": objective, "value": value, "value_type": kind}


def _steps(trial_id: int, trial: TrialPart) -> Iterator[dict[str, Any]]:
    for step, reported in trial.intermediate_values.items():
        value, kind = stored_step_value(reported)
        named = {"step": step, "intermediate_value": value}
        yield {"trial_id": trial_id, **named, "intermediate_value_type": kind}
