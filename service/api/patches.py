"""Bodies and answers of changes: what of a study may be changed, and why other parts may not."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic.json_schema import SkipJsonSchema

from service.api.bodies import JsonModel
from service.spec import StudySpec
from service.spec.external import ExternalSpec
from service.spec.parts import BudgetSpec, Notes, Tags
from service.spec.setting import refuse
from service.store.actors import ChangeRecord, StudyChange

_BUDGET = BudgetSpec.model_fields


def _not_null(given: Any) -> Any:
    if given is None:
        refuse("", "must not be null: leave it out to keep it as it is", None, "a value")
    return given


class BudgetPatch(JsonModel):
    """Limits to change; the bounds are those of a submit."""

    trials: int | SkipJsonSchema[None] = Field(
        None, ge=1, le=1_000_000, description="At least as many as were asked; fewer than before end the search sooner."
    )
    seconds: float | None = Field(None, gt=0, description="From the study's begin; null for no limit.")
    epochs: int | SkipJsonSchema[None] = Field(
        None, ge=1, le=100_000, description="Only before anything has begun: schedules and pruning depend on it."
    )
    seeds: int | SkipJsonSchema[None] = Field(None, ge=2, le=100, description="Until the study is finalized, or after it.")
    finalists: int | SkipJsonSchema[None] = Field(
        None, ge=1, le=50, description="Until the study is finalized, or after it."
    )

    @field_validator("trials", "epochs", "seeds", "finalists", mode="before")
    @classmethod
    def _not_null(cls, given: Any) -> Any:
        return _not_null(given)

    @model_validator(mode="before")
    @classmethod
    def _what_can_be_changed(cls, raw: Any) -> Any:
        _refuse_others(raw, _BUDGET, cls.model_fields)
        return raw


class StudyPatch(BaseModel):
    """What is to change in a study."""

    model_config = ConfigDict(extra="forbid")

    priority: int | SkipJsonSchema[None] = Field(
        None, ge=-100, le=100, description="Of a study that still needs workers; higher ones get them first."
    )
    tags: Tags | SkipJsonSchema[None] = Field(None, description="All tags that it is to have, in any state.")
    notes: Notes | SkipJsonSchema[None] = Field(
        None, description="Markdown in place of the notes that it has, in any state."
    )
    budget: BudgetPatch = Field(default_factory=BudgetPatch, description="Limits to change; others stay.")

    @field_validator("priority", "tags", "notes", mode="before")
    @classmethod
    def _not_null(cls, given: Any) -> Any:
        return _not_null(given)

    @model_validator(mode="before")
    @classmethod
    def _what_can_be_changed(cls, raw: Any) -> Any:
        _refuse_others(raw, {**StudySpec.model_fields, **ExternalSpec.model_fields}, cls.model_fields)
        return raw

    @property
    def values(self) -> dict[str, Any]:
        """What is named, as a part of a spec."""
        return self.model_dump(exclude_unset=True)

    @property
    def change(self) -> StudyChange:
        """For the store."""
        return StudyChange(self.priority, self.tags, self.notes, budget=self.budget.model_dump(exclude_unset=True))


def _refuse_others(raw: Any, known: Mapping[str, Any], changeable: Mapping[str, Any]) -> None:
    """Refuse, with the reason, keys of a spec that can't be changed; unknown ones are refused as everywhere."""
    for name in raw if isinstance(raw, Mapping) else ():
        if name in known and name not in changeable:
            message = "can't be changed, as the study's trials have it in common: submit a new study"
            refuse(name, message, raw[name], ", ".join(changeable))


class ChangeOut(BaseModel):
    """What somebody has changed."""

    at: datetime
    owner: str | None = Field(description="Whose token it was; null where the service asks for none.")
    token: int | None = Field(description="Its id.")
    what: dict[str, tuple[Any, Any]] = Field(description="By name, what it was before and what it was then.")

    @classmethod
    def of(cls, record: ChangeRecord) -> ChangeOut:
        """The response for a record."""
        what = {name: (before, then) for name, (before, then) in record.what.items()}
        return cls(at=record.at, owner=record.by.owner, token=record.by.token, what=what)


class ChangePage(BaseModel):
    """A page of changes, latest first."""

    changes: list[ChangeOut]
    total: int
    offset: int
    limit: int
