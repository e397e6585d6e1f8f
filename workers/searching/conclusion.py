"""When a search concludes before its budget is spent: what its trials predict for those left. Independent of the store.

The values beyond a high threshold are taken as exponentially distributed (peaks over threshold, exponential tail). With k
of the last n trials beyond threshold u, b further trials bring a Poisson number of such values, b·k/n expected, and with d
the distance from u to the best value so far, the best value is expected to improve by

    σ · Ein(Λ),   Λ = (b·k/n) · exp(−d/σ),   Ein(x) = ∫₀ˣ (1 − e⁻ᵗ)/t dt = E₁(x) + ln x + γ.

σ is estimated by the mean excess; the result is multiplied by the ratio of σ's 95 % upper limit, 2kσ/χ²(2k), to σ, so that a
search concludes too late rather than too early.
Only the later half of the trials counts, as a search improves while it learns. The improvement is compared with the
standard error of the best validation score: less than a fraction of it can't be distinguished from zero on these rows.

References: Pickands, Annals of Statistics 3 (1975); Davison and Smith, "Models for exceedances over high thresholds",
JRSS B 52 (1990). The aim is that of Makarova et al., "Automatic termination for hyperparameter optimization", AutoML (2022),
without its Gaussian process.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import special, stats

from service.spec import Conclude
from workers.scoring.scores import mean_over_folds, score
from workers.stack.device_data import DeviceData
from workers.stack.run import Protocol, Run
from workers.stack.runner import StackRunner

TAIL_SHARE = 0.2
FEWEST_IN_TAIL = 5
_LEVEL = 0.95


class Conclusion:
    """Decides whether one worker's search concludes. Not thread-safe."""

    def __init__(self, rule: Conclude, protocol: Protocol, data: DeviceData) -> None:
        self._rule = rule
        self._protocol = protocol
        self._data = data
        self._best = math.inf
        self._standard_error = math.inf
        self._judged = 0

    def learn(self, run: Run, runner: StackRunner) -> None:
        """Note the standard error over validation rows of the best run completed here, while it is on its lanes."""
        value = self._protocol.sign * run.best_value
        if run.ending not in ("converged", "epochs") or value >= self._best:
            return
        data, scores = self._data, []
        rows = [data.valid[fold][data.mask[fold] > 0] for fold, _ in run.fold_seeds]
        for (fold, _), on, out in zip(run.fold_seeds, rows, runner.predict(run, rows), strict=True):
            scale = float(data.scale[fold])
            metric = self._protocol.metric
            scores.append(score(data.task, metric, out, data.y[on], scale, data.positive, data.quantile))
        self._best = value
        self._standard_error = float(np.sqrt((mean_over_folds(scores).jumps ** 2).sum()))

    def reason(self, values: Sequence[float | None], left: int) -> str | None:
        """The reason why the search ends, in words; None while it continues.

        Args:
            values: Values of all finished trials in the order in which they were told; None for pruned or failed ones.
            left: Trials of the budget that have not been started.
        """
        if len(values) < self._rule.after or len(values) == self._judged or left <= 0:
            return None
        self._judged = len(values)
        signed = [None if value is None else self._protocol.sign * value for value in values]
        improvement = expected_improvement(signed, left)
        if improvement >= self._rule.tolerance * self._standard_error:
            return None
        return (
            f"concluded: the {left} trials left are expected to improve the best value by {improvement:.2g}, less than "
            f"{self._rule.tolerance:g} times its standard error {self._standard_error:.2g} on validation rows"
        )


def expected_improvement(values: Sequence[float | None], left: int) -> float:
    """Expected improvement of the best value by ``left`` further trials; infinite if there are too few values.

    Args:
        values: Values of all finished trials in the order in which they were told, lower is better; None for pruned or
            failed ones.
        left: Number of further trials.
    """
    recent = values[len(values) // 2 :]
    good = sorted(value for value in recent if value is not None and math.isfinite(value))
    k = max(FEWEST_IN_TAIL, math.ceil(TAIL_SHARE * len(recent)))
    if len(good) <= k:
        return math.inf
    threshold, best = good[k], min(value for value in values if value is not None)
    scale = sum(threshold - value for value in good[:k]) / k
    if scale == 0.0:
        return 0.0
    upper = scale * 2 * k / float(stats.chi2.ppf(1 - _LEVEL, 2 * k))
    beyond = left * k / len(recent) * math.exp(-(threshold - best) / scale)
    return upper * _ein(beyond)


def _ein(x: float) -> float:
    """The entire exponential integral."""
    return x if x < 1e-8 else float(special.exp1(x)) + math.log(x) + float(np.euler_gamma)
