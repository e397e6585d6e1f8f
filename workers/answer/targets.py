"""Scores of each of several targets by itself, on the locked test rows: labels as labels, numbers in their own units.

Shapes: `n` networks (the seeds of a setting), `r` rows, `t` targets.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from service.result import TargetScore
from service.spec import PINBALL, metrics_for
from workers.answer.intervals import interval
from workers.answer.networks import Gauge
from workers.data import Fold
from workers.scoring.scores import Scores, exact, score

_NOT_OF_ONE = (PINBALL, "hamming_accuracy", "f1_micro")
"""Metrics that have a level, or that are the same as others where there is one label."""


def per_target(gauge: Gauge, winner: Tensor, baseline: Tensor | None, y: Tensor, fold: Fold) -> tuple[TargetScore, ...]:
    """Scores of outputs (n, r, t) of the winner, and of the baseline, if some network of it could be trained.

    Args:
        gauge: Of the study.
        winner, baseline: Outputs of networks of the first ``fold``.
        y: (r, t) labels, or numbers as the fold standardizes them.
        fold: Has the units.
    """
    return tuple(
        _score(_Alone(gauge, place, y, fold), name, winner, baseline) for place, name in enumerate(gauge.data.table.targets)
    )


class _Alone:
    """One target as a study of its own would see it."""

    def __init__(self, gauge: Gauge, place: int, y: Tensor, fold: Fold) -> None:
        self.gauge, self.place = gauge, place
        labels = gauge.task == "multilabel"
        self.y = y[:, [place]] if labels else y[:, place]
        self.scale = 1.0 if labels else fold.target.of(place).unit
        self.share = float(self.y.double().mean()) if labels else None

    def score(self, out: Tensor) -> Scores:
        """Of the study's metric."""
        own, quantile = out[:, :, [self.place]], self.gauge.data.device.quantile
        return score(self.gauge.task, self.gauge.metric, own, self.y, self.scale, quantile=quantile)

    def values(self, out: Tensor) -> Mapping[str, float]:
        """Of the other metrics of the task, means over the networks."""
        others = [name for name in metrics_for(self.gauge.task) if name not in (self.gauge.metric, *_NOT_OF_ONE)]
        own = out[:, :, [self.place]]
        return {name: float(exact(self.gauge.task, name, own, self.y, self.scale).mean()) for name in others}


def _score(alone: _Alone, name: str, winner: Tensor, baseline: Tensor | None) -> TargetScore:
    metric = alone.gauge.metric
    return TargetScore(
        name=name,
        winner=interval(alone.score(winner), metric),
        baseline=None if baseline is None else interval(alone.score(baseline), metric),
        values=alone.values(winner),
        share=alone.share,
    )
