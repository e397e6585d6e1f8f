"""Conducts one external study: proposes trials, judges their reports, tells their ends. Thread-safe.

What it keeps in memory, the sampler and the pruner, is made again from the stored trials by any process that needs it. As
with several workers, a process learns of trials that another has asked once they have ended.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from service.errors import InvalidInput
from service.pruning import Standing, make_judge
from service.search import Search, values
from service.spec.external import ExternalSpec
from service.store import STOPPED, Store, StudyState
from service.store.records import AskedTrial, FinishedTrial, Lease, Proposal, Report, TrialResult

_SEEDS = 1_000_003


@dataclass(frozen=True)
class Asked:
    """A trial for a program: its ``params`` are the values of all settings of the space that apply to it."""

    number: int
    attempt: int
    seed: int
    params: Mapping[str, Any]


@dataclass(frozen=True)
class Decision:
    """What a running trial is to do: go on, end as pruned or with its best value, or be dropped as it was taken away."""

    decision: Literal["continue", "prune", "stop", "lost"]
    reason: str | None = None


@dataclass(frozen=True)
class Told:
    """How a trial ended, as its program tells it; without a ``value`` it has the best one that it reported."""

    number: int
    state: Literal["complete", "pruned", "fail"] = "complete"
    value: float | None = None
    also: Mapping[str, float] = field(default_factory=dict)
    reason: str | None = None
    attrs: Mapping[str, Any] = field(default_factory=dict)


class Conductor:
    """One study's search in one process.

    Args:
        store: Where it is.
        study_id: Of an external study.
        spec: Its spec.
    """

    def __init__(self, store: Store, study_id: int, spec: ExternalSpec) -> None:
        self.spec = spec
        self._store = store
        self._study_id = study_id
        self._lock = threading.Lock()
        self._judge = make_judge(spec)
        self._judged: set[int] = set()
        self._search: Search | None = None
        self._seen = 0

    def ask(self, lease: Lease, n: int, key: str) -> list[Asked]:
        """At most ``n`` trials, which now run under the lease; the same ``key`` gives the same ones again.

        Raises:
            LeaseLost, DatabaseUnavailable: See `Trials.ask`.
        """
        with self._lock:
            search = self._begun(lease)
            self._learn()
            proposals = [Proposal(*drawn) for drawn in search.propose(n)]
            trials = self._store.trials.ask(lease, proposals, self._planned, hashlib.sha256(key.encode()).hexdigest()[:31])
            search.adopt([trial.number for trial in trials if trial.fresh])
        return [self._asked(trial) for trial in trials]

    def report(self, lease: Lease, given: Mapping[int, Mapping[int, float]]) -> dict[int, Decision]:
        """Write intermediate values, by trial and 0-based step, and decide how each trial goes on.

        Raises:
            LeaseLost: The lease is gone.
        """
        running = self._store.history.running_under(lease)
        ids = {number: running[number] for number in given if number in running}
        lost = {number: Decision("lost", self._not_held(number)) for number in given if number not in ids}
        reports = [Report(ids[number], step, value) for number in ids for step, value in given[number].items()]
        state = self._store.trials.record(lease, reports, [])
        if state is not StudyState.RUNNING:
            return lost | dict.fromkeys(ids, Decision("stop", f"the study is {state}"))
        curves = self._store.history.reported([*ids.values()])
        late, stopping = self._late(), self._store.stops.asked(lease)
        stopped = {number for number in ids if ids[number] in stopping}
        with self._lock:
            self._learn()
            cohort = [self._standing(number, curves[ids[number]]) for number in ids if curves[ids[number]]]
            self._judged |= {each.number for each in cohort}
            pruned = self._judge.judge(cohort)
        return lost | {
            number: Decision("stop", STOPPED)
            if number in stopped
            else self._decision(curves[ids[number]], late, pruned=number in pruned)
            for number in ids
        }

    def tell(self, lease: Lease, told: Sequence[Told]) -> dict[int, str]:
        """Tell the ends of trials; returns why some were not accepted, by number.

        Raises:
            InvalidInput: A complete trial has no value, or lacks one of another objective; nothing was told.
            LeaseLost: The lease is gone.
        """
        running = self._store.history.running_under(lease)
        mine = [each for each in told if each.number in running]
        curves = self._store.history.reported([running[each.number] for each in mine])
        results = [self._result(each, running[each.number], curves[running[each.number]], lease) for each in mine]
        if results:
            self._store.trials.record(lease, [], results)
        return self.not_held([each.number for each in told if each.number not in running], lease.worker_id)

    def not_held(self, numbers: Sequence[int], client: str) -> dict[int, str]:
        """Why trials can't be told by a program, but for those that it has told already."""
        found = {}
        for number in numbers:
            trial = self._store.history.trial(self._study_id, number)
            if trial.attrs.get("client") != client:
                found[number] = self._not_held(number)
        return found

    def _not_held(self, number: int) -> str:
        return (
            f"trial {number} of study {self._study_id} does not run under this program's lease: it has ended, or was given "
            "to another program after the lease had expired"
        )

    def _begun(self, lease: Lease) -> Search:
        """The search, which draws other numbers than those of processes that began it before."""
        if self._search is None:
            counts = self._store.studies.get(self._study_id).counts
            asked = counts.finished + counts.running + counts.waiting
            self._search = Search(self.spec, seed=(self.spec.seed + asked * (_SEEDS + lease.ordinal)) % 2**31)
            for trial in self._store.history.since(self._study_id, 0):
                if trial.seq <= self._seen:
                    self._tell_search(self._search, trial)
        return self._search

    def _planned(self, number: int) -> Proposal | None:
        assert self._search is not None, "called by `ask` only"
        drawn = self._search.planned(number)
        return None if drawn is None else Proposal(*drawn)

    def _learn(self) -> None:
        """Take in the trials that have ended since the last call."""
        for trial in self._store.history.since(self._study_id, self._seen):
            self._seen = trial.seq
            curve = trial.curve.get(self.spec.metric, [])
            judged = trial.number in self._judged
            self._judge.remember(trial.number, curve, complete=trial.state == "complete", judged_here=judged)
            if self._search is not None:
                self._tell_search(self._search, trial)

    @staticmethod
    def _tell_search(search: Search, trial: FinishedTrial) -> None:
        drawn = (trial.params, trial.distributions)
        search.tell(trial.number, trial.state, trial.value, trial.epochs, drawn, [*trial.also.values()])

    def _asked(self, trial: AskedTrial) -> Asked:
        return Asked(trial.number, trial.attempt, seed_of(self.spec, trial.number), values(self.spec, trial.params))

    def _standing(self, number: int, curve: Sequence[float]) -> Standing:
        best = self._best(curve)
        return Standing(number, len(curve), curve[-1], curve[best] if best is not None else math.nan, curve)

    def _best(self, curve: Sequence[float]) -> int | None:
        """The step of the best value."""
        known = [step for step, value in enumerate(curve) if not math.isnan(value)]
        return min(known, key=lambda step: self.spec.sign * curve[step], default=None)

    def _late(self) -> bool:
        """Whether the time for the search is over."""
        seconds = self.spec.budget.search_seconds
        if seconds is None:
            return False
        study = self._store.studies.get(self._study_id)
        return study.started_at is not None and (study.now - study.started_at).total_seconds() > seconds

    def _decision(self, curve: Sequence[float], late: bool, *, pruned: bool) -> Decision:
        if pruned:
            return Decision("prune", f"pruned by {self.spec.pruner.name} at step {len(curve) - 1}")
        if late:
            return Decision("stop", "the time for the search is over")
        if len(curve) >= self.spec.budget.epochs:
            return Decision("stop", f"budget.epochs: {self.spec.budget.epochs} steps are done")
        if (stopping := self.spec.early_stopping) is not None and self._stale(
            curve, stopping.min_delta
        ) >= stopping.patience:
            return Decision("stop", f"converged: no improvement for {stopping.patience} steps")
        return Decision("continue")

    def _stale(self, curve: Sequence[float], min_delta: float) -> int:
        """Steps since the last improvement."""
        best, since = math.inf, 0
        for value in curve:
            improved = self.spec.sign * value < best - min_delta
            best, since = (self.spec.sign * value, 0) if improved else (best, since + 1)
        return since

    def _result(self, told: Told, trial_id: int, curve: list[float], lease: Lease) -> TrialResult:
        step = self._best(curve)
        value = told.value if told.value is not None else (None if step is None else curve[step])
        if told.state == "fail":
            value, step = None, None
        if told.state == "complete":
            self._check(told, value)
        also = {name: told.also[name] for name in self.spec.also} if told.state == "complete" else {}
        default = {"complete": "told", "pruned": "pruned", "fail": "the program told no reason"}[told.state]
        return TrialResult(
            trial_id,
            told.state,
            value,
            step if step is not None else (0 if value is not None else None),
            told.reason or default,
            len(curve),
            {self.spec.metric: curve} if curve else {},
            {**told.attrs, "client": lease.worker_id},
            also,
        )

    def _check(self, told: Told, value: float | None) -> None:
        if value is None or math.isnan(value):
            message = f"trial {told.number} is complete without a value, and has reported none"
            raise InvalidInput.one("value", message, value=value, allowed=f"its {self.spec.metric}")
        lacking = [name for name in self.spec.also if name not in told.also]
        unknown = [name for name in told.also if name not in self.spec.also]
        if lacking or unknown:
            message = f"trial {told.number} lacks {lacking[0]}" if lacking else f"{unknown[0]} is no objective of the study"
            raise InvalidInput.one("also", message, value=dict(told.also), allowed=list(self.spec.also))


def seed_of(spec: ExternalSpec, number: int) -> int:
    """The seed of a trial, for the program's own random numbers."""
    return (spec.seed + (number + 1) * 7919) % 2**31


def final_seed(spec: ExternalSpec, index: int) -> int:
    """The seed of final runs: the same for all settings, so that their differences are paired."""
    return (spec.seed + 104_729 + index * 15_485_863) % 2**31
