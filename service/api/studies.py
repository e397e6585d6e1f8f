"""Routes of studies, their trials and their results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Response, status
from pydantic import AfterValidator, Discriminator, Tag

from service.api.access import WithCaller
from service.api.bodies import JsonRoute, storable_text
from service.api.idempotency import WithKey
from service.api.inspection import Inspections
from service.api.models import DryRun, StudyId, StudyOut, StudyPage, Submitted, TrialNumber, TrialOut, TrialPage
from service.api.problems import answers
from service.api.queries import LINKED, WithPage
from service.api.reports import external_result_of, readings_of, result_of
from service.api.submission import check, check_external, note_of, owned, plan_of
from service.api.usage import quotas_of
from service.errors import InvalidInput
from service.result import StudyResult
from service.result.external import ExternalStudyResult
from service.settings import Settings
from service.spec import StudySpec
from service.spec.external import ExternalSpec
from service.store import Store, StudyState
from service.store.records import StudyOrder, TrialState

Part = Annotated[str | None, Query(min_length=1, max_length=200), AfterValidator(storable_text)]

EXAMPLES: Any = {
    "smallest": {"summary": "Only the data", "value": {"data": {"dataset": "diabetes"}}},
    "space": {
        "summary": "A custom space",
        "value": {
            "name": "credit risk",
            "data": {"dataset": "3f1c9a2b7d5e4f60", "target": "class"},
            "model": {"widths": [128, 128]},
            "space": {
                "preset": "minimal",
                "dropout": {"low": 0.1, "high": 0.6, "off": True, "per_layer": True},
                "lr_schedule": ["constant", "cosine"],
                "lr": {"low": 1e-4, "high": 1e-2, "log": True},
            },
            "pruner": {"name": "successive_halving", "min_epochs": 5},
            "budget": {"trials": 200, "epochs": 60},
            "seed": 7,
        },
    },
    "external": {
        "summary": "A program of yours trains",
        "value": {
            "executor": "external",
            "metric": "val_loss",
            "direction": "minimize",
            "space": {
                "weight_decay": {"low": 1e-5, "high": 1.0, "log": True, "off": True},
                "custom": {"hidden": {"low": 32, "high": 512, "log": True}},
            },
        },
    },
}


def _executor(body: Any) -> str:
    """The tag of a submitted spec; workers run what does not say otherwise."""
    return "external" if isinstance(body, Mapping) and body.get("executor") == "external" else "workers"


AnySpec = Annotated[
    Annotated[StudySpec, Tag("workers")] | Annotated[ExternalSpec, Tag("external")],
    Discriminator(_executor),
    Body(openapi_examples=EXAMPLES),
]


def router(store: Store, settings: Settings) -> APIRouter:
    """All routes under /v1/studies."""
    routes = APIRouter(prefix="/v1/studies", tags=["studies"], route_class=JsonRoute)
    _submits(routes, store, settings)

    @routes.get("", responses={**LINKED, **answers(422)})
    def list_studies(
        caller: WithCaller,
        page: WithPage,
        state: StudyState | None = None,
        name: Part = None,
        owner: Part = None,
        tag: Annotated[list[Annotated[str, AfterValidator(storable_text)]], Query(max_length=20)] = [],  # noqa: B006
        metric: Part = None,
        sort: StudyOrder = "newest",
    ) -> StudyPage:
        """Studies: of a state, with a part of their name, of an owner (as far as the caller may see them), of a metric.

        With `tag`, which may be given several times, those that have all of these tags. Of one `metric` they can be sorted
        by their `best` value.
        """
        if sort == "best" and metric is None:
            raise InvalidInput.one(
                "sort", "best values are of one metric: name it in `metric`", value=sort, allowed="metric"
            )
        wanted: Any = {"state": state, "owner": owner, "name": name, "tags": tag, "metric": metric, "sort": sort}
        records, total = store.studies.list(**wanted, seer=caller.owner, offset=page.offset, limit=page.limit)
        page.link(total)
        studies = [StudyOut.of(record) for record in records]
        return StudyPage(studies=studies, total=total, offset=page.offset, limit=page.limit)

    @routes.get("/{study_id}/trials", responses={**LINKED, **answers(404, 422)})
    def list_trials(study_id: StudyId, page: WithPage, state: TrialState | None = None) -> TrialPage:
        """A study's trials by number."""
        records, total = store.history.page(study_id, state=state, offset=page.offset, limit=page.limit)
        page.link(total)
        trials = [TrialOut.of(record) for record in records]
        return TrialPage(trials=trials, total=total, offset=page.offset, limit=page.limit)

    @routes.get("/{study_id}/trials/{number}", responses=answers(404, 422))
    def get_trial(study_id: StudyId, number: TrialNumber) -> TrialOut:
        """One trial with its learning curves."""
        return TrialOut.of(store.history.trial(study_id, number))

    _result(routes, store)
    return routes


def _submits(routes: APIRouter, store: Store, settings: Settings) -> None:
    inspections = Inspections()

    @routes.post("", status_code=status.HTTP_201_CREATED, responses=answers(403, 413, 415, 422, 429))
    def submit(spec: AnySpec, response: Response, caller: WithCaller, request: WithKey) -> Submitted:
        """Queue a study. Only `data` is required; everything else has defaults (see the spec reference).

        With `executor: external` a program of yours trains, and asks for trials (`trials:ask`).
        """
        spec, quotas = owned(spec, caller), quotas_of(settings, caller)
        if isinstance(spec, ExternalSpec):
            check_external(spec)
            study_id = store.studies.submit(spec, note=note_of(spec), request=request, quotas=quotas)
            plan, data = plan_of(spec), None
        else:
            submission = check(spec, store, settings, inspections, caller.owner)
            advice = {"warnings": list(submission.warnings), "data": submission.data.model_dump(mode="json")}
            study_id = store.studies.submit(
                submission.spec,
                note=note_of(submission.spec),
                dataset_id=submission.dataset_id,
                advice=advice,
                request=request,
                quotas=quotas,
            )
            plan, data = plan_of(submission.spec), submission.data
        response.headers["Location"] = f"/v1/studies/{study_id}"
        return Submitted.of(store.studies.get(study_id), plan=plan, data=data)

    @routes.post("/dry-run", responses=answers(413, 415, 422))
    def dry_run(spec: AnySpec, caller: WithCaller) -> DryRun:
        """What a submit of this spec would answer: the spec with all defaults, warnings, the plan, how the data are read."""
        spec = owned(spec, caller)
        if isinstance(spec, ExternalSpec):
            check_external(spec)
            return DryRun(spec=spec.model_dump(mode="json", exclude_none=True), warnings=[], plan=plan_of(spec), data=None)
        checked = check(spec, store, settings, inspections, caller.owner)
        whole = checked.spec.model_dump(mode="json", exclude_none=True)
        return DryRun(spec=whole, warnings=list(checked.warnings), plan=plan_of(checked.spec), data=checked.data)


def _result(routes: APIRouter, store: Store) -> None:
    @routes.get("/{study_id}/result", responses=answers(404, 409, 422), response_model_exclude_unset=True)
    def get_result(study_id: StudyId) -> StudyResult | ExternalStudyResult:
        """The result: winner, baseline, test scores with intervals, ablation, readings of the test part. 409 until then."""
        record = store.studies.get(study_id)
        if record.external:
            found = external_result_of(record)
            return found.of_study(record.id, record.name, record.state, readings_of(store, study_id))
        return result_of(record).of_study(record.id, record.name, record.state, readings_of(store, study_id))
