"""95 % intervals of a setting's expected score, which account for the choice of rows and of seeds.

They cover the expected score of *a network trained by this recipe on this training part* (with a new seed: other initial
weights, data order and masks), on further rows from the source of the test rows; not the score of one particular network,
nor that of training on another sample.

The score of seed s on rows R is taken as mean + seed effect + effect of the rows + interaction, as in a crossed random
effects model. Resampling both rows and seeds (a two-level percentile bootstrap) is wrong in both directions: with five
seeds it understates the seed part by a factor 4/5 and takes normal quantiles, and it counts the interaction three times.
So the two parts are estimated separately and added,

    V = V_rows + max(0, S² − E) / n,

with V_rows the jackknife variance of the mean over seeds (which includes the interaction), S² the variance over n seeds, and
E the part of S² that comes from interaction with the finite rows. The quantile is Student's with Satterthwaite's degrees
of freedom. tests/benchmarks/coverage.py measures the coverage.

References: Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 1 (2007); Satterthwaite, Biometrics Bulletin 2
(1946); Bouthillier et al., "Accounting for variance in machine learning benchmarks" (2021). Shares of rows (accuracy and
similar metrics): Wilson's score interval at the effective sample size, Korn and Graubard, Survey Methodology 24 (1998).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats

from service.result import Interval
from service.spec import Metric
from workers.scoring.scores import Scores

LEVEL = 0.95


@dataclass(frozen=True)
class _Moments:
    """A mean over seeds, its standard error, Student's quantile, and the parts of the error from rows and from seeds."""

    mean: float
    error: float
    quantile: float
    se_rows: float
    se_seeds: float


def interval(scores: Scores, metric: Metric) -> Interval:
    """The interval of a score, on a scale where it can't leave the metric's range; NaN where the score is undefined."""
    found = _moments(scores)
    return _interval(scores, found, *BOUNDS[metric](found, scores.rows))


def difference(better: Scores, worse: Scores, sign: float) -> Interval:
    """The paired difference of two settings over the same rows and seeds, positive where the first is the better one.

    ``sign`` is +1 for a metric that is to be minimized.
    """
    scores = worse - better if sign > 0 else better - worse
    found = _moments(scores)
    return _interval(scores, found, *_symmetric(found))


def over_seeds(differences: list[float]) -> tuple[float, float]:
    """Student's interval of the mean of paired differences, one per seed; (−∞, ∞) for a single one."""
    n = len(differences)
    if n < 2:
        return -math.inf, math.inf
    half = float(stats.t.ppf(0.5 + LEVEL / 2, n - 1) * np.std(differences, ddof=1) / math.sqrt(n))
    mean = float(np.mean(differences))
    return mean - half, mean + half


def _interval(scores: Scores, found: _Moments, low: float, high: float) -> Interval:
    return Interval(
        mean=found.mean,
        low=low,
        high=high,
        n=scores.rows,
        seeds=len(scores.exact),
        se_rows=found.se_rows,
        se_seeds=found.se_seeds,
    )


def _moments(scores: Scores) -> _Moments:
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
    return _Moments(float(scores.exact.mean()), math.sqrt(variance), quantile, math.sqrt(rows), math.sqrt(seeds))


def _symmetric(found: _Moments) -> tuple[float, float]:
    half = found.quantile * found.error
    return found.mean - half, found.mean + half


def _of_error(found: _Moments, rows: int) -> tuple[float, float]:
    """The interval of an error ≥ 0, symmetric on a log scale."""
    if not found.mean > 0:
        return _symmetric(found)
    factor = math.exp(min(700.0, found.quantile * found.error / found.mean))
    return found.mean / factor, found.mean * factor


def _of_ratio(found: _Moments, rows: int) -> tuple[float, float]:
    """The interval of one minus a ratio of errors, at most 1."""
    if not found.mean < 1:
        return _symmetric(found)
    factor = math.exp(min(700.0, found.quantile * found.error / (1.0 - found.mean)))
    return 1.0 - (1.0 - found.mean) * factor, 1.0 - (1.0 - found.mean) / factor


def _of_share(found: _Moments, rows: int) -> tuple[float, float]:
    """Wilson's interval of a share, at the number of rows that would give this standard error."""
    mean, quantile = found.mean, found.quantile
    if not 0.0 <= mean <= 1.0:
        return _symmetric(found)
    n = mean * (1.0 - mean) / found.error**2 if found.error > 0 else float(rows)
    squared = quantile**2 / n if n > 0 else 0.0
    centre = (mean + squared / 2) / (1 + squared)
    half = math.sqrt(squared * mean * (1 - mean) + squared**2 / 4) / (1 + squared)
    return max(0.0, centre - half), min(1.0, centre + half)


BOUNDS: Mapping[Metric, Callable[[_Moments, int], tuple[float, float]]] = {
    "accuracy": _of_share,
    "hamming_accuracy": _of_share,
    "balanced_accuracy": _of_share,
    "precision": _of_share,
    "recall": _of_share,
    "specificity": _of_share,
    "f1": _of_share,
    "f1_macro": _of_share,
    "f1_micro": _of_share,
    "roc_auc": _of_share,
    "pr_auc": _of_share,
    "log_loss": _of_error,
    "rmse": _of_error,
    "mae": _of_error,
    "pinball": _of_error,
    "r2": _of_ratio,
}
"""Functions from a score's moments and number of rows to the ends of its interval."""
