"""TPE for batches: the densities are fitted once per batch, and all trials of the batch are drawn from them.

Optuna's sampler fits densities to the whole history for every parameter of every trial. Here a batch shares one fit, and
the bad trials are subsampled to a fixed number, so that the cost of an ask does not grow with the study. Univariate;
running trials count as bad ones (constant liar), which suits batches. With several objectives the good trials are those of
the first fronts, and from the last of these fronts the trials that contribute most to the hypervolume, all with equal
weight, as in Optuna.

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
from service.search.evidence import Evidence
from service.search.parzen import Density, density

CANDIDATES = 24
DRAWN_AT_ONCE = 16
"""Maximum number of values of a parameter that are drawn together, in one array operation."""
MAX_BAD = 500
"""Maximum number of bad trials; evenly spaced in their order, so that old and new ones are included."""


class BatchTpeSampler(BaseSampler):
    """Independent TPE over a snapshot of the study. A trial asked outside a batch (see `begin_batch`) is a batch of one.

    Args:
        startup_trials: Values are drawn at random until this number of trials has finished.
        seed: Seed of the generators.
        evidence: Trials of earlier studies, which count as finished ones before all of this study's.
    """

    def __init__(self, *, startup_trials: int, seed: int, evidence: Evidence | None = None) -> None:
        self._startup_trials = startup_trials
        self._evidence = evidence or Evidence()
        self._rng = np.random.default_rng(seed)
        self._random = RandomSampler(seed=seed)
        self._good: list[dict[str, Any]] | None = None
        """The parameters of the good trials, oldest first; None while values are drawn at random."""
        self._bad: list[dict[str, Any]] = []
        self._fits: dict[str, tuple[BaseDistribution, Density, Density]] = {}
        self._drawn: dict[str, list[float]] = {}
        self._left = 0
        """Trials of the batch not yet asked."""
        self._at_once = 1
        self._several = False

    def begin_batch(self, study: Study, n: int) -> None:
        """Take a snapshot of the study for the next ``n`` trials, and divide its trials into good and bad ones."""
        trials = study.get_trials(deepcopy=False)
        finished = [trial for trial in trials if trial.state in _FINISHED]
        self._fits, self._drawn, self._left = {}, {}, n
        self._several = len(study.directions) > 1
        self._at_once = math.ceil(n / math.ceil(n / DRAWN_AT_ONCE)) if n else 1
        self._good = None
        if len(finished) + len(self._evidence) < max(1, self._startup_trials):
            return
        good = good_trials(study, finished)
        own = [trial.params for trial in sorted(good, key=lambda trial: trial.number)]
        self._good = [*map(dict, self._evidence.good), *own]
        count_as_bad = {*_FINISHED, TrialState.RUNNING}
        chosen = {trial.number for trial in good}
        bad = [trial for trial in trials if trial.state in count_as_bad and trial.number not in chosen]
        known = [*map(dict, self._evidence.bad), *(trial.params for trial in bad)]
        self._bad = [known[i] for i in _spread(len(known), MAX_BAD)]

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Remove the trial from its batch, or begin a batch of one."""
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
        """Of `CANDIDATES` values drawn from the good density, the one with the highest ratio of good to bad density."""
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
        """Values for several trials: of `CANDIDATES` each, the one with the highest ratio of the densities."""
        _, good, bad = self._fits[name]
        drawn = good.draw(self._rng, CANDIDATES * self._at_once)
        gain = (good.log_pdf(drawn) - bad.log_pdf(drawn)).reshape(self._at_once, CANDIDATES)
        values = drawn.reshape(self._at_once, CANDIDATES)
        best: list[float] = values[np.arange(self._at_once), gain.argmax(1)].tolist()
        return best

    def _fit(self, name: str, kind: BaseDistribution) -> tuple[BaseDistribution, Density, Density]:
        assert self._good is not None, "densities are fitted only after the startup trials"
        return kind, _density(self._good, name, kind, equal=self._several), _density(self._bad, name, kind)


_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


def good_trials(study: Study, finished: list[FrozenTrial]) -> list[FrozenTrial]:
    """The good finished trials: a tenth of them, with one objective at most 25, as by Optuna's default gammas."""
    n_good = int(np.ceil(0.1 * len(finished)))
    if len(study.directions) > 1:
        return split_multi_objective(finished, study, n_good)[0]
    direction = study.direction
    return sorted(finished, key=lambda trial: _rank(trial, direction))[: min(25, n_good)]


def _rank(trial: FrozenTrial, direction: StudyDirection) -> tuple[int, float, float]:
    """Sort key: complete trials by value, then pruned ones by last step (descending) and last value."""
    sign = 1.0 if direction is StudyDirection.MINIMIZE else -1.0
    if trial.state is TrialState.COMPLETE:
        reached = trial.value
        return (0, sign * reached if reached is not None else np.inf, 0.0)
    if not trial.intermediate_values:
        return (2, 0.0, 0.0)
    step, value = max(trial.intermediate_values.items())
    return (1, -step, np.inf if np.isnan(value) else sign * value)


def _density(known: list[dict[str, Any]], name: str, kind: BaseDistribution, *, equal: bool = False) -> Density:
    """The density of a parameter over the trials that have it."""
    values = [kind.to_internal_repr(params[name]) for params in known if name in params]
    return density(np.asarray(values, dtype=float), kind, equal=equal)


def _spread(n: int, most: int) -> NDArray[np.int64]:
    """At most ``most`` of the indices 0 … n−1, evenly spaced."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(np.int64)) if n else np.zeros(0, dtype=np.int64)
