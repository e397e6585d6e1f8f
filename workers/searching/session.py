"""One lease on one study's search: ask, pack, train, judge, tell, until the study has no more work or must stop.

Free lanes are filled again before the next epoch. Everything that the search learns arrives in the order of this loop, so
one worker with one seed always produces the same trials. Test rows are out of reach: `workers.data.locked` is not imported
here.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from service.errors import TrialError
from service.pruning import Standing, make_judge
from service.search import recipe
from service.spec import StudySpec
from service.store import Store
from service.store.records import AskedTrial, Lease, Report, TrialResult
from service.tracing import span
from workers.liveness import Renewal
from workers.planning.plan import Plan, make_plan
from workers.searching.checkpoints import Checkpoints
from workers.searching.conclusion import Conclusion
from workers.searching.divided import Divided
from workers.searching.endings import not_begun, result_of
from workers.searching.objectives import Objectives
from workers.searching.recorder import Recorder
from workers.searching.stacks import Stacks, fault_of
from workers.searching.supply import Supply
from workers.searching.tenure import Tenure
from workers.seeds import sampler_seed
from workers.stack.run import Protocol, Run
from workers.stack.runner import StackRunner
from workers.stack.workshop import Workshop
from workers.timing import Timer

log = logging.getLogger(__name__)

AHEAD = 4
"""Trials for 1 / AHEAD of the lanes in flight are asked in advance, so that a free lane is filled at once."""
_ASK_AGAIN_SECONDS = 0.5
_EXAMPLES = 8
"""Settings of a module that are tried for a plan."""


@dataclass(frozen=True)
class Environment:
    """What a session needs from its worker."""

    workshop: Workshop
    renewal: Renewal
    stopping: Callable[[], bool]
    checkpoints: Checkpoints
    turn_seconds: float = 30.0
    """Seconds after which a study without a worker gets the next turn."""
    plan: Plan | None = None
    """The plan of the study that this one replays."""


class Session:
    """The search phase of one study under one lease."""

    def __init__(self, store: Store, lease: Lease, spec: StudySpec, rows: Divided, environment: Environment) -> None:
        assert spec.metric is not None, "a stored spec is resolved"
        self._store = store
        self._lease = lease
        self._spec = spec
        self._rows = rows
        self._data = rows.data[0]
        self._checkpoints = environment.checkpoints
        self._judge = make_judge(spec)
        places = (lease.ordinal * spec.searches + search for search in range(spec.searches))
        self._supply = Supply(store, lease, spec, self._judge, [sampler_seed(spec.seed, place) for place in places])
        self._protocol = Protocol(spec.metric, spec.budget.epochs, spec.early_stopping)
        self._objectives = Objectives(spec, self._protocol, self._data)
        self._trials: dict[int, AskedTrial] = {}
        self._ready: deque[AskedTrial] = deque()
        self._started: dict[int, float] = {}
        self._dry_at = 0.0
        self.timer = Timer()
        with self.timer.section("planning"), span("plan"):
            self.plan = self._planned(environment.plan)
            self.plan.take_threads()
        self._stacks = Stacks(spec, self._rows.data, self.plan, environment.workshop)
        rule = spec.budget.conclude
        self._conclusion = None if rule is None else Conclusion(rule, self._protocol, self._data)
        self._tenure = Tenure(
            store,
            lease,
            stopping=environment.stopping,
            turn_seconds=environment.turn_seconds,
        )
        self.recorder = Recorder(store, lease, environment.renewal)

    def _planned(self, known: Plan | None) -> Plan:
        """The plan for a typical trial, or the ``known`` one of a repetition, which draws as many examples as it did.

        A module may refuse some of its arguments, such as heads that do not fit a width.

        Raises:
            TrialError: It refuses all that are tried.
        """
        faults = []
        for _ in range(_EXAMPLES):
            example = self._supply.example()
            fault = fault_of(recipe(self._spec, example), self._data)
            if fault is None:
                return known or make_plan(self._spec, example, self._data)
            faults.append(fault)
        raise TrialError(faults[0])

    @property
    def device(self) -> torch.device:
        """Where it trains."""
        return self._data.device

    @property
    def lanes(self) -> int:
        """Lanes in training."""
        return self._stacks.lanes

    @property
    def lane_epochs(self) -> int:
        """Epochs trained so far by all lanes together."""
        return self._stacks.lane_epochs

    @property
    def occupancy(self) -> float:
        """Live lane-epochs per lane-epoch computed."""
        return self._stacks.occupancy

    @property
    def steady_occupancy(self) -> float:
        """The same, without the initial filling of lanes and the tail of the study."""
        return self._stacks.steady_occupancy

    @property
    def plan_kept(self) -> Plan:
        """The plan, with all that a repetition of the search needs to know."""
        return replace(self.plan, taken_over=self._stacks.taken_over)

    def shares(self) -> dict[str, float]:
        """Shares of the training thread's time by kind of work, and of a core's time for the threads beside it.

        Updates and evaluation are parts of training.
        """
        elapsed = max(self.timer.elapsed, 1e-9)
        parts = {f"{name} (in training)": seconds / elapsed for name, seconds in self._stacks.seconds.items()}
        for timer in (self._supply.timer, self.recorder.timer):
            for name, share in timer.processor_shares(elapsed).items():
                parts[f"{name} (beside)"] = parts.get(f"{name} (beside)", 0.0) + share
        return {**self.timer.shares(), **{name: round(share, 4) for name, share in parts.items()}}

    def run(self) -> None:
        """Work until the study no longer needs this worker, then release the lease.

        Raises:
            LeaseLost: The lease was taken away; all trials are dropped.
            DatabaseUnavailable: The database did not come back.
        """
        try:
            self._ask_ahead()
            while self._tenure.goes_on(self.recorder.check()):
                with self.timer.section("waiting for trials"):
                    self._ready.extend(self._supply.collect())
                self._conclude()
                self._fill_lanes()
                self._ask_ahead()
                if not self._trials and not self._wait_for_work():
                    break
                self._advance()
            while self._stacks.training:
                self._finish_epoch()
            self._supply.close()
            self.recorder.flush()
            self._save_lanes()
        finally:
            self._supply.close()
            self.recorder.close()
            self._stacks.close()
        # Trials still on lanes (a pause, a stopping worker, another study's turn) are requeued with it.
        self._store.leases.release(self._lease)

    def _wait_for_work(self) -> bool:
        """Wait a moment when all lanes are idle; returns whether more trials may come."""
        self.recorder.flush()
        if not self._tenure.trials_may_come():
            return False
        with self.timer.section("idle"):
            time.sleep(0.05)
        return True

    # --- filling lanes ---------------------------------------------------------------------------------------------

    def _ask_ahead(self) -> None:
        """Ask for trials for the free lanes, and for some more in advance."""
        if self._supply.dry and time.monotonic() - self._dry_at < _ASK_AGAIN_SECONDS:
            return
        self._dry_at = time.monotonic()
        more = max(1, self.plan.capacity // AHEAD)
        wanted = (self._stacks.free_lanes + more) // self._rows.folds - len(self._ready)
        if wanted > more // 2 // self._rows.folds:  # some at a time, as every batch costs a fit of the sampler's model
            self._supply.start(wanted)

    def _conclude(self) -> None:
        """Conclude the search if the trials left are not expected to improve the best value."""
        if self._conclusion is None or self._supply.dry:
            return
        values = self._supply.values
        left = self._spec.budget.trials - len(values) - len(self._trials) - len(self._ready)
        reason = self._conclusion.reason(values, left)
        if reason is not None:
            log.info("study %d: %s", self._lease.study_id, reason)
            self._store.conclusions.conclude(self._lease, reason)

    def _fill_lanes(self) -> None:
        """Put ready trials on free lanes."""
        runs: list[Run] = []
        self._drop_stopped()
        while self._ready and len(runs) < self._stacks.free_lanes // self._rows.folds:
            trial = self._ready.popleft()
            run = self._run_of(trial)
            fault = fault_of(run.recipe, self._data)
            if fault is None:
                self._trials[trial.id] = trial
                runs.append(run)
            else:
                self._fail(trial, fault)
        self._stacks.fill(runs, supplied=not self._supply.dry or bool(self._ready))

    def _fail(self, trial: AskedTrial, reason: str) -> None:
        """Tell that a trial's network can't be trained."""
        log.warning("trial %d can't be trained: %s", trial.number, reason, extra={"trial": trial.number})
        result = TrialResult(trial.id, "fail", None, None, reason, 0, {}, {"attempt": trial.attempt})
        self._supply.tell(trial, result)
        self.recorder.put([], [result])

    def _drop_stopped(self) -> None:
        """Tell the ready trials that somebody has stopped, which never begin."""
        stopping = self.recorder.stopping()
        for trial in [each for each in self._ready if each.id in stopping]:
            self._ready.remove(trial)
            result = not_begun(trial)
            self._supply.tell(trial, result)
            self.recorder.put([], [result])

    def _run_of(self, trial: AskedTrial) -> Run:
        part, lanes = self._rows.lanes(self._spec.seed, trial.number)
        run = Run(trial.id, recipe(self._spec, trial.params), lanes, self._protocol, part)
        saved = None if trial.fresh else self._checkpoints.load(trial.id)
        if saved is not None:
            run.resume(saved)
            metric = run.curve[self._protocol.metric]
            self.recorder.put([Report(trial.id, step, value) for step, value in enumerate(metric)], [])
        return run

    def _save_lanes(self) -> None:
        """Save checkpoints of the trials on lanes, for the worker that continues them."""
        for run, runner in self._stacks.running():
            if run.epoch and not self._checkpoints.save(run.key, runner.checkpoint(run)):
                return

    # --- an epoch --------------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Let the stacks train, and take in the epoch of one of them."""
        with span("train stack", lanes=self.lanes):
            with self.timer.section("training"):
                self._stacks.train()
            if self._stacks.training:
                self._finish_epoch()

    def _finish_epoch(self) -> None:
        """Report, judge and tell the trials of the stack whose turn it is after its epoch."""
        with self.timer.section("training"):
            runner, runs = self._stacks.finish()
        self._tenure.begin()
        time_is_up, stopping = self._tenure.time_is_up(), self.recorder.stopping()
        for run in runs:
            if time_is_up or run.key in stopping:
                run.ending = run.ending or ("stopped" if run.key in stopping else "time")
        reports = [Report(run.key, run.epoch - 1, run.value) for run in runs if run.ending != "out_of_memory"]
        standings = [
            Standing(self._trials[run.key].number, run.epoch, run.value, run.best_value, run.curve[self._protocol.metric])
            for run in runs
            if not run.ending
        ]
        pruned = self._judge.judge(standings) | self._overdue(runs)
        ended = [run for run in runs if run.ending or self._trials[run.key].number in pruned]
        results = [self._result_of(run, runner) for run in ended]
        if ended:
            self._stacks.begun()
        for run, result in zip(ended, results, strict=True):
            trial = self._trials.pop(run.key)
            self._started.pop(run.key, None)
            if not trial.fresh:  # else nobody has saved it
                self._checkpoints.forget(trial.id)
            if result.state != "retry":  # else the worker that tries it next tells its result
                self._learn(trial, run, result, runner)
            runner.remove(run)
        self.recorder.put(reports, results)

    def _result_of(self, run: Run, runner: StackRunner) -> TrialResult:
        """The result of a run that has ended on its lanes."""
        trial = self._trials[run.key]
        result, outer = result_of(run, runner, trial, self._objectives), self._rows.outer_fold(trial.number)
        return result if outer is None else replace(result, ranked=False, attrs={**result.attrs, "outer_fold": outer})

    def _learn(self, trial: AskedTrial, run: Run, result: TrialResult, runner: StackRunner) -> None:
        """Pass a trial's result on to the sampler, the pruner and the conclusion."""
        self._supply.tell(trial, result)
        if self._conclusion is not None:
            self._conclusion.learn(run, runner)
        metric = run.curve[self._protocol.metric]
        self._judge.remember(trial.number, metric, complete=result.state == "complete", judged_here=True)

    def _overdue(self, runs: Sequence[Run]) -> set[int]:
        """Numbers of the trials that have been on their lanes longer than the study allows."""
        limit = self._spec.budget.trial_seconds
        if limit is None:
            return set()
        now = time.monotonic()
        return {self._trials[run.key].number for run in runs if now - self._started.setdefault(run.key, now) > limit}
