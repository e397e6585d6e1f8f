"""Arguments and return values of the store: frozen dataclasses without SQL. Times are timezone-aware datetimes in UTC."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar, Literal

from optuna.distributions import BaseDistribution

from service.spec.metrics import Direction, direction_of
from service.spec.nested import searches_in

Params = Mapping[str, Any]


class StudyState(StrEnum):
    """State of a study. `finalizing`: the budget is spent and the finalists are being retrained."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    FINALIZING = "finalizing"
    FINISHED = "finished"
    CANCELLED = "cancelled"
    FAILED = "failed"


SEARCHED = (StudyState.QUEUED, StudyState.RUNNING)
ENDED = (StudyState.FINISHED, StudyState.CANCELLED, StudyState.FAILED)
"""States in which trials are asked and told."""

StudyOrder = Literal["newest", "oldest", "name", "priority", "best", "finished"]
TrialState = Literal["waiting", "running", "complete", "pruned", "fail"]


@dataclass(frozen=True)
class StoredObject:
    """An object of a trained model, its SHA-256 in hexadecimal digits and its size in bytes.

    ``name`` is None, and ``sha256`` may be empty, while the content is where an earlier version left it: in the database.
    """

    name: str | None
    sha256: str
    size: int


@dataclass(frozen=True)
class TrialCounts:
    """Trials of a study by state."""

    waiting: int = 0
    running: int = 0
    complete: int = 0
    pruned: int = 0
    fail: int = 0

    @property
    def finished(self) -> int:
        """Number of trials that have ended, in any state."""
        return self.complete + self.pruned + self.fail

    @property
    def all(self) -> int:
        """Number of trials in any state."""
        return self.waiting + self.running + self.finished


@dataclass(frozen=True)
class BestTrial:
    """The best complete trial."""

    number: int
    value: float
    step: int
    params: Params


@dataclass(frozen=True)
class StudyRecord:
    """A study in the queue. ``epochs`` is the number trained over all trials.

    ``spec`` is its `StudySpec` or `ExternalSpec` as JSON.
    """

    id: int
    name: str
    state: StudyState
    reason: str | None
    spec: dict[str, Any]
    owner: str
    priority: int
    dataset_id: str | None
    metric: str
    direction: str
    budget_trials: int
    counts: TrialCounts
    epochs: int
    best: BestTrial | None
    result: dict[str, Any] | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    now: datetime
    """The database's clock at the time of reading."""
    advice: Mapping[str, Any] | None = None
    """What the answer to the submit told of the study: warnings, and how its data are read."""

    @property
    def objectives(self) -> dict[str, Direction]:
        """The directions of all objectives by name, `metric` first."""
        also = self.spec.get("also", ())
        further = also if isinstance(also, Mapping) else {name: direction_of(name) for name in also}
        return {self.metric: "minimize" if self.direction == "minimize" else "maximize", **further}

    @property
    def searches(self) -> int:
        """Number of searches that share its trials; more than one with nested validation."""
        return searches_in(self.spec)

    @property
    def tags(self) -> Sequence[str]:
        """Words by which people find it."""
        found: list[str] = self.spec.get("tags", [])
        return found

    @property
    def notes(self) -> str:
        """What people keep of it, in Markdown."""
        return str(self.spec.get("notes", ""))

    @property
    def external(self) -> bool:
        """Whether a program of the user's runs its trials."""
        return self.spec.get("executor") == "external"


@dataclass(frozen=True)
class Lease:
    """A worker's right to write to a study; ``token`` grows with every lease and fences off earlier holders."""

    token: int
    study_id: int
    worker_id: str
    phase: Literal["search", "finalize"]
    ordinal: int
    """Number of earlier leases on the study; it makes the samplers of its workers differ."""


@dataclass(frozen=True)
class Proposal:
    """Parameters drawn by a sampler, not yet those of a trial."""

    params: Params
    distributions: Mapping[str, BaseDistribution]


@dataclass(frozen=True)
class AskedTrial:
    """A trial to be run under this lease. ``attempt`` is the number of earlier attempts that failed or lost their worker."""

    id: int
    number: int
    params: Params
    distributions: Mapping[str, BaseDistribution]
    attempt: int = 0
    fresh: bool = False
    """Created from a proposal of this ask, not put back by an earlier lease."""


@dataclass(frozen=True)
class Report:
    """The intermediate value of a trial after one evaluation (0-based ``step``)."""

    trial_id: int
    step: int
    value: float


@dataclass(frozen=True)
class TrialResult:
    """How a trial ended: its best ``value``, reached at ``best_step`` (None if it failed), and its ``curve`` per metric.

    ``also`` has the values of the study's further objectives at the same step, by name and in the study's order.
    ``retry`` is for a trial that could not be trained here: it waits for another attempt, or fails if none is left.
    One that is not ``ranked`` can't be the study's best: it was judged on other rows than most (nested validation).
    """

    trial_id: int
    state: Literal["complete", "pruned", "fail", "retry"]
    value: float | None
    best_step: int | None
    stop_reason: str
    epochs: int
    curve: Mapping[str, list[float]] = field(default_factory=dict)
    attrs: Mapping[str, Any] = field(default_factory=dict)
    also: Mapping[str, float] = field(default_factory=dict)
    ranked: bool = True

    @property
    def values(self) -> tuple[float, ...]:
        """Its values of all objectives; empty if it has none."""
        return () if self.value is None or math.isnan(self.value) else (self.value, *self.also.values())


@dataclass(frozen=True)
class FinalRun:
    """A run of a setting with one seed after the search of an external study; ``number`` counts them from 0.

    ``trial`` is the one that found the setting, None for baselines and ablations; ``value`` and ``test`` are what the
    program told: the objective on validation data, and on test data if it has any.
    """

    number: int
    name: str
    role: Literal["finalist", "baseline", "ablation"]
    trial: int | None
    seed_index: int
    params: Params
    state: Literal["waiting", "running", "complete", "fail"] = "waiting"
    attempt: int = 0
    value: float | None = None
    test: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class FinishedTrial:
    """A finished trial of a study; ``seq`` (1-based) is its position in the order in which trials were told."""

    seq: int
    trial_id: int
    number: int
    state: TrialState
    value: float | None
    epochs: int
    params: Params
    distributions: Mapping[str, BaseDistribution]
    curve: Mapping[str, list[float]]
    also: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TrialRecord:
    """A trial for display. ``curve`` is set only where a single trial was requested.

    It is ``stopping`` from when somebody has stopped it until it ends.
    """

    number: int
    state: TrialState
    value: float | None
    best_step: int | None
    stop_reason: str | None
    epochs: int
    attempt: int
    params: Params
    attrs: Mapping[str, Any]
    started_at: datetime | None
    finished_at: datetime | None
    curve: Mapping[str, list[float]] | None = None
    also: Mapping[str, float] = field(default_factory=dict)
    stopping: bool = False


@dataclass(frozen=True)
class WorkerRecord:
    """A worker process. ``stats`` is what it last reported about itself; `silent` if it has not reported for a minute."""

    id: str
    name: str
    host: str
    pid: int
    device: str
    state: Literal["alive", "silent", "left"]
    started_at: datetime
    seen_at: datetime
    stats: Mapping[str, Any]
    memory: int | None = None
    """Bytes that its studies may take, on its device; None for workers of earlier versions."""
    devices: int = 1
    """On which it can train one network."""


TokenScope = Literal["read", "submit", "worker", "admin"]
"""What a token allows: reading what is its owner's; changing it, too; only running trials of it; everything of everybody."""


@dataclass(frozen=True)
class TokenRecord:
    """A token, without its secret."""

    id: int
    name: str
    owner: str
    scope: TokenScope
    created_at: datetime
    expires_at: datetime | None = None
    used_at: datetime | None = None
    revoked_at: datetime | None = None


@dataclass(frozen=True)
class LoginRecord:
    """A sign-in that a device has begun: what it calls itself, from where, and the scope that it asks for, if any."""

    device: str
    address: str
    scope: TokenScope | None
    created_at: datetime


@dataclass(frozen=True)
class EventRecord:
    """What has happened to a study, as the study was then; ``seq`` counts all events, in the order of their commits."""

    seq: int
    at: datetime
    kind: str
    study_id: int
    name: str
    owner: str
    state: str
    reason: str | None
    metric: str
    best_number: int | None
    best_value: float | None
    shared_with: frozenset[str] = frozenset()
    """Who may see the study now, beside its owner; see `sharing`."""

    COPIED: ClassVar[Sequence[str]] = (
        *("kind", "study_id", "name", "owner", "state", "reason", "metric", "best_number", "best_value"),
    )


@dataclass(frozen=True)
class DatasetRecord:
    """A data set that people have given; ``size`` is in bytes, ``columns`` (`Column`) and ``sheet`` (`Sheet`) are JSON.

    ``sheet`` and ``sha256`` are None where an earlier version has stored it.
    """

    id: str
    name: str
    filename: str
    format: str
    size: int
    rows: int
    shape: tuple[int, ...]
    columns: tuple[Mapping[str, Any], ...]
    sheet: Mapping[str, Any] | None = None
    created_at: datetime | None = None
    sha256: str | None = None
    """Of the stored file; ``id`` is its beginning."""
    source: Mapping[str, str] = field(default_factory=dict)
    """Where it is from: `file`, `address`, or `database` and `query`."""
    owners: tuple[str, ...] = ()
    """Who has it, as far as the reader may know."""


@dataclass(frozen=True)
class Version:
    """A data set as one of several of the same name."""

    id: str
    created_at: datetime
