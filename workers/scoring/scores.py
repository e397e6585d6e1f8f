"""Scores of trained networks on a set of rows, with their jackknife over groups of rows.

Networks scored on the same rows have the same groups left out, so that differences between them are paired by row.
Shapes: `n` networks (the seeds of one setting), `r` rows, `o` outputs, `G` groups of rows.
Reference: the delete-a-group jackknife, Efron and Stein, "The jackknife estimate of variance" (1981); Kott, "The
delete-a-group jackknife", J. Official Statistics 17 (2001). Unlike a bootstrap it resamples nothing and needs G evaluations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from service.result import Spread
from workers.scoring.metrics import evaluate, names

GROUPS = 100
_GROUPING = 0xD17
"""Seed of the grouping: the same for everything that is scored on the same rows."""


@dataclass(frozen=True)
class Scores:
    """A metric of n networks on the same rows.

    ``exact (n,)`` are the scores; ``jumps (G, n)`` what each group of rows contributes to their error: the sum of squares
    of a column is the jackknife variance of its score, the sum of products of two columns their covariance.
    """

    exact: NDArray[np.float64]
    jumps: NDArray[np.float64]
    rows: int

    def __sub__(self, other: Scores) -> Scores:
        """Differences network by network, on the same rows."""
        return Scores(self.exact - other.exact, self.jumps - other.jumps, self.rows)

    def only(self, places: Sequence[int]) -> Scores:
        """The scores of the networks at ``places``."""
        return Scores(self.exact[list(places)], self.jumps[:, list(places)], self.rows)


def spread(values: Sequence[float] | NDArray[np.float64]) -> Spread:
    """Mean and standard deviation of one value per seed."""
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return Spread(mean=float(np.mean(values)), std=deviation, n=len(values))


def exact(
    task: str,
    metric: str,
    out: Tensor,
    target: Tensor,
    scale: float = 1.0,
    positive: int = 1,
    quantile: float | None = None,
) -> NDArray[np.float64]:
    """(n,) scores of networks.

    Args:
        task: `classification`, `multilabel` or `regression`.
        metric: Name of a metric of the task.
        out: (n, r, o) outputs: logits, or standardized predictions.
        target: (r,) class indices or standardized targets; (r, t) of several.
        scale: Standard deviation of the regression target; 1 for several.
        positive: Index of the positive class of two.
        quantile: Level of the quantile that a regression predicts.
    """
    return _masked(task, metric, out, target, scale, positive, quantile, torch.ones(out.shape[1], device=out.device))


def score(
    task: str,
    metric: str,
    out: Tensor,
    target: Tensor,
    scale: float = 1.0,
    positive: int = 1,
    quantile: float | None = None,
) -> Scores:
    """Scores of networks, and the jackknife over the rows; arguments as of `exact`."""
    rows = out.shape[1]
    groups = min(rows, GROUPS)
    group = torch.from_numpy(np.random.default_rng(_GROUPING).permutation(rows) % groups).to(out.device)
    whole = exact(task, metric, out, target, scale, positive, quantile)
    if groups < 2:
        return Scores(whole, np.zeros((1, len(whole))), rows)
    masks = ((group != each).to(torch.float32) for each in range(groups))
    without = np.stack([_masked(task, metric, out, target, scale, positive, quantile, mask) for mask in masks])
    # An area under a curve is undefined without the only group that contains a class.
    without = np.where(np.isnan(without), whole, without)
    return Scores(whole, (without - without.mean(0)) * np.sqrt((groups - 1) / groups), rows)


def _masked(
    task: str,
    metric: str,
    out: Tensor,
    target: Tensor,
    scale: float,
    positive: int,
    quantile: float | None,
    mask: Tensor,
) -> NDArray[np.float64]:
    networks, rows = out.shape[0], out.shape[1]
    scales = torch.full((networks,), scale, device=out.device)
    targets, masks = target.expand(networks, *target.shape), mask.expand(networks, rows)
    values = evaluate(task, out, targets, masks, scales, wanted=(metric,), positive=positive, quantile=quantile)
    return values[:, names(task, (metric,)).index(metric)].cpu().numpy().astype(np.float64)


def mean_over_folds(folds: Sequence[Scores]) -> Scores:
    """The mean of scores on the rows of several folds, which have no rows in common."""
    exact = np.mean([fold.exact for fold in folds], axis=0)
    jumps = np.concatenate([fold.jumps for fold in folds]) / len(folds)
    return Scores(exact, jumps, sum(fold.rows for fold in folds))
