"""Candidates trained over the same seeds, as lanes of as few stacks as possible. Knows no scores and no test part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from service.spec import StudySpec
from workers.answer.candidates import Candidate
from workers.session import seed_of
from workers.stack.device import DeviceData
from workers.stack.stack import StackKey
from workers.training import Protocol, Run, StackRunner

SEEDS = 5


@dataclass(frozen=True)
class Trainer:
    """Trains candidates of one study. ``alive`` is called between epochs and raises when the lease is lost."""

    spec: StudySpec
    data: DeviceData
    alive: Callable[[], None]
    seeds: Sequence[int] = range(SEEDS)

    def train(self, group: Sequence[Candidate]) -> None:
        """Train every candidate over the seeds, candidates with equal keys as one stack.

        The index of a seed means the same initial weights, data order and dropout masks for every candidate of one
        shape, so that their differences are paired.
        """
        stacks: dict[StackKey, list[tuple[Candidate, int]]] = {}
        for candidate in group:
            key = StackKey.of(candidate.recipe, self.data.inputs, self.data.outputs)
            stacks.setdefault(key, []).extend((candidate, index) for index in self.seeds)
        for key, lanes in stacks.items():
            self._train_stack(StackRunner(key, self.data), lanes)
        for candidate in group:
            candidate.runs = dict(sorted(candidate.runs.items()))

    def _run(self, place: int, candidate: Candidate, index: int) -> Run:
        assert self.spec.metric is not None, "a stored spec is resolved"
        stopping = self.spec.early_stopping if candidate.early_stopping else None
        lanes = tuple((fold, seed_of(self.spec.seed, 2, index, fold)) for fold in range(self.data.folds))
        return Run(place, candidate.recipe, lanes, Protocol(self.spec.metric, self.spec.budget.epochs, stopping))

    def _train_stack(self, runner: StackRunner, lanes: Sequence[tuple[Candidate, int]]) -> None:
        runner.add([self._run(place, candidate, index) for place, (candidate, index) in enumerate(lanes)])
        while runner.wanted_lanes:
            self.alive()
            for run in runner.epoch():
                if run.ending is None:
                    continue
                candidate, index = lanes[run.key]
                if run.ending in ("converged", "epochs"):
                    candidate.runs[index] = run
                    candidate.weights[index] = runner.best_weights(run)
                runner.remove(run)
