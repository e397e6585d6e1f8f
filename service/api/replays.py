"""Routes that replay a study and compare the replay with the original."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Response, status
from pydantic import BaseModel, Field

from service.api.access import Caller, WithCaller
from service.api.bodies import JsonRoute
from service.api.idempotency import WithKey
from service.api.inspection import Inspections
from service.api.models import StudyId, StudyOut
from service.api.problems import answers
from service.api.submission import check, note_of
from service.api.usage import quotas_of
from service.errors import Conflict
from service.replay import compare
from service.settings import Settings
from service.spec import StudySpec
from service.store import Store
from service.store.provenance import REPLAY_OF
from service.store.records import StudyState

_MAX_NAME = 200
_SUFFIX = " (replay)"


class DifferenceOut(BaseModel):
    """A field of a trial that differs; `field` is `trial` where one of the studies lacks the trial."""

    number: int
    field: str
    was: Any
    now: Any


class ComparisonOut(BaseModel):
    """A replay compared with the study that it repeats."""

    id: int
    replay_of: int
    same: bool = Field(description="Every trial has the same parameters, state, value and epochs, bit by bit.")
    same_order: bool = Field(description="Trials were told in the same order.")
    trials: int
    differing: int = Field(description="Trials with any difference.")
    largest_difference: float = Field(
        description="Largest difference between the two values of a trial, relative to the first."
    )
    differences: list[DifferenceOut] = Field(description="At most the first 100.")
    made_of: dict[str, Any] = Field(description="Data hash, versions, device and plan where the studies differ: [was, now].")


def router(store: Store, settings: Settings) -> APIRouter:
    """Routes under /v1/studies/{id}."""
    routes = APIRouter(prefix="/v1/studies", tags=["studies"], route_class=JsonRoute)

    @routes.post("/{study_id}/replay", status_code=status.HTTP_201_CREATED, responses=answers(403, 404, 409, 422, 429))
    def replay(study_id: StudyId, response: Response, request: WithKey, caller: WithCaller) -> StudyOut:
        """Queue the study again, with the same spec, seed, data and number of lanes. Compare them when it is finished."""
        record = store.studies.get(study_id)
        if record.external:
            raise Conflict(f"study {study_id} was run by a program (executor: external), which alone can run it again")
        spec = StudySpec.model_validate(record.spec)
        if store.provenance.get(study_id).restored_from is not None:
            _check_here(study_id, spec, store, settings, caller)
        spec = spec.model_copy(update={"name": f"{spec.name[: _MAX_NAME - len(_SUFFIX)]}{_SUFFIX}"})
        attributes = {REPLAY_OF: study_id}
        again = store.studies.submit(
            spec,
            note=note_of(spec),
            dataset_id=record.dataset_id,
            attributes=attributes,
            advice=record.advice,
            request=request,
            quotas=quotas_of(settings, caller),
        )
        response.headers["Location"] = f"/v1/studies/{again}"
        return StudyOut.of(store.studies.get(again))

    @routes.get("/{study_id}/comparison", responses=answers(404, 409, 422))
    def comparison(study_id: StudyId) -> ComparisonOut:
        """Compare a replay with its original, trial by trial. 409 until both are finished."""
        again = store.studies.get(study_id)
        provenance = store.provenance.get(study_id)
        if provenance.replay_of is None:
            raise Conflict(f"study {study_id} is not a replay")
        original = store.studies.get(provenance.replay_of)
        for study in (original, again):
            if study.state is not StudyState.FINISHED:
                raise Conflict(f"study {study.id} is {study.state}; both must be finished")
        trials = (store.history.since(study.id, 0) for study in (original, again))
        made = [dict(store.provenance.get(study.id).made_of or {}) for study in (original, again)]
        changed = {name: [each.get(name) for each in made] for name in made[0].keys() | made[1].keys()}
        unequal = {name: pair for name, pair in sorted(changed.items()) if pair[0] != pair[1]}
        return ComparisonOut(id=again.id, replay_of=original.id, made_of=unequal, **asdict(compare(*trials)))

    return routes


def _check_here(study_id: int, spec: StudySpec, store: Store, settings: Settings, caller: Caller) -> None:
    """Check the spec of a restored study as that of a submit: what it names is of another server, or was written by anybody.

    Raises:
        Conflict: It begins with other studies.
        InvalidInput: Its data or its module is not here.
    """
    if spec.search_from or spec.model.start_from is not None:
        raise Conflict(f"study {study_id} was restored from an archive, and began with studies of another server")
    check(spec, store, settings, Inspections(), caller.whose if caller.token else None)
