"""Models of responses, as the OpenAPI document shows them, and types of path parameters."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Self

from fastapi import Path
from pydantic import BaseModel, Field

from service.api.bodies import JsonModel
from service.api.data_sheets import DataSheet, recorded
from service.datasets import TableInfo
from service.datasets.sheet import notes_on
from service.spec.metrics import Direction
from service.spec.parts import BudgetSpec
from service.store.records import DatasetRecord, EventRecord, StudyRecord, StudyState, TrialRecord, WorkerRecord

TrialNumber = Annotated[int, Path(ge=0, lt=2**31, description="A trial's number.")]
StudyId = Annotated[int, Path(ge=1, lt=2**31, description="A study's id.")]


class Counts(BaseModel):
    """Trials by state, of all searches of the study."""

    waiting: int
    running: int
    complete: int
    pruned: int
    fail: int
    finished: int
    budget: int
    searches: int = Field(1, description="How many searches share the budget equally: several with nested validation.")


class Best(BaseModel):
    """The best complete trial so far by `metric`, on validation data and one seed."""

    number: int
    value: float
    step: int
    params: dict[str, Any]


class EventOut(BaseModel):
    """What has happened to a study, as the study was then."""

    type: str
    at: datetime
    study_id: int
    name: str
    owner: str
    state: str
    reason: str | None
    metric: str
    best: float | None = Field(description="The best value so far by `metric`.")
    best_number: int | None = Field(description="The trial that has it.")

    @classmethod
    def of(cls, record: EventRecord) -> EventOut:
        """The response for a record."""
        copied = {name: getattr(record, name) for name in EventRecord.COPIED}
        kind, best = copied.pop("kind"), copied.pop("best_value")
        return cls(type=kind, at=record.at, best=best, **copied)


class StudyOut(BaseModel):
    """A study in its present state."""

    id: int
    name: str
    state: str
    reason: str | None
    owner: str
    priority: int
    tags: list[str]
    notes: str = Field(description="Markdown that people have written.")
    metric: str
    direction: str
    objectives: dict[str, Direction] = Field(description="Directions of all objectives by name, `metric` first.")
    trials: Counts
    epochs: int = Field(description="Epochs trained by finished trials.")
    best: Best | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    elapsed_seconds: float | None
    remaining_seconds: float | None = Field(
        description="Estimate until the last trial has finished, from the finished ones, and at most what `budget.seconds` "
        "leaves for the search; null while it is paused, or nothing is known. Finalists are trained afterwards."
    )
    links: dict[str, str]
    spec: dict[str, Any]
    warnings: list[str] = Field(description="What was told at submit; empty for studies of earlier versions.")

    @classmethod
    def of(cls, record: StudyRecord, **more: Any) -> Self:
        """The response for a record, with the fields that a larger one has."""
        best = record.best
        end = record.finished_at or record.now
        elapsed = (end - record.started_at).total_seconds() if record.started_at else None
        here = f"/v1/studies/{record.id}"
        return cls(
            id=record.id,
            name=record.name,
            state=record.state,
            reason=record.reason,
            owner=record.owner,
            priority=record.priority,
            tags=[*record.tags],
            notes=record.notes,
            metric=record.metric,
            direction=record.direction,
            objectives=record.objectives,
            trials=Counts(
                **vars(record.counts),
                finished=record.counts.finished,
                budget=record.budget_trials,
                searches=record.searches,
            ),
            epochs=record.epochs,
            best=Best(number=best.number, value=best.value, step=best.step, params=dict(best.params)) if best else None,
            created_at=record.created_at,
            started_at=record.started_at,
            finished_at=record.finished_at,
            elapsed_seconds=elapsed,
            remaining_seconds=_remaining(record, elapsed),
            links={
                "self": here,
                **{name: f"{here}/{name}" for name in ("trials", "result", "report")},
                **({} if record.external else {"model": f"{here}/model"}),
                "dashboard": f"/dashboard/studies/{record.id}",
            },
            spec=record.spec,
            warnings=(record.advice or {}).get("warnings", []),
            **more,
        )


def _remaining(record: StudyRecord, elapsed: float | None) -> float | None:
    """Seconds for the rest of the budget at the pace so far, or the rest of the time; see the field."""
    left = record.budget_trials - record.counts.finished
    if record.finished_at is not None or record.state is StudyState.FINALIZING or left <= 0:
        return 0.0
    if not elapsed or record.state is StudyState.PAUSED:
        return None
    bounds = [elapsed / record.counts.finished * left] if record.counts.finished else []
    seconds = BudgetSpec.model_validate(record.spec["budget"]).search_seconds
    if seconds is not None:
        bounds.append(max(0.0, seconds - elapsed))
    return min(bounds, default=None)


class StudyPage(BaseModel):
    """A page of studies, newest first."""

    studies: list[StudyOut]
    total: int
    offset: int
    limit: int


class Submitted(StudyOut):
    """A queued study with its plan, and how its data are read."""

    plan: dict[str, Any]
    data: DataSheet | None = Field(description="Null of a study that a program runs, whose data are its own.")


class DryRun(BaseModel):
    """What a submit would answer, without a study."""

    spec: dict[str, Any] = Field(description="With all defaults filled in.")
    warnings: list[str]
    plan: dict[str, Any]
    data: DataSheet | None = Field(description="Null of a study that a program runs, whose data are its own.")


class TrialOut(BaseModel):
    """A trial; ``curve`` is set only where a single trial was requested."""

    number: int
    state: str
    value: float | None = Field(description="Its best validation value, at `best_step`.")
    also: dict[str, float] = Field(description="Values of the study's further objectives at the same step.")
    best_step: int | None
    stop_reason: str | None
    stopping: bool = Field(description="Whether somebody has stopped it, and it has not ended yet.")
    epochs: int
    attempt: int = Field(description="Number of workers that were lost while they trained it.")
    params: dict[str, Any]
    attrs: dict[str, Any]
    started_at: datetime | None
    finished_at: datetime | None
    curve: dict[str, list[float]] | None = None

    @classmethod
    def of(cls, record: TrialRecord) -> TrialOut:
        """The response for a record."""
        return cls.model_validate(record, from_attributes=True)


class TrialPage(BaseModel):
    """A page of trials by number."""

    trials: list[TrialOut]
    total: int
    offset: int
    limit: int


class WorkerOut(BaseModel):
    """A worker process."""

    id: str
    name: str
    host: str
    pid: int
    device: str
    state: str
    started_at: datetime
    seen_at: datetime
    stats: dict[str, Any]
    memory: int | None = Field(description="Bytes that its studies may take.")
    devices: int = Field(description="Devices on which it can train one network.")

    @classmethod
    def of(cls, record: WorkerRecord) -> WorkerOut:
        """The response for a record."""
        return cls.model_validate(record, from_attributes=True)


class ColumnOut(BaseModel):
    """A column of a data set."""

    name: str
    kind: str
    missing: int
    distinct: int
    why: str = Field(description="What led to the kind.")
    notes: list[str] = Field(description="What may not be meant, or may mislead a study.")


class SourceOut(BaseModel):
    """Where a data set is from: a file, an address, or a query of a database. A built-in one has none of them."""

    file: str | None = None
    address: str | None = None
    database: str | None = None
    query: str | None = None


class DatasetOut(BaseModel):
    """A data set; a spec refers to it by its id."""

    id: str
    name: str
    format: str
    size: int = Field(description="Bytes.")
    rows: int
    columns: list[ColumnOut]
    built_in: bool = False
    created_at: datetime | None = None
    sha256: str | None = Field(None, description="Of the content; null for built-in ones, and of earlier versions.")
    source: SourceOut = Field(description="Where it is from.")
    owners: list[str] = Field([], description="Who has it, as far as the caller may know.")
    equal_rows: int = Field(0, description="Rows that repeat an earlier one, target included.")
    warnings: list[str] = Field([], description="What was read in a way that may not be meant.")

    @classmethod
    def of(cls, record: DatasetRecord) -> DatasetOut:
        """The response for a record."""
        return cls.described(
            recorded(record),
            id=record.id,
            name=record.name,
            format=record.format,
            size=record.size,
            created_at=record.created_at,
            sha256=record.sha256,
            source=SourceOut(**record.source),
            owners=list(record.owners),
        )

    @classmethod
    def described(cls, table: TableInfo, **about: Any) -> DatasetOut:
        """The response for a table."""
        notes = notes_on(table)
        columns = [
            ColumnOut(
                name=column.name,
                kind=column.kind,
                missing=column.missing,
                distinct=column.distinct,
                why=column.why,
                notes=[note.text for note in notes if note.column == column.name],
            )
            for column in table.columns
        ]
        warnings = [note.text for note in notes if note.warns]
        return cls(**about, rows=table.rows, columns=columns, equal_rows=table.sheet.equal_rows, warnings=warnings)


class VersionOut(BaseModel):
    """A data set as one of several of the same name."""

    id: str
    created_at: datetime


class Received(DatasetOut):
    """A data set that was given."""

    unchanged: bool = Field(description="Whether the caller has the same content under the same name already.")
    others: list[VersionOut] = Field(description="The caller's other data sets of the same name, newest first.")


class ExtendIn(JsonModel):
    """The number of trials to add."""

    trials: int = Field(ge=1, le=1_000_000)
