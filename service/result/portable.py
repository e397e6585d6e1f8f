"""The documents in the archive of a study: a ZIP file from which another service, on another database, restores it.

    manifest.json         format, versions, and size and SHA-256 of every other file
    study.json            `StudyPart`: state, times, budget, Optuna's attributes, changes, readings of the test part
    spec.json             what was asked for
    result.json           the answer, if there is one
    advice.json           what the submit told: warnings, and how its data are read
    trials.jsonl          `TrialPart`, a line for each trial by number
    model.zip, model.onnx the trained model
    data/ID.ENDING        the uploaded data set, if that was asked for

Numbers that JSON lacks are "NaN", "Infinity" and "-Infinity". Ids of tokens and leases stay where they mean something.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

FORMAT: Literal["regsearch-study"] = "regsearch-study"
VERSION: Literal[1] = 1
MANIFEST, STUDY, SPEC, RESULT, ADVICE, TRIALS = (
    "manifest.json",
    "study.json",
    "spec.json",
    "result.json",
    "advice.json",
    "trials.jsonl",
)
MODEL, ONNX = "model.zip", "model.onnx"
DATA_FOLDER = "data/"

_Id = Annotated[int, Field(ge=0, lt=2**31)]
_Text = Annotated[str, Field(max_length=100_000)]
_Name = Annotated[str, Field(max_length=512)]
_Seconds = Annotated[float, Field(ge=0, le=1e11, allow_inf_nan=False)]
"""Since 1970."""


class Document(BaseModel):
    """A document, or a part of one; unlike parts of results it has no unknown fields, which nobody could restore."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class FilePart(Document):
    """A file of the archive."""

    bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Origin(Document):
    """Which study it was, where it was archived."""

    id: _Id
    name: _Name
    owner: _Name


class DataPart(Document):
    """What its owner called the data set that is in the archive."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    filename: Annotated[str, Field(min_length=1, max_length=300)]


class Manifest(Document):
    """manifest.json."""

    format: Literal["regsearch-study"]
    version: Literal[1]
    study: Origin
    versions: dict[str, str | None]
    """Of regsearch and Optuna."""
    data: DataPart | None
    files: dict[str, FilePart]


class BestPart(Document):
    """The best trial of a study."""

    number: _Id
    value: float
    step: int | None


class ChangePart(Document):
    """What somebody has changed, as in `/v1/studies/{id}/changes`."""

    at: _Seconds
    owner: _Name | None
    what: dict[str, tuple[Any, Any]]


class ReadingPart(Document):
    """A reading of the test part."""

    at: _Seconds
    who: Annotated[str, Field(max_length=200)]
    purpose: _Text


class FinalPart(Document):
    """A run of a program after the search."""

    number: _Id
    name: Annotated[str, Field(max_length=200)]
    role: Annotated[str, Field(max_length=16)]
    trial: _Id | None
    seed_index: _Id
    params: dict[str, Any]
    state: Literal["waiting", "running", "complete", "pruned", "fail"]
    attempt: _Id
    value: float | None
    test: float | None
    reason: _Text | None


class ModelPart(Document):
    """The trained model that is in the archive; ``onnx_reason`` tells why there is no ONNX model."""

    created_at: _Seconds
    onnx_reason: _Text | None


class StudyPart(Document):
    """study.json. ``attributes`` and ``shown`` are user and system attributes of Optuna's study, as JSON texts."""

    name: Annotated[str, Field(min_length=1, max_length=220)]
    state: Literal["finished", "cancelled", "failed"]
    reason: _Text | None
    dataset_id: Annotated[str, Field(max_length=64)] | None
    budget_trials: _Id
    budget_seconds: float | None
    epochs: _Id
    best: BestPart | None
    leases: _Id
    lost_leases: _Id
    created_at: _Seconds
    started_at: _Seconds | None
    served_at: _Seconds | None
    finished_at: _Seconds
    attributes: dict[_Name, str]
    shown: dict[_Name, str]
    changes: list[ChangePart]
    readings: list[ReadingPart]
    finals: list[FinalPart]
    model: ModelPart | None


class ParamPart(Document):
    """A parameter of a trial: its internal value, and its distribution as Optuna writes it."""

    name: _Name
    value: float
    distribution: _Text


class TrialPart(Document):
    """A line of trials.jsonl: Optuna's trial, and what ours adds. Times of trials are in UTC, as Optuna keeps them."""

    number: _Id
    state: Literal["complete", "pruned", "fail"]
    started_at: datetime | None
    finished_at: datetime | None
    params: list[ParamPart]
    values: list[float]
    intermediate_values: dict[Annotated[int, Field(ge=0, lt=2**31)], float]
    attributes: dict[_Name, str]
    shown: dict[_Name, str]
    seq: Annotated[int, Field(ge=1, lt=2**31)]
    """The place in the order in which trials were told."""
    attempt: _Id
    value: float | None
    best_step: _Id | None
    stop_reason: _Text | None
    epochs: _Id
    curve: dict[str, list[float]] | None
    also: dict[str, float] | None
    stop_asked_at: _Seconds | None
