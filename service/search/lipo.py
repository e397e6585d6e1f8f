"""LIPO: global optimization of Lipschitz functions, with an estimated constant.

The function's upper bound at a point is the minimum of value + k·distance over all trials. The point can be the maximum
only if this bound reaches the best value so far. Points are drawn uniformly until one satisfies the condition; some are
drawn without it, to explore. k is the smallest power of 1 + α that is consistent with all pairs of trials.

Distances are Euclidean over numeric parameters scaled to [0, 1] (after the logarithm if the range is logarithmic); two
different choices are at distance 1. Shapes: `n` trials, `c` candidates, `d` coordinates.
Reference: Malherbe and Vayatis, "Global optimization of Lipschitz functions", ICML 2017 (Algorithm 2, AdaLIPO).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from service.optuna_private import SearchSpaceTransform
from service.search.front import only_direction

CANDIDATES = 512
EXPLORATION = 0.1
"""Probability with which a point is drawn without the condition."""
ALPHA = 0.01

Floats = NDArray[np.float64]


class LipoSampler(BaseSampler):
    """AdaLIPO over the parameters that all trials of the study have; others are drawn uniformly."""

    def __init__(self, *, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._random = RandomSampler(seed=seed)
        self._intersection = IntersectionSearchSpace()
        self._space: dict[str, BaseDistribution] = {}
        self._forget()

    def _forget(self) -> None:
        """Discard all trials: their coordinates are those of one search space."""
        self._points: Floats = np.zeros((0, 0))
        self._values: Floats = np.zeros(0)
        self._seen: set[int] = set()
        self._slope = 0.0

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The parameters that all trials so far have."""
        only_direction(study)
        found = self._intersection.calculate(study)
        return {name: kind for name, kind in found.items() if not kind.single()}

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        """A point that may be the best one or, to explore, any point."""
        if not search_space:
            return {}
        if search_space != self._space:
            self._space = dict(search_space)
            self._forget()
        transform = SearchSpaceTransform(search_space, transform_0_1=True)
        self._learn(study, transform)
        drawn = self._drawn(transform, search_space)
        if len(self._values) < 2 or self._rng.random() < EXPLORATION:
            return transform.untransform(drawn[0])
        return transform.untransform(drawn[self._choose(_scaled(drawn, transform))])

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A uniform value."""
        only_direction(study)
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def _learn(self, study: Study, transform: SearchSpaceTransform) -> None:
        """Add the trials completed since the last call, and update the largest slope between two trials."""
        sign = -1.0 if only_direction(study) is StudyDirection.MINIMIZE else 1.0
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            if trial.number in self._seen or trial.value is None or not math.isfinite(trial.value):
                continue
            self._seen.add(trial.number)
            point, value = _scaled(transform.transform(trial.params)[None], transform), sign * trial.value
            if len(self._values):
                distance = np.linalg.norm(self._points - point, axis=1)
                apart = distance > 0
                slopes = np.abs(value - self._values[apart]) / distance[apart]
                self._slope = max(self._slope, float(slopes.max(initial=0.0)))
                point = np.concatenate([self._points, point])
            self._points, self._values = point, np.append(self._values, value)

    def _choose(self, candidates: Floats) -> int:
        """Index of the first candidate that may be the best point; if there is none, of the one with the highest bound."""
        from scipy.spatial.distance import cdist  # noqa: PLC0415  # slow to import, and needed only here

        constant = (1 + ALPHA) ** math.ceil(math.log(self._slope, 1 + ALPHA)) if self._slope > 0 else 0.0
        bound = (self._values + constant * cdist(candidates, self._points)).min(axis=1)
        possible = np.flatnonzero(bound >= self._values.max())
        return int(possible[0]) if len(possible) else int(bound.argmax())

    def _drawn(self, transform: SearchSpaceTransform, space: dict[str, BaseDistribution]) -> Floats:
        """(c, d) uniform points, with choices one-hot encoded."""
        drawn = self._rng.random((CANDIDATES, len(transform.bounds)))
        for columns, kind in zip(transform.column_to_encoded_columns, space.values(), strict=True):
            if isinstance(kind, CategoricalDistribution):
                chosen = self._rng.integers(len(columns), size=CANDIDATES)
                drawn[:, columns] = np.eye(len(columns))[chosen]
        return drawn


def _scaled(points: Floats, transform: SearchSpaceTransform) -> Floats:
    """(c, d) coordinates in which two choices, which differ in two one-hot columns, are at distance 1."""
    columns = transform.column_to_encoded_columns
    factor = np.ones(points.shape[1])
    for each in columns:
        factor[each] = 1.0 if len(each) == 1 else math.sqrt(0.5)
    scaled: Floats = points * factor
    return scaled
