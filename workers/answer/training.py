"""Candidates trained over the same seeds, as lanes of as few stacks as possible. Independent of scores and the test part.

Candidates may be added while others train. One that `continues` another takes over its lanes when that one converges:
"unregularized" begins as "early stopping only" does, so their common epochs are trained once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from service.spec import StudySpec
from workers.answer.candidates import Candidate
from workers.seeds import final_seeds
from workers.stack.device_data import DeviceData
from workers.stack.layout import Layout
from workers.stack.run import Protocol, Run
from workers.stack.runner import StackRunner
from workers.stack.stack import StackKey
from workers.stack.techniques import techniques_in

Lanes = Callable[[int], tuple[tuple[int, int], ...]]
"""Of the index of a seed, (fold, seed) of every lane of a run."""


class Trainer:
    """Trains candidates of one study. ``alive`` is called between epochs and raises when the lease is lost.

    The index of a seed gives every candidate of one shape the same initial weights, data order and dropout masks, so that
    their differences are paired. ``layout`` gives that of a stack key; programs of the search are used again. ``protocol``
    replaces that of the study, ``lanes`` one lane for each fold; ``folds`` are those of one candidate, where the data have
    those of several searches.
    """

    def __init__(
        self,
        spec: StudySpec,
        data: DeviceData,
        alive: Callable[[], None],
        seeds: Sequence[int] | None = None,
        layout: Callable[[StackKey], Layout] | None = None,
        protocol: Protocol | None = None,
        lanes: Lanes | None = None,
        folds: int | None = None,
    ) -> None:
        self._spec = spec
        self._data = data
        self._alive = alive
        self._seeds = range(spec.budget.seeds) if seeds is None else seeds
        self._layout = layout or (lambda _: Layout())
        self._protocol = protocol
        self._lanes_of = lanes or (lambda index: final_seeds(spec.seed, index, folds or data.folds))
        self._runners: dict[tuple[StackKey, bool], StackRunner] = {}
        self._lanes: list[tuple[Candidate, int]] = []
        self._open: Counter[Candidate] = Counter()
        self._heirs: dict[Candidate, Candidate] = {}
        self.lane_epochs = 0

    def train(self, group: Sequence[Candidate]) -> None:
        """Train candidates to the end."""
        self.add(group)
        self.last_call()
        self.finish(group)

    def add(self, group: Sequence[Candidate]) -> None:
        """Add candidates; they train whenever `finish` waits for any candidates."""
        wanted: dict[tuple[StackKey, bool], list[Run]] = {}
        for candidate in group:
            self._open[candidate] += len(self._seeds)
            if candidate.continues is not None:
                self._heirs[candidate.continues] = candidate
                continue
            runs = [self._run(candidate, index) for index in self._seeds]
            wanted.setdefault(self._place(candidate), []).extend(runs)
        for place, runs in wanted.items():
            if place not in self._runners:
                self._runners[place] = self._runner(place[0], sum(run.lanes for run in runs))
            self._runners[place].add(runs)

    def last_call(self) -> None:
        """Announce that no candidates will be added, so that stacks may shrink to the size they need."""
        for runner in self._runners.values():
            runner.last_call = True

    def finish(self, group: Sequence[Candidate]) -> None:
        """Train everything that was added until these candidates are done."""
        while any(self._open[candidate] for candidate in group):
            self._alive()
            training = [runner for runner in self._runners.values() if runner.wanted_lanes]
            started = [runner.start() for runner in training]
            for runner, blocks in zip(training, started, strict=True):
                self._learn(runner, runner.finish(blocks))
        for candidate in group:
            candidate.runs = dict(sorted(candidate.runs.items()))

    def _place(self, candidate: Candidate) -> tuple[StackKey, bool]:
        """A candidate's stack. Eager stacks on a CPU keep baselines apart, as a stack computes all that any lane uses."""
        data = self._data
        key = StackKey.of(candidate.recipe, data.inputs, data.outputs, data.categories, data.several)
        return key, candidate.role == "baseline" and data.device.type == "cpu" and not self._layout(key).workshop

    def _runner(self, key: StackKey, lanes: int) -> StackRunner:
        layout = self._layout(key)
        if layout.graphs and not layout.suits(lanes):
            layout = Layout()
        fixed = layout.graphs or layout.workshop is not None
        return StackRunner(
            key, self._data, layout=layout, techniques=techniques_in(self._spec.domains) if fixed else frozenset()
        )

    def _run(self, candidate: Candidate, index: int) -> Run:
        self._lanes.append((candidate, index))
        lanes = tuple((candidate.first_fold + fold, seed) for fold, seed in self._lanes_of(index))
        return Run(len(self._lanes) - 1, candidate.recipe, lanes, self._protocol or self._usual(candidate))

    def _usual(self, candidate: Candidate) -> Protocol:
        assert self._spec.metric is not None, "a stored spec is resolved"
        stopping = self._spec.early_stopping if candidate.early_stopping else None
        return Protocol(self._spec.metric, self._spec.budget.epochs, stopping)

    def _learn(self, runner: StackRunner, runs: Sequence[Run]) -> None:
        """Take in an epoch of a stack."""
        for run in runs:
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
        """Let the heir continue from the present weights, if there are any and epochs are left."""
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
        heir.runs[index], heir.weights[index] = next_run, runner.weights_in(saved)
        self._open[heir] -= 1
