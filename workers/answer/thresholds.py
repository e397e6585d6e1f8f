"""Which class a delivered network decides for: thresholds for metrics that the largest probability does not serve best.

A bias is added to the outputs of each class before the largest decides; with two classes that is a threshold of the
probability. The biases are those with the best score on validation rows that no network of their fold was trained on.
Reference: Koyejo et al., "Consistent binary classification with generalized performance metrics" (NeurIPS 2014), why a
threshold is enough. Shapes: `n` networks, `r` rows, `o` classes, `g` biases that are tried at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from service.result import Thresholds
from service.spec import Metric
from workers.scoring.metrics import confusion, of_confusion

TUNED: tuple[Metric, ...] = ("balanced_accuracy", "f1", "f1_macro")
"""Metrics for which there are thresholds; with several labels `f1_macro` alone."""
_LEAST_ROWS = 100
"""Of fewer rows the thresholds would be a matter of chance."""
_GRID = torch.linspace(-4.0, 4.0, 81)
_PASSES = 2


@dataclass(frozen=True)
class Judged:
    """Outputs (n, r, o) of networks on rows, with the classes (r,), or labels (r, o) of which each is there or not."""

    out: Tensor
    labels: Tensor

    def averaged(self, mean: Callable[[Tensor], Tensor]) -> Judged:
        """As of one network, whose outputs are the ``mean`` (r, o) of these."""
        return Judged(mean(self.out)[None], self.labels)

    def flat(self) -> tuple[Tensor, Tensor]:
        """(n·r, o) outputs and (n·r,) or (n·r, o) labels."""
        return self.out.flatten(0, 1), torch.cat([self.labels] * len(self.out))

    def one(self, label: int) -> Judged:
        """One of several labels as two classes, of which the first has the output 0."""
        own = self.out[:, :, label]
        return Judged(torch.stack([torch.zeros_like(own), own], 2), self.labels[:, label])

    def part(self, number: int) -> Judged:
        """Every second row, from the first or the second on."""
        return Judged(self.out[:, number::2], self.labels[number::2])


def tuned(metric: Metric, positive: int, valid: Sequence[Judged], test: Judged) -> Thresholds:
    """The biases of the ``valid`` rows of all folds, and what they change there and on the ``test`` rows.

    Their score on validation rows is that of biases found on the other half of these; if that is no better than without,
    or there are few rows, no bias is added.
    """

    def score(rows: Sequence[Judged], biases: Tensor) -> float:
        return float(torch.stack([_scores(metric, positive, each, biases) for each in rows]).mean())

    def found(rows: Sequence[Judged]) -> Tensor:
        return _found(metric, positive, rows)

    none = torch.zeros(valid[0].out.shape[2])
    before = score(valid, none)
    after = before
    if sum(len(each.labels) for each in valid) >= _LEAST_ROWS:
        halves = [[each.part(number) for each in valid] for number in (0, 1)]
        after = (score(halves[1], found(halves[0])) + score(halves[0], found(halves[1]))) / 2.0
    biases = found(valid) if after > before else none
    return Thresholds(
        biases=tuple(round(float(value), 4) for value in biases),
        valid_before=before,
        valid_after=after if biases.any() else before,
        test_before=score([test], none),
        test_after=score([test], biases),
    )


def tuned_labels(valid: Sequence[Judged], test: Judged) -> Thresholds:
    """Biases of the outputs of several labels, each that of its own F1, whose mean is `f1_macro`."""
    places = range(test.out.shape[2])
    each = [tuned("f1", 1, [fold.one(label) for fold in valid], test.one(label)) for label in places]

    def mean(name: str) -> float:
        return float(np.mean([getattr(own, name) for own in each]))

    return Thresholds(
        biases=tuple(own.biases[1] for own in each),
        valid_before=mean("valid_before"),
        valid_after=mean("valid_after"),
        test_before=mean("test_before"),
        test_after=mean("test_after"),
    )


def _found(metric: Metric, positive: int, rows: Sequence[Judged]) -> Tensor:
    """(o,) biases with the best score, class by class, the first being 0; of equal ones the smallest."""
    biases = torch.zeros(rows[0].out.shape[2])
    order = _GRID[_GRID.abs().argsort()]  # the smallest first, which argmax takes of equal ones
    for _ in range(_PASSES):
        for label in range(1, len(biases)):
            scores = torch.stack([_along(metric, positive, each, biases, label, order) for each in rows]).mean(0)
            biases[label] = order[int(scores.argmax())]
    return biases


def _along(metric: Metric, positive: int, rows: Judged, biases: Tensor, label: int, order: Tensor) -> Tensor:
    """(g,) scores with the biases ``order`` (g,) of one class, means over the networks."""
    found = []
    for out in rows.out:
        others = out + biases
        others[:, label] = -torch.inf
        best, place = others.max(1)
        wins = out[None, :, label] + order[:, None] > best[None]
        found.append(_score(metric, positive, torch.where(wins, label, place[None]), rows.labels, out.shape[1]))
    return torch.stack(found).mean(0)


def _scores(metric: Metric, positive: int, rows: Judged, biases: Tensor) -> Tensor:
    """() the score with biases (o,), a mean over the networks."""
    decided = (rows.out + biases).argmax(2)
    return _score(metric, positive, decided, rows.labels, len(biases)).mean()


def _score(metric: Metric, positive: int, decided: Tensor, labels: Tensor, classes: int) -> Tensor:
    """(g,) of decisions (g, r)."""
    table = confusion(decided, labels.expand_as(decided), torch.ones(decided.shape), classes)
    return of_confusion(table, positive)[metric]
