"""The score of nested validation: every outer fold's winner on the rows inside of the fold, all of them taken together.

Each search is finalized like that of a study: finalists and baselines over seeds, the winner by validation rows. Only then
are the rows inside of the outer folds read, each part once, on record. The networks of the i-th seed of all outer folds are
treated as one network that predicts all rows. As the outer folds share most of their training rows, their errors are not
independent: with J folds the variance of the rows is multiplied by 1 + J / (J − 1), which is that of Nadeau and Bengio,
"Inference for the generalization error", Machine Learning 52 (2003), for J folds that test on 1 / (J − 1) of the rows that
they train on. Without it such intervals are known to be too short: Bates, Hastie and Tibshirani, "Cross-validation: what
does it estimate and how well does it do it?", JASA 119 (2024).

Shapes: `n` networks, `r` rows, `o` outputs. Independent of the database.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from service.errors import TrialError
from service.result import Nested, OuterFold, Temperature, Thresholds
from service.spec import StudySpec
from service.spec.nested import place
from service.store.records import TrialRecord
from workers.answer.candidates import Candidate, baselines, finalists
from workers.answer.decisions import Decisions, decided
from workers.answer.ensemble import Ensemble, build
from workers.answer.intervals import difference, interval
from workers.answer.networks import Gauge, Measured, ScoredRows, test_rows, validation_rows
from workers.answer.training import Trainer
from workers.data import TargetScale
from workers.scoring.scores import Scores
from workers.stack.blueprint import StackKey
from workers.stack.layout import Layout
from workers.study_data import Outer, Prepared

WINNER = "winner"
BASELINE = "unregularized"
Tested = TypeVar("Tested", Temperature, Thresholds)


def of_search(trials: Sequence[TrialRecord], search: int, searches: int) -> list[TrialRecord]:
    """The trials of one of the searches of a study, in their order."""
    return [trial for trial in trials if place(trial.number, searches)[0] == search]


def widening(outer: int) -> float:
    """By how much standard errors that come from the rows are multiplied with so many outer folds."""
    return math.sqrt(1.0 + outer / (outer - 1.0))


@dataclass(frozen=True)
class Pooled:
    """All rows, in the order of the outer folds, and what was predicted for them by networks that had not seen them.

    ``outs`` are outputs (n, r, o) by the name of the setting, `WINNER` for the winners; regressions are in the unit of the
    search on all rows. A setting that could not be trained in some outer fold is missing.
    """

    rows: ScoredRows
    outs: Mapping[str, Tensor]
    ensemble: Tensor
    folds: Sequence[Chosen]
    gauge: Gauge
    lane_epochs: int

    def score(self, out: Tensor) -> Scores:
        """Scores on all rows, with the wider jackknife."""
        scores = self.gauge.score(out, self.rows)
        return Scores(scores.exact, scores.jumps * widening(len(self.folds)), scores.rows)

    def into(self, winner: Candidate, measured: Mapping[Candidate, Measured]) -> None:
        """Give the settings of the search on all rows the test scores of the procedure, network by network."""
        for candidate, own in measured.items():
            out = self.outs.get(WINNER if candidate is winner else candidate.name)
            if out is not None and (candidate is winner or candidate.role == "baseline"):
                own.test_out = _as_many(out, len(own.indices))
                own.test = self.score(own.test_out)

    def decisions(self, of_all: Decisions) -> Decisions:
        """Those of the search on all rows, whose effect on test rows is that of the outer folds' own ones."""
        each = [fold.decisions for fold in self.folds if fold.decisions is not None]
        weights = [len(fold.rows.y) for fold in self.folds if fold.rows is not None]
        calibrations = tuple(
            _tested(found, [one.calibrations[which] for one in each], weights)
            for which, found in enumerate(of_all.calibrations)
        )
        if of_all.thresholds is None:
            return Decisions((calibrations[0], calibrations[1]), None)
        thresholds = tuple(
            _tested(found, [one.thresholds[which] for one in each if one.thresholds is not None], weights)
            for which, found in enumerate(of_all.thresholds)
        )
        return Decisions((calibrations[0], calibrations[1]), (thresholds[0], thresholds[1]))

    def stated(self, spec: StudySpec) -> Nested:
        """As a part of the result."""
        assert spec.metric is not None, "a stored spec is resolved"
        winner, plain = self.outs[WINNER], self.outs.get(BASELINE)
        seeds = min(len(out) for out in (winner, winner if plain is None else plain))
        scores = self.score(winner)
        against = None if plain is None else self.score(plain)
        both = range(seeds)
        gain = None if against is None else difference(scores.only(both), against.only(both), spec.sign)
        return Nested(
            score=interval(scores, spec.metric),
            baseline=None if against is None else interval(against, spec.metric),
            gain=gain,
            widening=round(widening(len(self.folds)), 4),
            trials=spec.budget.trials,
            agreement=agreement([set(fold.winner.recipe.regularizers()) for fold in self.folds]),
            folds=tuple(fold.stated() for fold in self.folds),
        )


@dataclass
class Chosen:
    """An outer fold with all that was decided before its rows were read; then with these ``rows``."""

    number: int
    data: Prepared
    gauge: Gauge
    winner: Candidate
    measured: dict[Candidate, Measured]
    ensemble: Ensemble
    decisions: Decisions | None = None
    rows: ScoredRows | None = None

    def read(self, *, decide: bool) -> None:
        """Read and score the rows inside of the fold."""
        self.rows = rows = test_rows(self.data)
        for candidate, measured in self.measured.items():
            self.gauge.test(candidate, measured, rows)
        if decide:
            self.decisions = decided(self.gauge, self.measured[self.winner], rows)

    def named(self, name: str) -> Measured | None:
        """The networks of the winner, or of a baseline; None if that could not be trained."""
        if name == WINNER:
            return self.measured[self.winner]
        return next((own for each, own in self.measured.items() if each.name == name and each.role == "baseline"), None)

    def ensembled(self) -> Tensor:
        """(1, r, o) outputs of the ensemble."""
        out = {candidate: measured.test_out for candidate, measured in self.measured.items()}
        return self.ensemble.outputs(self.gauge.task, out)

    def stated(self) -> OuterFold:
        """As a part of the result."""
        winner, plain, rows = self.measured[self.winner], self.named(BASELINE), self.rows
        assert winner.test is not None, "its rows were read"
        assert rows is not None, "its rows were read"
        assert self.winner.trial is not None, "the winner is a finalist"
        return OuterFold(
            fold=self.number,
            rows=len(rows.y),
            trial=self.winner.trial,
            recipe=self.winner.recipe.said(),
            regularizers=self.winner.recipe.regularizers(),
            valid=float(self.winner.valid.mean),
            test=float(winner.test.exact.mean()),
            baseline=math.nan if plain is None or plain.test is None else float(plain.test.exact.mean()),
        )


@dataclass(frozen=True)
class OuterFolds:
    """Finalizes the searches outside of all outer folds of a study; their lanes share stacks.

    ``alive`` is called between epochs; ``layout`` gives that of a stack key; ``whole`` are the data of the search on all
    rows, whose unit a regression's outputs get.
    """

    spec: StudySpec
    outer: Outer
    whole: Prepared
    alive: Callable[[], None]
    layout: Callable[[StackKey], Layout] | None = None

    def run(self, trials: Sequence[TrialRecord], open_test: Callable[[str], None]) -> Pooled:
        """Train, choose, then read every part.

        Args:
            trials: Complete trials of all searches, best first.
            open_test: Records the reading of an outer fold's rows, with its purpose.

        Raises:
            TrialError: An outer fold has no complete trial, or none of its finalists could be trained.
        """
        searches, inner = self.spec.searches, len(self.whole.folds)
        trainer = Trainer(self.spec, self.outer.device, self.alive, layout=self.layout, folds=inner)
        groups = []
        for index in range(len(self.outer.parts)):
            own = of_search(trials, index + 1, searches)
            if not own:
                raise TrialError(f"no trial of the search outside of outer fold {index + 1} was completed")
            best = finalists(self.spec, own)
            group = [*best, *baselines(best[0].recipe)]
            for candidate in group:
                candidate.first_fold = index * inner
            groups.append(group)
            trainer.add(group)
        trainer.last_call()
        trainer.finish([candidate for group in groups for candidate in group])
        chosen = [self._choose(index, group) for index, group in enumerate(groups)]
        for fold in chosen:
            open_test(f"score of outer fold {fold.number} of {len(chosen)}")
            fold.read(decide=self.spec.task != "regression")
        return self._pooled(chosen, trainer.lane_epochs)

    def _choose(self, index: int, group: Sequence[Candidate]) -> Chosen:
        """The winner and the ensemble of one outer fold, by validation rows."""
        data = self.outer.parts[index]
        gauge = Gauge.of(self.spec, data)
        measured = {each: gauge.measure(each) for each in group if each.runs}
        trained = [each for each in measured if each.role == "finalist"]
        if not trained:
            raise TrialError(f"none of the best settings of outer fold {index + 1} could be trained again")
        winner = min(trained, key=lambda each: self.spec.sign * each.valid.mean)
        ensemble = build(trained, measured, gauge, validation_rows(data, 0), self.spec.sign)
        return Chosen(index + 1, data, gauge, winner, measured, ensemble)

    def _pooled(self, folds: Sequence[Chosen], lane_epochs: int) -> Pooled:
        gauge, target = Gauge.of(self.spec, self.whole), self.whole.folds[0].target
        names = [WINNER, *(each.name for each in folds[0].measured if each.role == "baseline")]
        outs = {}
        for name in names:
            own = [fold.named(name) for fold in folds]
            if all(each is not None for each in own):
                found = [each.test_out for each in own if each is not None]
                most = max(len(out) for out in found)
                outs[name] = torch.cat([self._in_unit(_as_many(o, most), f) for o, f in zip(found, folds, strict=True)], 1)
        ensemble = torch.cat([self._in_unit(fold.ensembled(), fold) for fold in folds], 1)
        y = torch.cat([self._in_unit(fold.rows.y.cpu(), fold) for fold in folds if fold.rows is not None])
        rows = ScoredRows(torch.zeros(0), y, target.unit)
        return Pooled(rows, outs, ensemble, folds, gauge, lane_epochs)

    def _in_unit(self, values: Tensor, fold: Chosen) -> Tensor:
        """Outputs or targets of an outer fold in the unit of the first fold of the search on all rows."""
        if self.spec.task != "regression":
            return values
        return _restored(values, fold.data.folds[0].target, self.whole.folds[0].target)


def agreement(chosen: Sequence[set[str]]) -> float:
    """How alike sets of regularizers are: the mean over pairs of what both have of what either has, 1 for two empty ones.

    >>> agreement([{"l1", "dropout"}, {"dropout"}]), agreement([set(), set()])
    (0.5, 1.0)
    """
    shares = [len(a & b) / len(a | b) if a | b else 1.0 for a, b in combinations(chosen, 2)]
    return float(np.mean(shares))


def _restored(values: Tensor, own: TargetScale, unit: TargetScale) -> Tensor:
    return torch.from_numpy(unit.standardize(own.restore(values.numpy())))


def _as_many(out: Tensor, networks: int) -> Tensor:
    """Outputs of so many networks, the first ones again where some could not be trained."""
    return out[torch.arange(networks) % len(out)]


def _tested(found: Tested, each: Sequence[Tested], weights: Sequence[int]) -> Tested:
    """The same with the mean effect on test rows of ``each`` outer fold's own one."""
    effects = {name: [getattr(one, name) for one in each] for name in ("test_before", "test_after")}
    means = {name: float(np.average(values, weights=weights)) for name, values in effects.items()}
    return found.model_copy(update=means)
