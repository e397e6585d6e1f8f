"""95 % intervals of a setting's expected score: over which rows were drawn, and which seeds it was trained with.

What is covered is the expected score of *a network trained by this recipe on this training part* (a fresh seed: other
initial weights, data order and masks), on further rows from where the test rows came from. It is not the score of one
particular network, and not of training on another sample.

The score of seed s on rows R is taken as mean + seed effect + effect of the rows + interaction, as in a crossed random
effects model. Resampling both rows and seeds (a two-level percentile bootstrap) is wrong in both directions: with five
seeds it understates the seed part by a factor 4/5 and takes normal quantiles, and it counts the interaction three times.
So the two parts are estimated and added,

    V = V_rows + max(0, S² − E) / n,

V_rows the jackknife variance of the mean over seeds (which holds the interaction already), S² the variance over n seeds,
E the part of S² that comes from interaction with the finite rows; and the quantile is Student's with Satterthwaite's
degrees of freedom. tests/benchmarks/coverage.py measures the coverage.

References: Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 1 (2007); Satterthwaite, Biometrics Bulletin 2
(1946); Bouthillier et al., "Accounting for variance in machine learning benchmarks" (2021). Shares of rows (accuracy and
its like): Wilson's score interval at the effective sample size, Korn and Graubard, Survey Methodology 24 (1998).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

from service.spec import LOWER_IS_BETTER
from workers.scoring.scores import Scores

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean over seeds and its interval; ``n`` rows, ``seeds`` seeds, the standard errors that each of them brings."""

    mean: float
    low: float
    high: float
    n: int
    seeds: int
    se_rows: float
    se_seeds: float

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @property
    def excludes_zero(self) -> bool:
        """Whether a difference is clear."""
        return self.low > 0 or self.high < 0


def interval(scores: Scores, metric: str) -> Interval:
    """The interval of a score, on a scale where it can't leave the metric's range."""
    mean, error, quantile, rows, seeds = _moments(scores)
    low, high = _bounds(metric, mean, error, quantile, scores.rows)
    return Interval(mean, low, high, scores.rows, len(scores.exact), rows, seeds)


def difference(better: Scores, worse: Scores, sign: float) -> Interval:
    """The paired difference of two settings over the same rows and seeds, positive where the first is the better one.

    ``sign`` is +1 for a metric that is to be minimized.
    """
    scores = worse - better if sign > 0 else better - worse
    mean, error, quantile, rows, seeds = _moments(scores)
    return Interval(mean, mean - quantile * error, mean + quantile * error, scores.rows, len(scores.exact), rows, seeds)


def over_seeds(differences: list[float]) -> tuple[float, float]:
    """Student's interval of the mean of paired differences; unbounded knowledge is not to be had of one: then (−∞, ∞)."""
    n = len(differences)
    if n < 2:
        return -math.inf, math.inf
    half = float(stats.t.ppf(0.5 + LEVEL / 2, n - 1) * np.std(differences, ddof=1) / math.sqrt(n))
    mean = float(np.mean(differences))
    return mean - half, mean + half


def _moments(scores: Scores) -> tuple[float, float, float, float, float]:
    """Mean, standard error, Student's quantile; the parts of the error that come from rows and from seeds."""
    n, groups = len(scores.exact), len(scores.jumps)
    mean_jumps = scores.jumps.mean(axis=1)
    rows = float((mean_jumps**2).sum())
    spread = float(scores.exact.var(ddof=1)) / n if n > 1 else 0.0
    interaction = float(((scores.jumps - mean_jumps[:, None]) ** 2).sum()) / max(1, n - 1) / n
    seeds = max(0.0, spread - interaction)
    variance = rows + seeds
    freedom = float(max(1, groups - 1))
    if seeds > 0.0:
        freedom = variance**2 / (rows**2 / max(1, groups - 1) + spread**2 / (n - 1))
    quantile = float(stats.t.ppf(0.5 + LEVEL / 2, freedom))
    return float(scores.exact.mean()), math.sqrt(variance), quantile, math.sqrt(rows), math.sqrt(seeds)


def _bounds(metric: str, mean: float, error: float, quantile: float, rows: int) -> tuple[float, float]:
    if metric in LOWER_IS_BETTER and mean > 0:  # an error: symmetric on a log scale
        factor = math.exp(min(700.0, quantile * error / mean))
        return mean / factor, mean * factor
    if metric == "r2" and mean < 1:  # one minus a ratio of errors
        factor = math.exp(min(700.0, quantile * error / (1.0 - mean)))
        return 1.0 - (1.0 - mean) * factor, 1.0 - (1.0 - mean) / factor
    if 0.0 <= mean <= 1.0 and metric != "r2":
        return _wilson(mean, error, quantile, rows)
    return mean - quantile * error, mean + quantile * error


def _wilson(mean: float, error: float, quantile: float, rows: int) -> tuple[float, float]:
    """Wilson's interval as for a share of so many rows as would give this standard error."""
    n = mean * (1.0 - mean) / error**2 if error > 0 else float(rows)
    squared = quantile**2 / n if n > 0 else 0.0
    centre = (mean + squared / 2) / (1 + squared)
    half = math.sqrt(squared * mean * (1 - mean) + squared**2 / 4) / (1 + squared)
    return max(0.0, centre - half), min(1.0, centre + half)
