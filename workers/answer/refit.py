"""The winning recipe trained again, on more rows than the search had: the networks that are handed out.

Called after the test part has been scored, so no score depends on it. Networks of all rows are trained for the mean of the
winner's best epochs; as an epoch has more updates now, the updates grow with the rows. Nothing stops early, for no rows are
left to see it. Networks of folds are each trained without one fold and stop by it, as in the search, so that every row is
in most of them. Reference: Breiman, "Bagging predictors" (1996), here without drawing rows twice; Holzmüller et al.,
"Better by default" (NeurIPS 2024), appendix B, for both beside each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, assert_never

import numpy as np
from numpy.typing import NDArray

from service.spec import Deliver, StudySpec
from workers.answer.candidates import Candidate, Weights
from workers.answer.finalizer import Averaged
from workers.answer.training import Lanes, Trainer
from workers.data import Fold, PrepareOptions, Split, divide_all, prepare_alike, prepare_all
from workers.plain.network import Shape, parts
from workers.seeds import final_seeds
from workers.stack.device_data import DeviceData
from workers.stack.layout import Layout
from workers.stack.run import Protocol
from workers.study_data import Prepared, wanted_metrics

_WATCHED_ROWS = 256
"""Training rows on which the loss is computed after every epoch, to notice a network that has diverged."""

Kind = Literal["single", "ensemble", "folds"]
"""One network of all rows, several of them, or several of each fold."""


@dataclass(frozen=True)
class Refitted:
    """Networks of one shape, trained on ``rows`` rows for ``epochs`` epochs, a mean; ``fold`` has their preprocessing.

    ``folds``: of how many folds each was trained without one; None if all saw all rows.
    """

    weights: Sequence[Weights]
    shape: Shape
    fold: Fold
    seeds: Sequence[int]
    epochs: int
    rows: int
    folds: int | None = None

    @property
    def networks(self) -> list[Weights]:
        """All of them, snapshots one by one."""
        return [each for own in self.weights for each in parts(own)]


def epochs_of(winner: Candidate) -> int:
    """The mean of the best epochs, counted from 1, over seeds (and folds, which share theirs)."""
    return max(1, round(float(np.mean([run.best_epoch + 1 for run in winner.runs.values()]))))


def kind_of(deliver: Deliver, scores: Averaged) -> Kind:
    """What is to be trained; `auto` is several networks of all rows, unless their average has a higher loss than each alone.

    Out-of-fold predictions cannot tell such an average from one of folds: whichever is delivered, a row is predicted by the
    networks that were trained without its fold.
    """
    match deliver.networks:
        case "auto":
            return "ensemble" if scores.gain >= 0 else "single"
        case "single" | "ensemble" | "folds":
            return deliver.networks
        case _:
            assert_never(deliver.networks)


@dataclass(frozen=True)
class Refitting:
    """Trains the recipe of a study's ``winner`` again, with new seeds; only here are test rows trained on.

    Args:
        spec: The study's, resolved.
        data: Its data.
        winner: With its runs in the finals.
        deliver: Which rows, and how many seeds.
        alive: Called between epochs.
        layout: Of the stack.
    """

    spec: StudySpec
    data: Prepared
    winner: Candidate
    deliver: Deliver
    alive: Callable[[], None]
    layout: Layout

    def train(self, kind: Kind) -> Refitted | None:
        """The networks that are handed out; None if no loss of them stays finite."""
        match kind:
            case "single":
                return self._on_all(1)
            case "ensemble":
                return self._on_all(self.deliver.seeds)
            case "folds":
                return self._without_folds()
            case _:
                assert_never(kind)

    def _rows(self) -> NDArray[np.int64]:
        parts = [part for fold in self.data.split.folds for part in fold]
        return np.unique(np.concatenate([*parts, *([self.data.split.test] if self.deliver.rows == "all" else [])]))

    def _whole(self) -> tuple[Split, Fold]:
        """All rows as one fold, which validates on some of them, and as it is prepared."""
        rows = self._rows()
        watched = rows[:: -(-len(rows) // _WATCHED_ROWS)]
        split = Split(((rows, watched),), self.data.split.test, self.data.split.duplicates)
        if self.data.device.start is None:
            (fold,) = prepare_all(self.data.table, split, PrepareOptions.of(self.spec.data))
        else:
            kept = self.data.folds[0]
            (fold,) = prepare_alike(self.data.table, split, kept.preprocessor, kept.target)
        return split, fold

    def _on_all(self, networks: int) -> Refitted | None:
        split, fold = self._whole()
        epochs = epochs_of(self.winner)
        first = self.spec.budget.seeds
        protocol = Protocol("loss", self.spec.budget.epochs, None, stop_after=epochs)
        again, shape = self._trained(split, [fold], range(first, first + networks), protocol)
        if not again.runs:
            return None
        weights, seeds = _networks(again)
        return Refitted(weights, shape, fold, seeds, epochs, len(split.folds[0][0]))

    def _without_folds(self) -> Refitted | None:
        """The lanes of one stack: a seed and a fold each. They have one preprocessing, fitted on all rows."""
        whole, fold = self._whole()
        split = self.data.split
        if self.deliver.rows == "all":
            split = Split(divide_all(self.data.table, self.spec.validation, self.spec.seed), split.test, split.duplicates)
        folds = prepare_alike(self.data.table, split, fold.preprocessor, fold.target)
        count, first = len(folds), self.spec.budget.seeds

        def lanes(index: int) -> tuple[tuple[int, int], ...]:
            return (final_seeds(self.spec.seed, first + index // count, count)[index % count],)

        assert self.spec.metric is not None, "a stored spec is resolved"
        protocol = Protocol(self.spec.metric, self.spec.budget.epochs, self.spec.early_stopping)
        again, shape = self._trained(split, folds, range(count * self.deliver.seeds), protocol, lanes)
        if not again.runs:
            return None
        weights, seeds = _networks(again)
        return Refitted(weights, shape, fold, seeds, epochs_of(again), len(whole.folds[0][0]), count)

    def _trained(
        self, split: Split, folds: Sequence[Fold], indices: range, protocol: Protocol, lanes: Lanes | None = None
    ) -> tuple[Candidate, Shape]:
        device = self.data.device
        on = DeviceData.of(
            folds,
            task=device.task,
            outputs=device.outputs,
            device=device.device,
            wanted=wanted_metrics(self.spec),
            positive=device.positive,
            quantile=device.quantile,
            start=device.start,
            crew=device.crew,
        )
        again = Candidate(self.winner.name, "finalist", self.winner.recipe)
        Trainer(self.spec, on, self.alive, indices, lambda _: self.layout, protocol, lanes).train([again])
        return again, Prepared(self.data.table, split, folds, on).shape(self.winner.recipe)


def _networks(again: Candidate) -> tuple[list[Weights], list[int]]:
    """The weights and seeds of a candidate whose runs have one lane each."""
    return [again.weights[index][0] for index in again.runs], [run.fold_seeds[0][1] for run in again.runs.values()]
