"""TPE for batches: the densities are fitted once per batch, and every trial of the batch is drawn from them.

Optuna's sampler fits anew for every parameter of every trial, over the whole history. Here a batch shares one fit, and
the worse group is thinned to a fixed number of trials, so that an ask costs the same after ten thousand trials as after
one. Univariate, with running trials counted as bad ones (constant liar), which is what batches do best with. With several
objectives the good ones are the first fronts, and of the last of these the trials that add most to the hypervolume, all of
equal weight, as in Optuna.

References: Bergstra et al., "Algorithms for hyper-parameter optimization" (2011); Watanabe, arXiv:2304.11127 (2023);
Ozaki et al., "Multiobjective tree-structured Parzen estimator", JAIR 73 (2022).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from service.optuna_private import split_multi_objective
from service.search.parzen import Density, density

CANDIDATES = 24
DRAWN_AT_ONCE = 16
"""At most so many values of a parameter are drawn together, as one operation on arrays."""
MAX_BAD = 500
"""Trials of the worse group that are kept; drawn evenly over their order, so old and new ones both count."""


class BatchTpeSampler(BaseSampler):
    """Independent TPE over a snapshot of the study. A trial asked outside of a batch (`begin_batch`) is one by itself."""

    def __init__(self, *, startup_trials: int, seed: int) -> None:
        self._startup_trials = startup_trials
        self._rng = np.random.default_rng(seed)
        self._random = RandomSampler(seed=seed)
        self._good: list[dict[str, Any]] | None = None
        """The parameters of the good trials, oldest first; None while all is drawn at random."""
        self._bad: list[dict[str, Any]] = []
        self._fits: dict[str, tuple[BaseDistribution, Density, Density]] = {}
        self._drawn: dict[str, list[float]] = {}
        self._left = 0
        """Trials of the batch that are still to be asked."""
        self._at_once = 1
        self._several = False

    def begin_batch(self, study: Study, n: int) -> None:
        """Take a snapshot of the study for ``n`` trials to come, and divide its trials in good and bad."""
        trials = study.get_trials(deepcopy=False)
        finished = [trial for trial in trials if trial.state in _FINISHED]
        self._fits, self._drawn, self._left = {}, {}, n
        self._several = len(study.directions) > 1
        self._at_once = math.ceil(n / math.ceil(n / DRAWN_AT_ONCE)) if n else 1
        self._good = None
        if len(finished) < max(1, self._startup_trials):
            return
        good = good_trials(study, finished)
        self._good = [trial.params for trial in sorted(good, key=lambda trial: trial.number)]
        count_as_bad = {*_FINISHED, TrialState.RUNNING}
        chosen = {trial.number for trial in good}
        bad = [trial for trial in trials if trial.state in count_as_bad and trial.number not in chosen]
        self._bad = [bad[i].params for i in _spread(len(bad), MAX_BAD)]

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Count the trial off its batch."""
        if not self._left:
            self.begin_batch(study, 1)
        self._left -= 1

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Nothing is sampled jointly."""
        return {}

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        """Nothing is sampled jointly."""
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The best of some candidates drawn from the good density, by the ratio of good to bad."""
        if self._good is None:
            return self._random.sample_independent(study, trial, param_name, param_distribution)
        fitted = self._fits.get(param_name)
        if fitted is None or fitted[0] != param_distribution:
            self._fits[param_name] = self._fit(param_name, param_distribution)
            self._drawn[param_name] = []
        if not self._drawn[param_name]:
            self._drawn[param_name] = self._draw(param_name)
        return param_distribution.to_external_repr(self._drawn[param_name].pop())

    def _draw(self, name: str) -> list[float]:
        """Values for some trials: of CANDIDATES each, the one with the highest ratio of the densities."""
        _, good, bad = self._fits[name]
        drawn = good.draw(self._rng, CANDIDATES * self._at_once)
        gain = (good.log_pdf(drawn) - bad.log_pdf(drawn)).reshape(self._at_once, CANDIDATES)
        values = drawn.reshape(self._at_once, CANDIDATES)
        best: list[float] = values[np.arange(self._at_once), gain.argmax(1)].tolist()
        return best

    def _fit(self, name: str, kind: BaseDistribution) -> tuple[BaseDistribution, Density, Density]:
        assert self._good is not None, "only then is anything fitted"
        return kind, _density(self._good, name, kind, equal=self._several), _density(self._bad, name, kind)


_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


def good_trials(study: Study, finished: list[FrozenTrial]) -> list[FrozenTrial]:
    """The good ones among finished trials: a tenth, of one objective at most 25. These are Optuna's default gammas."""
    n_good = int(np.ceil(0.1 * len(finished)))
    if len(study.directions) > 1:
        return split_multi_objective(finished, study, n_good)[0]
    direction = study.direction
    return sorted(finished, key=lambda trial: _rank(trial, direction))[: min(25, n_good)]


def _rank(trial: FrozenTrial, direction: StudyDirection) -> tuple[int, float, float]:
    """Complete trials by value, then pruned ones: those that came further first, then by their last value."""
    sign = 1.0 if direction is StudyDirection.MINIMIZE else -1.0
    if trial.state is TrialState.COMPLETE:
        reached = trial.value
        return (0, sign * reached if reached is not None else np.inf, 0.0)
    if not trial.intermediate_values:
        return (2, 0.0, 0.0)
    step, value = max(trial.intermediate_values.items())
    return (1, -step, np.inf if np.isnan(value) else sign * value)


def _density(known: list[dict[str, Any]], name: str, kind: BaseDistribution, *, equal: bool = False) -> Density:
    """The density of a parameter in the parameters of some trials."""
    values = [kind.to_internal_repr(params[name]) for params in known if name in params]
    return density(np.asarray(values, dtype=float), kind, equal=equal)


def _spread(n: int, most: int) -> NDArray[np.int64]:
    """At most ``most`` of the indices 0 … n−1, evenly spread."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(np.int64)) if n else np.zeros(0, dtype=np.int64)
