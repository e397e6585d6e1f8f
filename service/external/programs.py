"""What the users' programs do with external studies, in this process. Thread-safe.

A program calls itself by a name that nobody else knows. Under this name it holds a lease on a study, which every call
renews; when it stops calling, its trials are given to whoever asks next.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from service.errors import Conflict, LeaseLost
from service.external.answer import conclude, plan_finals
from service.external.conductor import Asked, Conductor, Decision, Told, final_seed
from service.spec.external import ExternalSpec
from service.store import Store, StudyState
from service.store.records import ENDED, FinalRun, Lease, StudyRecord, TrialRecord

FINAL = "final-"
"""How the names of final runs begin; trials of the search are named by their number."""
WAIT_SECONDS = 2.0
_CONDUCTORS = 64
_MOST_TRIALS = 1_000_000


@dataclass(frozen=True)
class Run:
    """What a program is to run, under ``name``: a trial of the search, or a setting with a seed after it."""

    name: str
    purpose: Literal["search", "finalist", "baseline", "ablation"]
    number: int | None
    setting: str | None
    seed: int
    attempt: int
    params: Mapping[str, Any]


@dataclass(frozen=True)
class Answer:
    """Runs for a program. Without any: the study is over, or may have some in ``retry_after`` seconds."""

    state: StudyState
    runs: Sequence[Run]
    over: bool
    retry_after: float | None


@dataclass(frozen=True)
class FinalTold:
    """How a final run ended: its ``value``, or None and why it failed; ``test`` is the score on test data."""

    number: int
    value: float | None
    test: float | None = None
    reason: str | None = None


class Programs:
    """External studies of one store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._conductors: OrderedDict[tuple[int, str], Conductor] = OrderedDict()

    def ask(self, study_id: int, client: str, n: int, key: str, seconds: float) -> Answer:
        """At most ``n`` runs; the same ``key`` gives the same ones again.

        Raises:
            NotFound, Conflict: There is no such study, or workers run it.
        """
        conductor = self._conductor(study_id)
        self._store.leases.reap(seconds)
        lease = self._store.leases.hold(study_id, client, seconds)
        if lease is None:
            return self._nothing(study_id)
        if lease.phase == "search":
            try:
                runs = [_run(asked) for asked in conductor.ask(lease, n, key)]
            except LeaseLost:  # the study ended in this moment
                return self._nothing(study_id)
            if runs or self._store.studies.get(study_id).state is not StudyState.FINALIZING:
                return Answer(StudyState.RUNNING, runs, False, None) if runs else self._nothing(study_id)
            again = self._store.leases.hold(study_id, client, seconds)
            if again is None:
                return self._nothing(study_id)
            lease = again
        final = self._finals(lease, conductor.spec, n, key)
        runs = [_final(conductor.spec, run) for run in final]
        return Answer(StudyState.FINALIZING, runs, False, None) if runs else self._nothing(study_id)

    def report(
        self, study_id: int, client: str, given: Mapping[str, Mapping[int, float]], seconds: float
    ) -> dict[str, Decision]:
        """Report intermediate values, by run and 0-based step; final runs go on in any case.

        Raises:
            NotFound, Conflict: As `ask`.
        """
        conductor = self._conductor(study_id)
        trials = {int(name): steps for name, steps in given.items() if not name.startswith(FINAL)}
        try:
            lease = self._store.leases.held(study_id, client)
            state = self._store.leases.renew(lease, seconds)
            decided = conductor.report(lease, trials) if trials else {}
        except LeaseLost as lost:
            word = self._store.studies.get(study_id).state
            reason = f"the study is {word}" if word in ENDED else str(lost)
            return dict.fromkeys(given, Decision("lost", reason))
        going = Decision("continue") if state is StudyState.FINALIZING else Decision("stop", f"the study is {state}")
        return {name: going if name.startswith(FINAL) else decided[int(name)] for name in given}

    def tell(
        self, study_id: int, client: str, told: Sequence[Told], final: Sequence[FinalTold], seconds: float
    ) -> dict[str, str]:
        """Tell how runs ended; returns why some were not accepted, by name. Telling again changes nothing.

        Raises:
            NotFound, Conflict: As `ask`.
            InvalidInput: A trial lacks a value; nothing was told.
        """
        conductor = self._conductor(study_id)
        refused: dict[str, str] = {}
        try:
            lease = self._store.leases.held(study_id, client)
            self._store.leases.renew(lease, seconds)
            refused |= {str(number): why for number, why in conductor.tell(lease, told).items()} if told else {}
        except LeaseLost:
            lease = None
            refused |= {str(n): why for n, why in conductor.not_held([each.number for each in told], client).items()}
        refused |= self._tell_finals(study_id, lease, client, final)
        if self._store.studies.get(study_id).state is StudyState.FINALIZING:
            self._advance(study_id, client, conductor.spec, seconds)
        return refused

    def heartbeat(self, study_id: int, client: str, seconds: float) -> StudyState:
        """Renew a program's lease; returns the study's state.

        Raises:
            NotFound, Conflict: As `ask`.
            LeaseLost: It holds none.
        """
        self._study(study_id)
        return self._store.leases.renew(self._store.leases.held(study_id, client), seconds)

    def release(self, study_id: int, client: str) -> None:
        """Give back what a program holds, which is then asked again; nothing if it holds nothing.

        Raises:
            NotFound, Conflict: As `ask`.
        """
        self._study(study_id)
        try:
            self._store.leases.release(self._store.leases.held(study_id, client))
        except LeaseLost:
            return

    def _study(self, study_id: int) -> StudyRecord:
        study = self._store.studies.get(study_id)
        if not study.external:
            raise Conflict(f"study {study_id} is run by the workers of this service, not by a program (executor: external)")
        return study

    def _conductor(self, study_id: int) -> Conductor:
        """The one of a study as it is now: its budget may be changed, and nothing else that a search depends on."""
        study = self._study(study_id)
        place = (study.id, json.dumps([study.budget_trials, study.spec["budget"]]))
        with self._lock:
            if place not in self._conductors:
                self._conductors[place] = Conductor(self._store, study.id, ExternalSpec.model_validate(study.spec))
                while len(self._conductors) > _CONDUCTORS:
                    self._conductors.popitem(last=False)
            self._conductors.move_to_end(place)
            return self._conductors[place]

    def _nothing(self, study_id: int) -> Answer:
        state = self._store.studies.get(study_id).state
        over = state in ENDED
        return Answer(state, [], over, None if over else WAIT_SECONDS)

    def _tell_finals(self, study_id: int, lease: Lease | None, client: str, final: Sequence[FinalTold]) -> dict[str, str]:
        refused = {}
        for each in final:
            try:
                held = lease or Lease(-1, study_id, client, "finalize", 0)
                self._store.finals.tell(held, each.number, value=each.value, test=each.test, reason=each.reason)
            except LeaseLost as lost:
                refused[f"{FINAL}{each.number}"] = str(lost)
        return refused

    def _advance(self, study_id: int, client: str, spec: ExternalSpec, seconds: float) -> None:
        """Plan or conclude what can be, so that the study ends although its program asks no more."""
        lease = self._store.leases.hold(study_id, client, seconds)
        if lease is not None:
            self._finals(lease, spec, 0, "")

    def _finals(self, lease: Lease, spec: ExternalSpec, n: int, key: str) -> list[FinalRun]:
        """Final runs under a lease; once all have ended the study is finished."""

        def plan(known: Sequence[FinalRun]) -> list[FinalRun]:
            return plan_finals(spec, self._complete(lease.study_id), known)

        try:
            runs, done = self._store.finals.ask(lease, n, plan, key)
            if done:
                self._finish(lease, spec)
        except LeaseLost:  # another program has finished the study
            return []
        return runs

    def _complete(self, study_id: int) -> Sequence[TrialRecord]:
        return self._store.history.page(study_id, state="complete", limit=_MOST_TRIALS)[0]

    def _finish(self, lease: Lease, spec: ExternalSpec) -> None:
        runs = self._store.finals.all(lease.study_id)
        result = conclude(spec, self._complete(lease.study_id), runs)
        if result is None:
            reasons = [run.reason for run in runs if run.reason]
            told = f": {reasons[0]}" if reasons else ""
            self._store.studies.fail(lease, f"no run of a finalist was completed{told}")
            return
        if result.winner.test is not None:
            purpose = "test scores of the winner and of the unregularized setting, as the program told them"
            self._store.studies.open_test(lease.study_id, "service", purpose)
        self._store.studies.finish(lease, result.to_json(), note=f"**{result.verdict}**\n\n")


def _run(asked: Asked) -> Run:
    return Run(str(asked.number), "search", asked.number, None, asked.seed, asked.attempt, asked.params)


def _final(spec: ExternalSpec, run: FinalRun) -> Run:
    seed = final_seed(spec, run.seed_index)
    return Run(f"{FINAL}{run.number}", run.role, run.trial, run.name, seed, run.attempt, run.params)
