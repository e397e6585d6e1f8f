"""One lease on one study's search: ask, pack, train, judge, tell, until the study has no more work or must stop.

Lanes that end are filled again before the next epoch. Everything that the search learns comes in the order of this loop,
so with one worker and one seed the same trials come out. Test rows are out of reach: `workers.data.locked` is not
imported here.
"""

from __future__ import annotations

import logging
import math
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from service.pruning import Standing, make_judge
from service.search import recipe
from service.spec import StudySpec
from service.store import Store
from service.store.records import SEARCHED, AskedTrial, Lease, Report, TrialResult
from workers.planning.plan import Plan, make_plan
from workers.searching.checkpoints import Checkpoints
from workers.searching.conclusion import Conclusion
from workers.searching.objectives import Objectives
from workers.searching.recorder import Recorder
from workers.searching.supply import Supply
from workers.searching.turns import Occupancy, Turns
from workers.seeds import sampler_seed, trial_seeds
from workers.stack.device_data import DeviceData
from workers.stack.lanes import techniques_in
from workers.stack.run import Protocol, Run
from workers.stack.runner import StackRunner
from workers.stack.stack import StackKey
from workers.timing import Timer

log = logging.getLogger(__name__)

AHEAD = 4
"""One AHEAD-th of the lanes in flight is asked for in advance, so that a lane which ends is filled at once."""
OUT_OF_MEMORY = "out of memory, alone on the device"
_ASK_AGAIN_SECONDS = 0.5


@dataclass(frozen=True)
class Environment:
    """What a session needs of its worker."""

    cache: Path
    lease_seconds: float
    stopping: Callable[[], bool]
    checkpoints: Checkpoints
    turn_seconds: float = 30.0
    """After so long, a study without a worker has the next turn."""
    plan: Plan | None = None
    """That of the study which this one repeats."""


class Session:
    """The search phase of one study under one lease."""

    def __init__(self, store: Store, lease: Lease, spec: StudySpec, data: DeviceData, environment: Environment) -> None:
        assert spec.metric is not None, "a stored spec is resolved"
        self._store = store
        self._lease = lease
        self._spec = spec
        self._data = data
        self._environment = environment
        self._judge = make_judge(spec)
        self._supply = Supply(store, lease, spec, self._judge, seed=sampler_seed(spec.seed, lease.ordinal))
        self._protocol = Protocol(spec.metric, spec.budget.epochs, spec.early_stopping)
        self._objectives = Objectives(spec, self._protocol, data)
        self._runners: dict[StackKey, StackRunner] = {}
        # A trial whose time is limited is not to spend it waiting.
        self._turns = Turns() if spec.budget.trial_seconds is None else Turns(patience=0)
        self._occupancy = Occupancy()
        self._trials: dict[int, AskedTrial] = {}
        self._ready: deque[AskedTrial] = deque()
        self._started: dict[int, float] = {}
        self._dry_at = 0.0
        self._asked_for_others = 0.0
        self._turn: float | None = None
        self.timer = Timer()
        with self.timer.section("calibration"):
            example = self._supply.example()
            self.plan = environment.plan or make_plan(spec, example, data, environment.cache)
            self.plan.take_threads()
        rule = spec.budget.conclude
        self._conclusion = None if rule is None else Conclusion(rule, self._protocol, data)
        self.recorder = Recorder(store, lease, lease_seconds=environment.lease_seconds)

    @property
    def lanes(self) -> int:
        """Lanes in training."""
        return sum(runner.lanes for runner in self._runners.values())

    @property
    def lane_epochs(self) -> int:
        """Epochs trained so far, of all lanes together."""
        return sum(runner.lane_epochs for runner in self._runners.values())

    @property
    def occupancy(self) -> float:
        """Live lane-epochs per lane-epoch computed."""
        computed = self._computed_lane_epochs
        return self.lane_epochs / computed if computed else 1.0

    @property
    def steady_occupancy(self) -> float:
        """The same, without the filling of the lanes and the tail of the study."""
        return self._occupancy.steady

    @property
    def _computed_lane_epochs(self) -> int:
        return sum(runner.computed_lane_epochs for runner in self._runners.values())

    def shares(self) -> dict[str, float]:
        """Where the time has gone: shares of the training thread's, and what the threads beside it took of a core.

        Updates and evaluation are parts of the training.
        """
        parts: dict[str, float] = defaultdict(float)
        for runner in self._runners.values():
            for name, seconds in runner.timer.seconds.items():
                parts[f"{name} (in training)"] += seconds / max(self.timer.elapsed, 1e-9)
        for timer in (self._supply.timer, self.recorder.timer):
            for name, share in timer.processor_shares(self.timer.elapsed).items():
                parts[f"{name} (beside)"] += share
        return {**self.timer.shares(), **{name: round(share, 4) for name, share in parts.items()}}

    def run(self) -> None:
        """Work until the study needs this worker no more, then give the lease back.

        Raises:
            LeaseLost: The lease was taken away; all trials are dropped.
        """
        try:
            self._ask_ahead()
            while self._goes_on():
                with self.timer.section("waiting for trials"):
                    self._ready.extend(self._supply.collect())
                self._conclude()
                self._fill_lanes()
                self._ask_ahead()
                if not self._trials and not self._wait_for_work():
                    break
                for runner in self._turns.due(self._runners.values()):
                    self._advance(runner)
            self._supply.close()
            self.recorder.flush()
            self._save_lanes()
        finally:
            self._supply.close()
            self.recorder.close()
        # Trials still on lanes (a pause, a stopping worker, another study's turn) go back to the queue with it.
        self._store.leases.release(self._lease)

    def _goes_on(self) -> bool:
        if self.recorder.check() not in SEARCHED or self._environment.stopping():
            return False
        # A turn begins with the first epoch, so that every turn gets something done.
        turn_is_over = self._turn is not None and time.monotonic() - self._turn > self._environment.turn_seconds
        return not (turn_is_over and self._others_wait())

    def _others_wait(self) -> bool:
        """Whether another study has no worker while this one has had its turn; asked about once a second."""
        now = time.monotonic()
        if now - self._asked_for_others < 1.0:
            return False
        self._asked_for_others = now
        return self._store.leases.others_wait(self._lease)

    def _wait_for_work(self) -> bool:
        """With idle lanes only: whether more trials may come, from a lost worker or under a cap on parallel trials."""
        self.recorder.flush()
        study = self._store.studies.get(self._lease.study_id)
        if study.state not in SEARCHED:
            return False
        open_asks = study.budget_trials - study.counts.finished - study.counts.running - study.counts.waiting
        if not study.counts.waiting and open_asks <= 0:
            return False
        with self.timer.section("idle"):
            time.sleep(0.05)
        return not self._deadline_passed(study.started_at.timestamp() if study.started_at else None, study.now.timestamp())

    def _deadline_passed(self, started: float | None, now: float) -> bool:
        seconds = self._spec.budget.seconds
        return seconds is not None and started is not None and now > started + seconds

    # --- filling lanes ---------------------------------------------------------------------------------------------

    def _ask_ahead(self) -> None:
        """Have trials ready for the lanes that are free by the next epoch, and some more."""
        if self._supply.dry and time.monotonic() - self._dry_at < _ASK_AGAIN_SECONDS:
            return
        self._dry_at = time.monotonic()
        most = self.plan.capacity + max(1, self.plan.capacity // AHEAD)
        self._supply.start((most - self._lanes_in_flight()) // self._data.folds - len(self._ready))

    def _conclude(self) -> None:
        """Ask for no further trial where those left are not expected to improve the best."""
        if self._conclusion is None or self._supply.dry:
            return
        values = self._supply.values
        left = self._spec.budget.trials - len(values) - len(self._trials) - len(self._ready)
        reason = self._conclusion.reason(values, left)
        if reason is not None:
            log.info("study %d: %s", self._lease.study_id, reason)
            self._store.conclusions.conclude(self._lease, reason)

    def _lanes_in_flight(self) -> int:
        return sum(runner.wanted_lanes for runner in self._runners.values())

    def _fill_lanes(self) -> None:
        """Put trials that are ready on free lanes."""
        by_key: dict[StackKey, list[Run]] = {}
        free = (self.plan.capacity - self._lanes_in_flight()) // self._data.folds
        while self._ready and free > 0:
            trial = self._ready.popleft()
            free -= 1
            self._trials[trial.id] = trial
            run = self._run_of(trial)
            by_key.setdefault(self._key(run), []).append(run)
        for key, runs in by_key.items():
            if key not in self._runners:
                compiled = self.plan.compiled(self._environment.cache)
                techniques = techniques_in(self._spec.domains) if compiled else frozenset[str]()
                self._runners[key] = StackRunner(key, self._data, compiled=compiled, techniques=techniques)
            self._runners[key].add(runs)
        supplied = not self._supply.dry or bool(self._ready)
        for runner in self._runners.values():
            runner.last_call = not supplied
        full = self._lanes_in_flight() > self.plan.capacity - self._data.folds
        self._occupancy.note(self.lane_epochs, self._computed_lane_epochs, full=full, supplied=supplied)

    def _run_of(self, trial: AskedTrial) -> Run:
        lanes = trial_seeds(self._spec.seed, trial.number, self._data.folds)
        run = Run(trial.id, recipe(self._spec, trial.params), lanes, self._protocol)
        saved = None if trial.fresh else self._environment.checkpoints.load(trial.id)
        if saved is not None:
            run.resume(saved)
            metric = run.curve[self._protocol.metric]
            self.recorder.put([Report(trial.id, step, value) for step, value in enumerate(metric)], [])
        return run

    def _save_lanes(self) -> None:
        """Keep what trials on lanes have reached, for whoever runs them next."""
        for runner in self._runners.values():
            for run in runner.runs:
                if run.epoch:
                    self._environment.checkpoints.save(run.key, runner.checkpoint(run))

    def _key(self, run: Run) -> StackKey:
        return StackKey.of(run.recipe, self._data.inputs, self._data.outputs, self._data.categories)

    # --- an epoch --------------------------------------------------------------------------------------------------

    def _advance(self, runner: StackRunner) -> None:
        """Train a stack for one epoch; report, judge and tell its trials."""
        with self.timer.section("training"):
            runs = runner.epoch()
        self._turn = self._turn or time.monotonic()
        reports = [Report(run.key, run.epoch - 1, run.value) for run in runs if run.ending != "out_of_memory"]
        standings = [
            Standing(self._trials[run.key].number, run.epoch, run.value, run.best_value, run.curve[self._protocol.metric])
            for run in runs
            if not run.ending
        ]
        pruned = self._judge.judge(standings) | self._overdue(runs)
        ended = [run for run in runs if run.ending or self._trials[run.key].number in pruned]
        results = [self._result(run, runner) for run in ended]
        for run, result in zip(ended, results, strict=True):
            trial = self._trials.pop(run.key)
            self._started.pop(run.key, None)
            self._environment.checkpoints.forget(trial.id)
            if result.state != "retry":  # else whoever tries it next tells how it ended
                self._learn(trial, run, result, runner)
            runner.remove(run)
        self.recorder.put(reports, results)

    def _learn(self, trial: AskedTrial, run: Run, result: TrialResult, runner: StackRunner) -> None:
        """Let sampler and pruner know how a trial ended."""
        self._supply.tell(trial, result)
        if self._conclusion is not None:
            self._conclusion.learn(run, runner)
        metric = run.curve[self._protocol.metric]
        self._judge.remember(trial.number, metric, complete=result.state == "complete", judged_here=True)

    def _overdue(self, runs: Sequence[Run]) -> set[int]:
        """Trials that have been on their lanes longer than the study allows."""
        limit = self._spec.budget.trial_seconds
        if limit is None:
            return set()
        now = time.monotonic()
        return {self._trials[run.key].number for run in runs if now - self._started.setdefault(run.key, now) > limit}

    def _result(self, run: Run, runner: StackRunner) -> TrialResult:
        attrs = {
            "stack": f"{run.recipe.word('normalization')}, {runner.stack_lanes} lanes",
            "attempt": self._trials[run.key].attempt,
        }
        if run.ending == "out_of_memory":
            return TrialResult(run.key, "retry", None, None, OUT_OF_MEMORY, run.epoch)
        also = {} if run.ending == "not_finite" else self._objectives.further(run, runner)
        unknown = ["loss"] if run.ending == "not_finite" else [name for name in also if not math.isfinite(also[name])]
        if unknown:
            reason = f"{unknown[0]} is not finite"
            return TrialResult(run.key, "fail", None, None, reason, run.epoch, _finite(run.curve), attrs)
        state: Literal["complete", "pruned"] = "complete" if run.ending else "pruned"
        reason = run.ending or "pruned"
        reached = (run.best_value, run.best_epoch, reason, run.epoch)
        return TrialResult(run.key, state, *reached, _finite(run.curve), attrs, also)


def _finite(curve: dict[str, list[float]]) -> dict[str, list[float]]:
    """The curve as JSON can hold it: up to the first epoch that has a value which is not finite."""
    columns = list(curve.values())
    good = 0
    while columns and good < len(columns[0]) and all(math.isfinite(column[good]) for column in columns):
        good += 1
    return {name: column[:good] for name, column in curve.items()}
