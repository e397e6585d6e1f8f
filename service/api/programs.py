"""Routes for the users' programs that run trials: ask, report, tell, heartbeat, release."""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, status
from pydantic import BaseModel, Field

from service.api.bodies import JsonModel, JsonRoute
from service.api.models import StudyId
from service.api.problems import answers
from service.errors import InvalidInput
from service.external import Answer, Decision, FinalTold, Programs, Run, Told
from service.external.programs import FINAL
from service.store import Store

Client = Annotated[
    str,
    Field(
        min_length=8,
        max_length=64,
        pattern=r"^[A-Za-z0-9_-]+$",
        description="What the program calls itself, such as a UUID: who knows it may tell its trials.",
    ),
]
Seconds = Annotated[
    float,
    Field(ge=1.0, le=86_400.0, description="Seconds after which its trials are given away, unless it calls again before."),
]
Name = Annotated[str, Field(pattern=rf"^({FINAL})?\d{{1,9}}$", description="The `trial` of an ask's answer.")]
_MOST = 1000


class ProgramIn(JsonModel):
    """A program with its lease."""

    client: Client
    lease_seconds: Seconds = 60.0


class AskIn(ProgramIn):
    """A request for trials."""

    n: int = Field(1, ge=1, le=_MOST, description="How many at most.")
    key: str = Field(
        "", max_length=100, description="Of this request: repeated with the same key it returns the same trials again."
    )


class TrialToRun(BaseModel):
    """A trial to run."""

    trial: str = Field(description="Its name in `trials:report` and `trials:tell`.")
    purpose: Literal["search", "finalist", "baseline", "ablation"] = Field(
        description="After the search the best settings are run again over seeds, the winner also without regularization."
    )
    number: int | None = Field(description="Of the trial, or of that which found the setting.")
    setting: str | None = Field(description="Name of the setting, after the search.")
    seed: int = Field(description="For the program's random numbers; after the search equal for all settings.")
    attempt: int = Field(description="Number of programs that were lost while they ran it.")
    params: dict[str, Any] = Field(description="The value of every setting that applies.")

    @classmethod
    def of(cls, run: Run) -> TrialToRun:
        """The response for a run."""
        return cls(trial=run.name, **{name: getattr(run, name) for name in cls.model_fields if name != "trial"})


class AskOut(BaseModel):
    """Trials to run."""

    state: str
    trials: list[TrialToRun]
    over: bool = Field(description="Whether there will be no more.")
    retry_after: float | None = Field(description="Seconds after which to ask again if there are none now.")

    @classmethod
    def of(cls, answer: Answer) -> AskOut:
        """The response for an answer."""
        trials = [TrialToRun.of(run) for run in answer.runs]
        return cls(state=answer.state, trials=trials, over=answer.over, retry_after=answer.retry_after)


class ReportedValue(JsonModel):
    """An intermediate value of the objective."""

    trial: Name
    step: int = Field(ge=0, lt=100_000, description="Evaluations before this one.")
    value: float | None = Field(allow_inf_nan=False, description="Null where it is not a number.")


class ReportIn(ProgramIn):
    """Intermediate values."""

    values: list[ReportedValue] = Field(min_length=1, max_length=10_000)


class DecisionOut(BaseModel):
    """How a trial goes on: `continue`; `prune` or `stop`, then tell it; `lost`: it was given away, drop it."""

    trial: str
    decision: Literal["continue", "prune", "stop", "lost"]
    reason: str | None

    @classmethod
    def of(cls, trial: str, decision: Decision) -> DecisionOut:
        """The response for a decision."""
        return cls(trial=trial, decision=decision.decision, reason=decision.reason)


class ToldTrial(JsonModel):
    """How a trial ended."""

    trial: Name
    state: Literal["complete", "pruned", "fail"] = "complete"
    value: float | None = Field(None, allow_inf_nan=False, description="If omitted, the best value that it reported.")
    also: dict[str, float] = Field({}, description="Values of the further objectives.")
    test: float | None = Field(
        None,
        allow_inf_nan=False,
        description="After the search: the objective on test data. Read of winner and baseline only.",
    )
    reason: str | None = Field(None, max_length=2000, description="Why it failed or ended.")
    attrs: dict[str, Any] = Field({}, max_length=50, description="Anything to keep with the trial.")


class TellIn(ProgramIn):
    """Ends of trials."""

    trials: list[ToldTrial] = Field(min_length=1, max_length=_MOST)


class Refused(BaseModel):
    """A trial that was not told, as it does not run under this program's lease."""

    trial: str
    reason: str


class TellOut(BaseModel):
    """What was told. Telling again is harmless."""

    state: str
    refused: list[Refused]


class StateOut(BaseModel):
    """A study's state."""

    state: str


def router(store: Store) -> APIRouter:
    """All routes for programs, under /v1/studies."""
    routes = APIRouter(prefix="/v1/studies", tags=["external studies"], route_class=JsonRoute)
    programs = Programs(store)

    @routes.post("/{study_id}/trials:ask", responses=answers(404, 409, 413, 415, 422))
    def ask(study_id: StudyId, asked: AskIn) -> AskOut:
        """Trials for a program to run, those of lost programs first; after the search the final runs of the answer."""
        key = asked.key or uuid.uuid4().hex
        return AskOut.of(programs.ask(study_id, asked.client, asked.n, key, asked.lease_seconds))

    @routes.post("/{study_id}/trials:report", responses=answers(404, 409, 413, 415, 422))
    def report(study_id: StudyId, reported: ReportIn) -> list[DecisionOut]:
        """Report intermediate values; the answer tells which trials are to end."""
        given: dict[str, dict[int, float]] = {}
        for each in reported.values:
            given.setdefault(_plain(each.trial), {})[each.step] = math.nan if each.value is None else each.value
        decided = programs.report(study_id, reported.client, given, reported.lease_seconds)
        return [DecisionOut.of(trial, decision) for trial, decision in decided.items()]

    @routes.post("/{study_id}/trials:tell", responses=answers(404, 409, 413, 415, 422))
    def tell(study_id: StudyId, told: TellIn) -> TellOut:
        """Tell how trials ended."""
        _refuse_twice([_plain(each.trial) for each in told.trials])
        search = [each for each in told.trials if not each.trial.startswith(FINAL)]
        final = [_final(each) for each in told.trials if each.trial.startswith(FINAL)]
        refused = programs.tell(study_id, told.client, [_searched(each) for each in search], final, told.lease_seconds)
        return TellOut(
            state=store.studies.get(study_id).state,
            refused=[Refused(trial=trial, reason=reason) for trial, reason in refused.items()],
        )

    @routes.post("/{study_id}/trials:heartbeat", responses=answers(404, 409, 413, 415, 422))
    def heartbeat(study_id: StudyId, beat: ProgramIn) -> StateOut:
        """Keep the program's trials; 409 if they have been given away."""
        return StateOut(state=programs.heartbeat(study_id, beat.client, beat.lease_seconds))

    @routes.post(
        "/{study_id}/trials:release", status_code=status.HTTP_204_NO_CONTENT, responses=answers(404, 409, 413, 415, 422)
    )
    def release(study_id: StudyId, given: ProgramIn) -> None:
        """Give the program's trials back at once; they are asked again and lose no attempt."""
        programs.release(study_id, given.client)

    return routes


def _plain(name: str) -> str:
    """A trial's name without leading zeros."""
    return re.sub(r"0*(\d+)$", r"\1", name)


def _searched(told: ToldTrial) -> Told:
    if told.test is not None:
        allowed = "nothing: test scores are for the runs after the search"
        raise InvalidInput.one("test", f"trial {told.trial} belongs to the search", value=told.test, allowed=allowed)
    return Told(int(told.trial), told.state, told.value, told.also, told.reason, told.attrs)


def _final(told: ToldTrial) -> FinalTold:
    number = int(told.trial.removeprefix(FINAL))
    if told.state == "fail":
        return FinalTold(number, None, None, told.reason or "the program told no reason")
    if told.value is None:
        raise InvalidInput.one("value", f"{told.trial} is complete without a value", value=None, allowed="a number")
    return FinalTold(number, told.value, told.test, told.reason)


def _refuse_twice(names: Sequence[str]) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidInput.one("trials", "has a trial twice", value=twice, allowed="each trial once")
