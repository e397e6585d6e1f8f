"""Candidates trained over the same seeds, as lanes of as few stacks as possible. Knows no scores and no test part.

Candidates may be added while others train. One that `continues` another takes over its lanes where that one converges:
"unregularized" begins as "early stopping only" does, so their common epochs are trained once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from service.spec import StudySpec
from workers.answer.candidates import Candidate
from workers.session import seed_of
from workers.stack.device import DeviceData
from workers.stack.stack import StackKey
from workers.training import Protocol, Run, StackRunner

SEEDS = 5


class Trainer:
    """Trains candidates of one study. ``alive`` is called between epochs and raises when the lease is lost.

    The index of a seed means the same initial weights, data order and dropout masks for every candidate of one shape, so
    that their differences are paired.
    """

    def __init__(
        self, spec: StudySpec, data: DeviceData, alive: Callable[[], None], seeds: Sequence[int] = range(SEEDS)
    ) -> None:
        self._spec = spec
        self._data = data
        self._alive = alive
        self._seeds = seeds
        self._runners: dict[tuple[StackKey, bool], StackRunner] = {}
        self._lanes: list[tuple[Candidate, int]] = []
        self._open: Counter[Candidate] = Counter()
        self._heirs: dict[Candidate, Candidate] = {}
        self.lane_epochs = 0

    def train(self, group: Sequence[Candidate]) -> None:
        """Train candidates to the end."""
        self.add(group)
        self.finish(group)

    def add(self, group: Sequence[Candidate]) -> None:
        """Hand over candidates; they train while `finish` waits for whomever."""
        for candidate in group:
            self._open[candidate] += len(self._seeds)
            if candidate.continues is not None:
                self._heirs[candidate.continues] = candidate
                continue
            for index in self._seeds:
                self._runner(candidate).add([self._run(candidate, index)])

    def finish(self, group: Sequence[Candidate]) -> None:
        """Train everything that was added until these candidates are done."""
        while any(self._open[candidate] for candidate in group):
            for runner in self._runners.values():
                if runner.wanted_lanes:
                    self._alive()
                    self._epoch(runner)
        for candidate in group:
            candidate.runs = dict(sorted(candidate.runs.items()))

    def _runner(self, candidate: Candidate) -> StackRunner:
        """The stack of a candidate's key. On a CPU baselines have their own, which need not compute what they do not use."""
        key = StackKey.of(candidate.recipe, self._data.inputs, self._data.outputs)
        plain = candidate.role == "baseline" and self._data.device.type == "cpu"
        if (key, plain) not in self._runners:
            self._runners[key, plain] = StackRunner(key, self._data)
        return self._runners[key, plain]

    def _run(self, candidate: Candidate, index: int) -> Run:
        assert self._spec.metric is not None, "a stored spec is resolved"
        stopping = self._spec.early_stopping if candidate.early_stopping else None
        lanes = tuple((fold, seed_of(self._spec.seed, 2, index, fold)) for fold in range(self._data.folds))
        self._lanes.append((candidate, index))
        protocol = Protocol(self._spec.metric, self._spec.budget.epochs, stopping)
        return Run(len(self._lanes) - 1, candidate.recipe, lanes, protocol)

    def _epoch(self, runner: StackRunner) -> None:
        for run in runner.epoch():
            self.lane_epochs += run.lanes
            if run.ending is None:
                continue
            candidate, index = self._lanes[run.key]
            self._open[candidate] -= 1
            if run.ending in ("converged", "epochs"):
                candidate.runs[index] = run
                candidate.weights[index] = runner.best_weights(run)
            if candidate in self._heirs:
                self._hand_over(runner, run, self._heirs[candidate], index)
            runner.remove(run)

    def _hand_over(self, runner: StackRunner, run: Run, heir: Candidate, index: int) -> None:
        """Let the heir go on from the present weights, if there are any and epochs left."""
        if run.ending not in ("converged", "epochs"):
            self._open[heir] -= 1
            return
        saved = runner.checkpoint(run)
        run.curve = {name: list(values) for name, values in run.curve.items()}
        next_run = self._run(heir, index)
        next_run.resume(saved)
        if next_run.epoch < next_run.protocol.epochs:
            runner.add([next_run])
            return
        next_run.ending, next_run.best_value, next_run.best_epoch = "epochs", run.value, run.epoch - 1
        model = runner.stack.model
        heir.runs[index] = next_run
        heir.weights[index] = [model.state_dict(lane["weights"], lane["stats"]) for lane in saved["lanes"]]
        self._open[heir] -= 1
