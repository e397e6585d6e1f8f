"""Several studies compared, as JSON and as a page. What belongs to others does not exist here either."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, Field

from service.api.access import Caller, WithCaller
from service.api.pages import policy_for
from service.api.problems import answers
from service.api.reports import external_result_of, result_of
from service.errors import InvalidInput
from service.report.comparison import Compared, Estimate, build_comparison, compared, differences, doubts
from service.report.page import to_html
from service.store import Store

_MOST = 10
Ids = Annotated[
    str,
    Query(
        min_length=1,
        max_length=200,
        description=f"Ids of studies with commas between them, at most {_MOST}.",
        examples=["1,2"],
    ),
]


class EstimateOut(BaseModel):
    """A score."""

    mean: float
    low: float | None = Field(description="Ends of its 95 % interval, where there is one.")
    high: float | None

    @classmethod
    def of(cls, found: Estimate | None) -> EstimateOut | None:
        """The response for an estimate."""
        return None if found is None else cls(**vars(found))


class BestOf(BaseModel):
    """The best trial of a study's search, with its learning curve."""

    number: int
    value: float | None
    step: int | None
    curve: list[float] = Field(description="Values of the metric by epoch.")


class ComparedOut(BaseModel):
    """A study in a comparison."""

    id: int
    name: str
    state: str
    tags: list[str]
    metric: str
    direction: str
    finished: int = Field(description="Finished trials.")
    budget: int
    best: BestOf | None
    verdict: str | None
    validation: float | None = Field(description="Mean of the winner over seeds.")
    test: EstimateOut | None = Field(description="Of the winner; null until the study is finished.")
    unregularized: EstimateOut | None = Field(description="The same network without any regularization, on the test rows.")

    @classmethod
    def of(cls, found: Compared) -> ComparedOut:
        """The response for a study."""
        study, best = found.study, found.best
        trial = None
        if best is not None:
            trial = BestOf(number=best.number, value=best.value, step=best.best_step, curve=[*found.curve])
        return cls(
            **{name: getattr(study, name) for name in ("id", "name", "state", "metric", "direction")},
            tags=[*study.tags],
            finished=study.counts.finished,
            budget=study.budget_trials,
            best=trial,
            verdict=found.verdict,
            validation=found.validation,
            test=EstimateOut.of(found.test),
            unregularized=EstimateOut.of(found.baseline),
        )


class DifferenceOut(BaseModel):
    """A setting in which the recipes differ."""

    setting: str
    values: list[Any] = Field(description="In the order of the studies; null where it does not apply or is not known.")


class CompareOut(BaseModel):
    """Several studies beside each other, in the order in which they were asked for."""

    studies: list[ComparedOut]
    differences: list[DifferenceOut]
    doubts: list[str] = Field(description="Why their values may not be compared.")


def router(store: Store) -> APIRouter:
    """/v1/compare and /compare."""
    routes = APIRouter()

    @routes.get("/v1/compare", tags=["studies"], responses=answers(404, 422))
    def compare(ids: Ids, caller: WithCaller) -> CompareOut:
        """Best values, test scores with intervals, where the recipes differ, and the curves of the best trials."""
        found = _found(store, ids, caller)
        return CompareOut(
            studies=[ComparedOut.of(each) for each in found],
            differences=[DifferenceOut(setting=each.setting, values=[*each.values]) for each in differences(found)],
            doubts=[*doubts(found)],
        )

    @routes.get("/compare", include_in_schema=False)
    def compare_page(ids: Ids, caller: WithCaller) -> HTMLResponse:
        text = to_html(build_comparison(_found(store, ids, caller)))
        headers = {"content-security-policy": policy_for(""), "cache-control": "no-store"}
        return HTMLResponse(text, HTTPStatus.OK, headers)

    return routes


def _found(store: Store, ids: str, caller: Caller) -> list[Compared]:
    """The studies, as far as they are the caller's.

    Raises:
        NotFound: There is none with one of the ids.
    """
    found = []
    for study_id in _ids(ids):
        study = store.studies.get(study_id, caller.owner)
        best = None if study.best is None else store.history.trial(study_id, study.best.number)
        result = None
        if study.result is not None:
            result = external_result_of(study) if study.external else result_of(study)
        found.append(compared(study, result, best))
    return found


def _ids(text: str) -> list[int]:
    """The ids in a text, each once.

    >>> _ids("3, 1,3")
    [3, 1]
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and 0 < int(part[:12]) < 2**31 and len(part) < 12 for part in parts):
        raise InvalidInput.one("ids", "are not ids of studies with commas between them", value=text, allowed="such as 1,2")
    found = list(dict.fromkeys(map(int, parts)))
    if len(found) > _MOST:
        raise InvalidInput.one("ids", f"are of {len(found)} studies", value=text, allowed=f"at most {_MOST}")
    return found
