"""Scores with their uncertainty: of several seeds on validation data, and on the locked test part by bootstrap.

Shapes: `s` seeds, `r` test rows, `o` outputs, `B` resamples.
Reference: Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), percentile intervals.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workers.metrics import evaluate, names

RESAMPLES = 400


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation over ``n`` seeds (0 for a single one)."""

    mean: float
    std: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of some values."""
        deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        return cls(float(np.mean(values)), deviation, len(values))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Interval:
    """A mean over seeds and its 95 % percentile interval over resampled test rows and seeds."""

    mean: float
    low: float
    high: float
    n: int

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def test_interval(
    task: str, metric: str, out: Tensor, target: Tensor, scale: Tensor, *, seed: int, positive: int
) -> Interval:
    """The score of a setting on the test part.

    Every resample draws rows and seeds with replacement, and averages the metric over its seeds, so the interval covers
    both: which rows the test part happens to hold, and which seeds the network happened to be trained with.

    Args:
        task: `classification` or `regression`.
        metric: Name of a metric of the task.
        out: (s, r, o) predictions of every seed's network.
        target: (r,) class indices or standardized targets.
        scale: (s,) standard deviation of the regression target.
        seed: Of the bootstrap.
        positive: Index of the positive class of two.
    """
    seeds, rows = out.shape[0], out.shape[1]
    targets = target.expand(seeds, rows)
    column = names(task, (metric,)).index(metric)

    def scores(weights: Tensor) -> Tensor:
        """(s,) scores with row weights (r,)."""
        mask = weights.expand(seeds, rows)
        return evaluate(task, out, targets, mask, scale, wanted=(metric,), positive=positive)[:, column]

    rng = np.random.default_rng(seed)
    draws = np.array([_resample(scores, seeds, rows, rng) for _ in range(RESAMPLES)])
    # A resample without one of the classes has no area under a curve.
    low, high = np.nanpercentile(draws, [2.5, 97.5])
    return Interval(float(scores(torch.ones(rows)).mean()), float(low), float(high), rows)


def _resample(scores: Callable[[Tensor], Tensor], seeds: int, rows: int, rng: np.random.Generator) -> float:
    counts = np.bincount(rng.integers(rows, size=rows), minlength=rows).astype(np.float32)
    chosen = torch.from_numpy(rng.integers(seeds, size=seeds))
    return scores(torch.from_numpy(counts))[chosen].mean().item()
