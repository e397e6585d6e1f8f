"""One lease on one study's search: ask, pack, train, judge, tell, until the study has no more work or must stop.

Lanes that end are filled again before the next epoch. Everything that the search learns comes in the order of this loop,
so with one worker and one seed the same trials come out. Test rows are out of reach: `workers.data.locked` is not
imported here.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from service.pruning import Standing, make_judge
from service.search import Search, recipe
from service.spec import SETTINGS, StudySpec
from service.store import Store
from service.store.records import SEARCHED, AskedTrial, Lease, Proposal, Report, TrialResult
from workers.calibration import calibrate
from workers.recorder import Recorder
from workers.stack import compiling
from workers.stack.device import DeviceData
from workers.stack.stack import StackKey
from workers.timing import Timer
from workers.training import Protocol, Run, StackRunner

log = logging.getLogger(__name__)

MIN_IN_FLIGHT = 8
GENERATIONS = 5
"""A study is searched in at least so many generations, however many lanes the device could train at once."""
EXPECTED_SHARE = 0.5
"""Share of the largest possible number of epochs that a study is expected to train, the rest being pruned or converged."""
_ASK_AGAIN_SECONDS = 0.5


@dataclass(frozen=True)
class Environment:
    """What a session needs of its worker."""

    cache: Path
    lease_seconds: float
    stopping: Callable[[], bool]


def seed_of(study_seed: int, *path: int) -> int:
    """A seed of its own for every (trial, fold) of a study."""
    return int(np.random.SeedSequence([study_seed, *path]).generate_state(1)[0]) & 0x7FFFFFFF


class Session:
    """The search phase of one study under one lease."""

    def __init__(self, store: Store, lease: Lease, spec: StudySpec, data: DeviceData, environment: Environment) -> None:
        assert spec.metric is not None, "a stored spec is resolved"
        self._store = store
        self._lease = lease
        self._spec = spec
        self._data = data
        self._environment = environment
        self._search = Search(spec, seed=seed_of(spec.seed, 0, lease.ordinal))
        self._judge = make_judge(spec)
        self._protocol = Protocol(spec.metric, spec.budget.epochs, spec.early_stopping)
        self._runners: dict[StackKey, StackRunner] = {}
        self._trials: dict[int, AskedTrial] = {}
        self._seen = 0
        self._own: set[int] = set()
        self._capacity: int | None = None
        self._fixed_lanes: int | None = None
        self._dry_since: float | None = None
        self.timer = Timer()
        self.recorder = Recorder(store, lease, lease_seconds=environment.lease_seconds)

    @property
    def lanes(self) -> int:
        """Lanes in training."""
        return sum(runner.lanes for runner in self._runners.values())

    @property
    def occupancy(self) -> float:
        """Live lane-epochs per lane-epoch computed."""
        computed = sum(runner.computed_lane_epochs for runner in self._runners.values())
        return sum(runner.lane_epochs for runner in self._runners.values()) / computed if computed else 1.0

    def run(self) -> None:
        """Work until the study needs this worker no more, then give the lease back.

        Raises:
            LeaseLost: The lease was taken away; all trials are dropped.
        """
        try:
            while self._goes_on():
                self._refill()
                if not self._trials and not self._wait_for_work():
                    break
                for runner in list(self._runners.values()):
                    if runner.wanted_lanes:
                        self._advance(runner)
            self.recorder.flush()
        finally:
            self.recorder.close()
        # Trials still on lanes (a pause, a stopping worker) go back to the queue with it.
        self._store.leases.release(self._lease)

    def _goes_on(self) -> bool:
        return self.recorder.check() in SEARCHED and not self._environment.stopping()

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

    def _refill(self) -> None:
        """Fill idle lanes: first with trials that wait to be run again, then with new ones."""
        in_flight = sum(runner.wanted_lanes for runner in self._runners.values())
        wanted = (self._lanes_to_fill() - in_flight) // self._data.folds
        if wanted <= 0 or (self._dry_since is not None and time.monotonic() - self._dry_since < _ASK_AGAIN_SECONDS):
            return
        trials = self._next_trials(wanted)
        self._dry_since = time.monotonic() if len(trials) < wanted else None
        for runner in self._runners.values():
            runner.last_call = self._dry_since is not None
        by_key: dict[StackKey, list[Run]] = {}
        for trial in trials:
            self._trials[trial.id] = trial
            run = self._run_of(trial)
            by_key.setdefault(self._key(run), []).append(run)
        for key, runs in by_key.items():
            if key not in self._runners:
                self._runners[key] = StackRunner(key, self._data, fixed_lanes=self._fixed_lanes)
            self._runners[key].add(runs)

    def _next_trials(self, wanted: int) -> list[AskedTrial]:
        with self.timer.section("database"):
            self._learn_from_others()
        with self.timer.section("sampling"):
            drawn = self._search.propose(wanted)
        with self.timer.section("database"):
            trials = self._store.trials.ask(self._lease, [Proposal(*each) for each in drawn])
        self._search.adopt([trial.number for trial in trials if trial.fresh])
        self._own.update(trial.number for trial in trials)
        return trials

    def _learn_from_others(self) -> None:
        """Take in the trials told since the last look that were not run here."""
        for trial in self._store.history.since(self._lease.study_id, self._seen):
            self._seen = trial.seq
            if trial.number in self._own:
                continue
            self._search.tell(trial.number, trial.state, trial.value, trial.epochs, (trial.params, trial.distributions))
            curve = trial.curve.get(self._protocol.metric, [])
            self._judge.remember(curve, complete=trial.state == "complete", judged_here=False)

    def _lanes_to_fill(self) -> int:
        """Lanes in flight: as the device likes it, but few enough that the search can learn from its own trials."""
        if self._capacity is None:
            params, _ = self._search.propose(1)[0]
            self._search.adopt([])
            typical = recipe(self._spec, params)
            key = StackKey.of(typical, self._data.inputs, self._data.outputs)
            most = max(MIN_IN_FLIGHT, self._spec.budget.trials // GENERATIONS) * self._data.folds
            with self.timer.section("calibration"):
                found = calibrate(key, typical, self._data, most, self._environment.cache)
            self._capacity = max(self._data.folds, min(found.lanes * self._stack_keys(), most))
            self._fixed_lanes = self._compiled_lanes(found.rate, self._capacity)
        return self._capacity

    def _compiled_lanes(self, rate: float, capacity: int) -> int | None:
        """Lanes of a compiled stack, a power of two; None where compiling does not pay for the work of one key."""
        budget, keys = self._spec.budget, self._stack_keys()
        updates = -(-self._data.train_rows // min(self._smallest_batch(), self._data.train_rows))
        work = (budget.trials - self._seen) * self._data.folds * budget.epochs * updates * EXPECTED_SHARE / keys
        if not (compiling.pays(work, rate) and compiling.available(self._data.device.type)):
            return None
        return 1 << max(0, math.ceil(math.log2(max(1, capacity // keys))))

    def _smallest_batch(self) -> int:
        domain = self._spec.domains["batch_size"]
        return int(min(map(float, getattr(domain, "choices", None) or [getattr(domain, "value", 128)])))

    def _stack_keys(self) -> int:
        """How many stacks a study has at once at most: the choices of normalization, optimizer, batch size and shape."""
        keys = 1
        for name, domain in self._spec.domains.items():
            if SETTINGS[name].scope == "stack":
                keys *= len(getattr(domain, "choices", (None,)))
        return min(keys, 8)

    def _run_of(self, trial: AskedTrial) -> Run:
        lanes = tuple((fold, seed_of(self._spec.seed, 1, trial.number, fold)) for fold in range(self._data.folds))
        return Run(trial.id, recipe(self._spec, trial.params), lanes, self._protocol)

    def _key(self, run: Run) -> StackKey:
        return StackKey.of(run.recipe, self._data.inputs, self._data.outputs)

    # --- an epoch --------------------------------------------------------------------------------------------------

    def _advance(self, runner: StackRunner) -> None:
        """Train a stack for one epoch; report, judge and tell its trials."""
        with self.timer.section("training"):
            runs = runner.epoch()
        reports = [Report(run.key, run.epoch - 1, run.value) for run in runs]
        standings = [
            Standing(self._trials[run.key].number, run.epoch, run.value, run.best_value) for run in runs if not run.ending
        ]
        pruned = self._judge.judge(standings)
        ended = [run for run in runs if run.ending or self._trials[run.key].number in pruned]
        results = [self._result(run, runner) for run in ended]
        for run, result in zip(ended, results, strict=True):
            trial = self._trials.pop(run.key)
            drawn = (trial.params, trial.distributions)
            self._search.tell(trial.number, result.state, result.value, result.epochs, drawn)
            metric = run.curve[self._protocol.metric]
            self._judge.remember(metric, complete=result.state == "complete", judged_here=True)
            runner.remove(run)
        self.recorder.put(reports, results)

    def _result(self, run: Run, runner: StackRunner) -> TrialResult:
        attrs = {
            "stack": f"{run.recipe.word('normalization')}, {runner.stack.lanes} lanes",
            "attempt": self._trials[run.key].attempt,
        }
        if run.ending == "not_finite":
            return TrialResult(run.key, "fail", None, None, "loss is not finite", run.epoch, _finite(run.curve), attrs)
        state: Literal["complete", "pruned"] = "complete" if run.ending else "pruned"
        reason = run.ending or "pruned"
        return TrialResult(run.key, state, run.best_value, run.best_epoch, reason, run.epoch, _finite(run.curve), attrs)


def _finite(curve: dict[str, list[float]]) -> dict[str, list[float]]:
    """The curve as JSON can hold it: up to the first epoch that has a value which is not finite."""
    columns = list(curve.values())
    good = 0
    while good < len(columns[0]) and all(math.isfinite(column[good]) for column in columns):
        good += 1
    return {name: column[:good] for name, column in curve.items()}
