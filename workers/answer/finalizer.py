"""The protocol at the end of a study: train over seeds, choose on validation data, open the test part once.

The winner has the best mean over seeds on validation data. All choices (winner, ties, ensemble) are made before the test
part is opened, which is recorded. Independent of the database.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import assert_never

import numpy as np
import torch
from torch import Tensor

from service.errors import TrialError
from service.result import (
    Coverage,
    Discrimination,
    Findings,
    Interval,
    Recommendation,
    RowCounts,
    Winner,
)
from service.spec import Recipe, StudySpec
from service.store.records import TrialRecord
from workers.answer import anatomy
from workers.answer.candidates import Candidate, Weights, ablations, baselines, finalists
from workers.answer.decisions import Decisions, decided
from workers.answer.ensemble import Ensemble, build
from workers.answer.front import front
from workers.answer.importance import effects, importance
from workers.answer.intervals import interval
from workers.answer.nested import OuterFolds, Pooled, of_search
from workers.answer.networks import Gauge, Measured, ScoredRows, locked_rows, test_rows, validation_rows
from workers.answer.statement import Statement, best_place
from workers.answer.targets import per_target
from workers.answer.ties import recommended, ties
from workers.answer.training import Trainer
from workers.answer.verdict import verdict
from workers.answer.warm_start import warm_start
from workers.plain.members import MEANS
from workers.scoring.curves import describe
from workers.scoring.pictures import MOST_CLASSES
from workers.scoring.scores import Scores
from workers.stack.blueprint import StackKey
from workers.stack.layout import Layout
from workers.stack.run import Run
from workers.study_data import Prepared
from workers.timing import Timer


@dataclass(frozen=True)
class TrainedModel:
    """One trained network: with `Prepared`, whose first fold has its preprocessing, all that an archive needs."""

    name: str
    recipe: Recipe
    seed: int
    """Index of its seed among those of the finalists."""
    weights: Weights


@dataclass(frozen=True)
class Averaged:
    """Scores of the winner's networks: ``single`` the mean of their scores on validation rows, ``average`` that of the
    average of their predictions, ``gain`` by how much the latter's loss is lower; ``test`` its score on the test rows, where
    it is of the networks of the first fold, ``folds`` that of the networks of all folds (None without k folds).

    The gain is one of the loss, as the metric flatters single networks: it has chosen the epoch of each.
    """

    single: float
    average: float
    gain: float
    test: Interval
    decisions: Decisions | None = None
    """Of a classification."""
    folds: Interval | None = None


@dataclass(frozen=True)
class Answer:
    """The answer of a study.

    ``model`` is the winner's network with the best validation score, and ``run`` its training; ``test`` are the test
    rows, and ``predicted`` (r, o) its outputs on them, with nested validation those of the outer folds' winners.
    ``ensemble`` are networks with their shares. ``winner`` has all its networks, and ``average`` scores of these.
    """

    findings: Findings
    model: TrainedModel
    run: Run
    test: ScoredRows
    predicted: Tensor
    ensemble: tuple[tuple[TrainedModel, float], ...]
    winner: Candidate
    average: Averaged


@dataclass(frozen=True)
class Chosen:
    """All that is decided before the test part is opened."""

    everyone: Sequence[Candidate]
    winner: Candidate
    tied: Sequence[Candidate]
    ensemble: Ensemble
    measured: dict[Candidate, Measured]

    @property
    def trained(self) -> list[Candidate]:
        """Candidates with at least one trained network."""
        return [each for each in self.everyone if each.runs]


class Finalizer:
    """Turns a searched study into its answer. ``alive`` is called between epochs and raises when the lease is lost.

    ``layout`` gives that of a stack key.
    """

    def __init__(
        self, spec: StudySpec, data: Prepared, alive: Callable[[], None], layout: Callable[[StackKey], Layout] | None = None
    ) -> None:
        assert spec.metric is not None, "a stored spec is resolved"
        self._spec = spec
        self._data = data
        self._metric = spec.metric
        self._sign = spec.sign
        self._alive = alive
        self._layout = layout
        self._trainer = Trainer(spec, data.device, alive, layout=layout)
        self._gauge = Gauge.of(spec, data)
        self._timer = Timer()

    def run(self, trials: Sequence[TrialRecord], open_test: Callable[..., None]) -> Answer:
        """Train, choose, open the test part, score.

        Args:
            trials: Complete trials of the study, of all its searches, best first.
            open_test: Records the reading of the test part; called once, before it. With nested validation it is called
                before each outer fold's rows are read, with the purpose.

        Raises:
            TrialError: No finalist could be trained.
        """
        everything, trials = trials, of_search(trials, 0, self._spec.searches)
        if not trials:
            raise TrialError("no trial of the search on all rows was completed")
        with self._timer.section("finalists"):
            everyone = self._contestants(trials)
            winner = self._winner(everyone)
        with self._timer.section("baselines and ablation"):
            ablated = ablations(winner)
            self._trainer.add(ablated)
            self._trainer.last_call()
            self._trainer.finish([*everyone, *ablated])
        with self._timer.section("scoring"):
            chosen = self._choose(everyone, winner)
        pooled = self._pooled(everything, open_test)
        if pooled is None:
            open_test()
        with self._timer.section("scoring"):
            rows, ensemble_test = self._score(chosen, test_rows(self._data)) if pooled is None else _given(chosen, pooled)
        findings = self._findings(trials, chosen, ablated, rows, ensemble_test, pooled)
        model, own = self._best(chosen), chosen.measured[winner]
        average, predicted = self._averaged(winner, own, rows, pooled), own.test_out[own.indices.index(model.seed)]
        networks = self._members(chosen)
        return Answer(findings, model, winner.runs[model.seed], rows, predicted, networks, winner, average)

    def _pooled(self, trials: Sequence[TrialRecord], open_test: Callable[..., None]) -> Pooled | None:
        """The scores of nested validation, if the study has it."""
        if self._data.outer is None:
            return None
        with self._timer.section("outer folds"):
            folds = OuterFolds(self._spec, self._data.outer, self._data, self._alive, self._layout)
            return folds.run(trials, open_test)

    def _contestants(self, trials: Sequence[TrialRecord]) -> list[Candidate]:
        """The finalists, trained, and the baselines, in training."""
        best = finalists(self._spec, trials)
        everyone = [*best, *baselines(best[0].recipe)]
        self._trainer.add(everyone)
        self._trainer.finish(best)
        return everyone

    def _winner(self, everyone: Sequence[Candidate]) -> Candidate:
        trained = [each for each in everyone if each.role == "finalist" and each.runs]
        if not trained:
            raise TrialError("none of the best settings could be trained again: their losses are not finite")
        return min(trained, key=lambda each: self._sign * each.valid.mean)

    def _choose(self, everyone: Sequence[Candidate], winner: Candidate) -> Chosen:
        measured = {each: self._gauge.measure(each) for each in everyone if each.runs}
        trained = [each for each in measured if each.role == "finalist"]
        ensemble = build(trained, measured, self._gauge, validation_rows(self._data, 0), self._sign)
        return Chosen(everyone, winner, ties(winner, trained, measured, self._sign), ensemble, measured)

    def _averaged(self, winner: Candidate, measured: Measured, rows: ScoredRows, pooled: Pooled | None) -> Averaged:
        """Scores of the average of the winner's networks; ``rows`` are the test rows."""
        mean, scores, gains = MEANS[self._gauge.task], [], []
        for fold, out in enumerate(measured.valid_outs):
            valid, averaged = validation_rows(self._data, fold), mean(out)[None]
            scores.append(self._gauge.exact(averaged, valid)[0])
            gains.append(self._gauge.loss(out, valid).mean() - self._gauge.loss(averaged, valid)[0])
        out = mean(measured.test_out)[None]
        test = interval(self._gauge.score(out, rows) if pooled is None else pooled.score(out), self._metric)
        single = float(measured.valid.exact.mean())
        decisions = None if self._gauge.task == "regression" else decided(self._gauge, measured, rows)
        if decisions is not None and pooled is not None:
            decisions = pooled.decisions(decisions)
        folds = self._of_folds(winner, rows) if self._spec.validation.method == "kfold" else None
        return Averaged(single, float(np.mean(scores)), float(np.mean(gains)), test, decisions, folds)

    def _of_folds(self, winner: Candidate, rows: ScoredRows) -> Interval:
        """The test score of the average of a candidate's networks of all folds, none of which has seen the ``rows``."""
        first, outs = self._data.folds[0].target, []
        for number, fold in enumerate(self._data.folds):
            out = self._gauge.outputs(winner, locked_rows(self._data, fold), number)
            if self._gauge.task == "regression":  # in the unit of the first fold, which ``rows`` have
                out = torch.from_numpy(first.standardize(fold.target.restore(out.numpy())))
            outs.append(out)
        return interval(self._gauge.score(MEANS[self._gauge.task](torch.cat(outs))[None], rows), self._metric)

    def _score(self, chosen: Chosen, rows: ScoredRows) -> tuple[ScoredRows, Scores]:
        """Score everything on the test rows; returns them with the ensemble's scores."""
        for candidate, measured in chosen.measured.items():
            self._gauge.test(candidate, measured, rows)
        out = {candidate: measured.test_out for candidate, measured in chosen.measured.items()}
        return rows, self._gauge.score(chosen.ensemble.outputs(self._gauge.task, out), rows)

    def _findings(
        self,
        trials: Sequence[TrialRecord],
        chosen: Chosen,
        ablated: Sequence[Candidate],
        rows: ScoredRows,
        ensemble_test: Scores,
        pooled: Pooled | None,
    ) -> Findings:
        with self._timer.section("importance"):
            important, marginal = importance(self._spec, trials), effects(self._spec, trials)
        statement = Statement(self._metric, self._sign, chosen.winner, chosen.measured, self._spec.also)
        settings = {each: statement.setting(each) for each in chosen.everyone}
        winner = Winner.of(settings[chosen.winner])
        baseline = next(each for each in chosen.everyone if each.name == "unregularized")
        others = tuple(settings[each] for each in chosen.everyone if each not in (chosen.winner, baseline))
        simplest, reason = recommended(chosen.winner, chosen.tied)
        both = [each for each in chosen.trained if each in (chosen.winner, baseline)]
        findings = Findings(
            metric=self._metric,
            direction=self._spec.direction,
            verdict=verdict(self._metric, winner, settings[baseline], others, 0 if pooled is None else len(pooled.folds)),
            winner=winner,
            baseline=settings[baseline],
            others=others,
            gain=settings[baseline].behind_winner,
            ties=tuple(each.name for each in chosen.tied),
            recommended=Recommendation(name=simplest.name, reason=reason, recipe=settings[simplest].recipe),
            optimism=statement.optimism(),
            seeds=self._spec.budget.seeds,
            ablation=statement.ablation(ablated),
            selection=statement.selection(chosen.trained[0]),
            ensemble=statement.ensemble(chosen.ensemble, ensemble_test),
            importance=important,
            effects=marginal,
            weights={each.name: anatomy.weights(each) for each in both},
            curves={each.name: anatomy.curves(each, self._metric) for each in both},
            sparsification={each.name: self._gauge.sparsification(each, next(iter(each.runs))) for each in both},
            rows=self._rows(rows),
            phases=self._timer.seconds,
            finalizing_epochs=self._trainer.lane_epochs + (0 if pooled is None else pooled.lane_epochs),
        )
        if pooled is not None:
            findings = findings.with_nested(pooled.stated(self._spec))
        return self._with_optional_parts(findings, trials, chosen, both, rows)

    def _with_optional_parts(
        self,
        findings: Findings,
        trials: Sequence[TrialRecord],
        chosen: Chosen,
        both: Sequence[Candidate],
        rows: ScoredRows,
    ) -> Findings:
        """Add the front of several objectives, what earlier studies gained, what concerns a task or several targets."""
        if self._spec.also:
            findings = findings.with_front(front(self._spec, trials))
        if self._spec.search_from:
            findings = findings.with_warm_start(warm_start(self._spec, trials))
        tested = [chosen.measured[each].test_out for each in both if chosen.measured[each].test is not None]
        if self._spec.quantile is not None:
            covered = [self._covered(out, rows) for out in tested]
            winner, baseline = (*covered, math.nan)[:2]
            findings = findings.with_coverage(Coverage(quantile=self._spec.quantile, winner=winner, baseline=baseline))
        if self._data.table.targets:
            out, *others = tested
            each = per_target(self._gauge, out, next(iter(others), None), rows.y.cpu(), self._data.folds[0])
            findings = findings.with_targets(each)
        match self._gauge.task:
            case "classification" if len(self._data.table.labels) > MOST_CLASSES:
                return findings
            case "classification":
                return findings.with_discrimination(self._discrimination(chosen, both, rows))
            case "multilabel" | "regression":
                return findings
            case _:
                assert_never(self._gauge.task)

    def _covered(self, out: Tensor, rows: ScoredRows) -> float:
        """The share of the rows whose target is at most the prediction, a mean over networks."""
        return float((rows.y.cpu() <= out.squeeze(2)).double().mean())

    def _discrimination(self, chosen: Chosen, both: Sequence[Candidate], rows: ScoredRows) -> dict[str, Discrimination]:
        labels, positive, target = self._data.table.labels, self._data.device.positive, rows.y.cpu()
        out = {each.name: chosen.measured[each].test_out for each in both if chosen.measured[each].test is not None}
        return {name: describe(each, target, labels, positive=positive) for name, each in out.items()}

    def _rows(self, test: ScoredRows) -> RowCounts:
        train, valid = self._data.split.folds[0]
        return RowCounts(train=len(train), valid=len(valid), test=len(test.y), duplicates=self._data.split.duplicates)

    def _best(self, chosen: Chosen) -> TrainedModel:
        measured = chosen.measured[chosen.winner]
        return _model(chosen.winner, measured.indices[best_place(measured, self._sign)])

    def _members(self, chosen: Chosen) -> tuple[tuple[TrainedModel, float], ...]:
        return tuple((_model(candidate, index), share) for candidate, index, share in chosen.ensemble.members)


def _given(chosen: Chosen, pooled: Pooled) -> tuple[ScoredRows, Scores]:
    """Score winner and baselines by nested validation; returns its rows, with the ensemble's scores."""
    pooled.into(chosen.winner, chosen.measured)
    return pooled.rows, pooled.score(pooled.ensemble)


def _model(candidate: Candidate, index: int) -> TrainedModel:
    return TrainedModel(candidate.name, candidate.recipe, index, candidate.weights[index][0])
