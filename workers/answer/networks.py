"""Outputs of trained networks: of every seed of a candidate, on training, validation and test rows.

Shapes: `s` seeds, `r` rows, `o` outputs. A fold's rows are scored by the networks that were trained on this fold; the
test rows by those of the first fold, one of which is handed out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from service.result import SparsityPoint
from service.spec import PINBALL, Metric, StudySpec, Task
from workers.answer.candidates import Candidate, Weights
from workers.data import Fold
from workers.data.locked import test_part
from workers.plain import network as plain
from workers.plain.network import Shape
from workers.scoring.scores import Scores, exact, mean_over_folds, score
from workers.scoring.sparsification import sparsity_curve
from workers.stack.device_data import examples
from workers.study_data import Prepared


@dataclass(frozen=True)
class ScoredRows:
    """Rows on which networks are scored: preprocessed features (r, …), targets (r,) or (r, t), and the target's scale."""

    x: Any
    y: Tensor
    scale: float


def training_rows(data: Prepared, fold: int) -> ScoredRows:
    """The training rows of a fold."""
    rows = data.device.train[fold]
    return ScoredRows(data.device.chosen(rows), data.device.y[rows], float(data.device.scale[fold]))


def validation_rows(data: Prepared, fold: int) -> ScoredRows:
    """The validation rows of a fold."""
    rows = data.device.valid[fold][data.device.mask[fold] > 0]
    return ScoredRows(data.device.chosen(rows), data.device.y[rows], float(data.device.scale[fold]))


def test_rows(data: Prepared) -> ScoredRows:
    """Read the locked test part, as the networks of the first fold see it; the caller has recorded that."""
    return locked_rows(data, data.folds[0])


def locked_rows(data: Prepared, fold: Fold) -> ScoredRows:
    """The same, as those of any ``fold`` see it."""
    features, target = test_part(data.table, data.split, fold)
    device = data.device.device
    return ScoredRows(examples([features], device), torch.from_numpy(target).to(device), fold.target.unit)


def outputs(shape: Shape, weights: Weights, x: Any, task: Task) -> Tensor:
    """(r, o) outputs of one trained network, with its snapshots, run as an ordinary module; returned on the CPU."""
    return plain.outputs(plain.trained(shape, weights, task).to(x.device).eval(), x).cpu()


@dataclass
class Measured:
    """Scores of a candidate's seeds (``train (s,)``) in order of their index; outputs (s, r, o) on the first fold's rows."""

    indices: list[int]
    train: NDArray[np.float64]
    valid: Scores
    valid_exact: NDArray[np.float64]
    """(s,) validation scores on the first fold, whose networks are used for the test rows and the ensemble."""
    valid_outs: Sequence[Tensor]
    """Of every fold, on its validation rows."""
    test: Scores | None = None
    test_out: Tensor = field(default_factory=lambda: torch.zeros(0))

    @property
    def valid_out(self) -> Tensor:
        """Those of the first fold."""
        return self.valid_outs[0]

    def common(self, other: Measured) -> tuple[list[int], list[int]]:
        """Positions of the seeds that both have trained, in this one and in ``other``."""
        both = [index for index in self.indices if index in other.indices]
        return [self.indices.index(index) for index in both], [other.indices.index(index) for index in both]


LOSSES: Mapping[Task, Metric] = {"classification": "log_loss", "multilabel": "log_loss", "regression": "rmse"}
"""By task: the metric that is its loss, or grows with it; not of quantiles."""


@dataclass(frozen=True)
class Gauge:
    """Scores candidates of one study."""

    data: Prepared
    task: Task
    metric: Metric

    @classmethod
    def of(cls, spec: StudySpec, data: Prepared) -> Gauge:
        """From a resolved spec."""
        assert spec.task is not None, "a stored spec is resolved"
        assert spec.metric is not None, "a stored spec is resolved"
        return cls(data, spec.task, spec.metric)

    def measure(self, candidate: Candidate) -> Measured:
        """Scores on training and validation rows, all folds together."""
        train, valid, outs = [], [], []
        for fold in range(self.data.device.folds):
            rows = training_rows(self.data, fold)
            out = self.outputs(candidate, rows, fold)
            train.append(self.exact(out, rows))
            rows = validation_rows(self.data, fold)
            outs.append(self.outputs(candidate, rows, fold))
            valid.append(self.score(outs[-1], rows))
        return Measured(list(candidate.runs), np.mean(train, axis=0), mean_over_folds(valid), valid[0].exact, outs)

    def test(self, candidate: Candidate, measured: Measured, rows: ScoredRows) -> None:
        """Add the scores on the test rows."""
        measured.test_out = self.outputs(candidate, rows)
        measured.test = self.score(measured.test_out, rows)

    def sparsification(self, candidate: Candidate, index: int) -> tuple[SparsityPoint, ...]:
        """Scores of one seed's network on validation rows with its smallest weights set to zero."""
        rows = validation_rows(self.data, 0)
        module = plain.trained(self.data.shape(candidate.recipe), candidate.weights[index][0], self.task)

        def score(network: nn.Module) -> float:
            return float(self.exact(plain.outputs(network.to(rows.x.device), rows.x).cpu()[None], rows)[0])

        return sparsity_curve(module, candidate.weights[index][0], score)

    def exact(self, out: Tensor, rows: ScoredRows) -> NDArray[np.float64]:
        """(n,) scores of outputs (n, r, o) on rows."""
        device = self.data.device
        return exact(self.task, self.metric, out, rows.y.cpu(), rows.scale, device.positive, device.quantile)

    def loss(self, out: Tensor, rows: ScoredRows) -> NDArray[np.float64]:
        """(n,) losses of outputs (n, r, o) on rows: of training, without penalties and weights of classes."""
        quantile = self.data.device.quantile
        metric = LOSSES[self.task] if quantile is None else PINBALL
        return exact(self.task, metric, out, rows.y.cpu(), rows.scale, quantile=quantile)

    def score(self, out: Tensor, rows: ScoredRows) -> Scores:
        """The same with the jackknife over the rows."""
        device = self.data.device
        return score(self.task, self.metric, out, rows.y.cpu(), rows.scale, device.positive, device.quantile)

    def outputs(self, candidate: Candidate, rows: ScoredRows, fold: int = 0) -> Tensor:
        """(s, r, o) outputs of all seeds' networks of a fold."""
        shape = self.data.shape(candidate.recipe)
        return torch.stack([outputs(shape, candidate.weights[index][fold], rows.x, self.task) for index in candidate.runs])
