"""BOBYQA around the best trial so far: a quadratic model in a trust region over that trial's numeric parameters.

TPE samples the first trials. Then the choices of the best trial are kept and its numbers refined; once this has converged,
TPE continues until it finds a better trial to refine. As the solver calls its objective, it can't be asked for points: for
each batch it is rerun from the start and receives the values known so far, and the first points without a value are the
batch. Pending values are assumed to equal the best value, so that several points can be proposed at once.

Reference: Cartis, Fiala, Marteau and Roberts, "Improving the Flexibility and Robustness of Model-Based Derivative-Free
Optimization Solvers", ACM TOMS 45 (2019), on Powell's BOBYQA (2009).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from service.optuna_private import SearchSpaceTransform
from service.search.front import only_direction
from service.search.tpe import BatchTpeSampler

RADIUS, LAST_RADIUS = 0.1, 1e-2
"""First and last radius of the trust region, as a fraction of every range."""
DISCARDED = "discarded"
"""Attribute of a proposal that did not become a trial; its state contains no information about its point."""

Key = tuple[float, ...]
Floats = NDArray[np.float64]


class _EnoughError(Exception):
    """The solver has requested as many points as the batch needs."""


@dataclass
class _Refinement:
    """One local search: its centre, its numeric parameters, and the numbers of the trials at its points."""

    centre: FrozenTrial
    transform: SearchSpaceTransform
    start: Floats
    trials: dict[Key, int] = field(default_factory=dict)

    @classmethod
    def around(cls, centre: FrozenTrial) -> _Refinement | None:
        """A search around a trial; None if the trial has no numeric parameter to refine."""
        kinds = {
            name: kind
            for name, kind in centre.distributions.items()
            if not isinstance(kind, CategoricalDistribution) and not kind.single()
        }
        if not kinds:
            return None
        transform = SearchSpaceTransform(kinds, transform_0_1=True)
        return cls(centre, transform, transform.transform({name: centre.params[name] for name in kinds}))


class BobyqaSampler(BaseSampler):
    """TPE, then BOBYQA. A trial asked outside a batch (see `begin_batch`) is a batch of one.

    Args:
        startup_trials: Number of finished trials before the first refinement, and before TPE's first fit.
        seed: Seed of TPE's generators.
    """

    def __init__(self, *, startup_trials: int, seed: int) -> None:
        self._startup_trials = startup_trials
        self._tpe = BatchTpeSampler(startup_trials=startup_trials, seed=seed)
        self._refinement: _Refinement | None = None
        self._refined: int | None = None
        """Number of the best trial when the last refinement converged."""
        self._points: list[Floats] = []
        self._left = 0
        """Trials of the batch not yet asked."""

    def begin_batch(self, study: Study, n: int) -> None:
        """Compute the points of the next ``n`` trials; TPE samples those for which there is no point.

        Raises:
            ValueError: The study has several objectives.
        """
        only_direction(study)
        self._tpe.begin_batch(study, n)
        self._points, self._left = [], n
        known = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        complete = [trial for trial in known if trial.state is TrialState.COMPLETE]
        if len(known) < self._startup_trials or not complete:
            return
        best = min(complete, key=lambda trial: _loss(study, trial))
        if self._refinement is None and best.number != self._refined:
            self._refinement = _Refinement.around(best)
        if self._refinement is not None:
            self._points, converged = _asked(study, self._refinement, n)
            if converged:
                # The best trial may be one of this refinement; it needs no other.
                self._refinement, self._refined = None, best.number

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Remove the trial from its batch, or begin a batch of one."""
        if not self._left:
            self.begin_batch(study, 1)
        self._left -= 1

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All parameters of the centre while points remain; empty otherwise."""
        only_direction(study)
        return dict(self._refinement.centre.distributions) if self._refinement and self._points else {}

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        """The next point: numbers from the solver, choices from the centre. Without a point, values from TPE."""
        if search_space and not self._points:
            self.begin_batch(study, 1)
        if self._refinement is None or not self._points:
            return {name: self.sample_independent(study, trial, name, kind) for name, kind in search_space.items()}
        point = self._points.pop(0)
        self._refinement.trials[_key(point)] = trial.number
        found = {**self._refinement.centre.params, **self._refinement.transform.untransform(point)}
        return {name: found[name] for name in search_space}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A value from TPE."""
        only_direction(study)
        return self._tpe.sample_independent(study, trial, param_name, param_distribution)


def _asked(study: Study, search: _Refinement, n: int) -> tuple[list[Floats], bool]:
    """Up to ``n`` points that the solver needs next, and whether it has converged."""
    import pybobyqa  # noqa: PLC0415  # imports pandas, and only this sampler needs it

    trials = study.get_trials(deepcopy=False)
    values = {_key(search.start): _loss(study, search.centre)}
    pending: set[Key] = set()
    for key, number in search.trials.items():
        trial = trials[number]
        if trial.state is TrialState.FAIL and DISCARDED not in trial.system_attrs:
            values[key] = np.inf
        elif trial.state.is_finished() and trial.intermediate_values:
            values[key] = _loss(study, trial)
        elif trial.state is TrialState.RUNNING:
            pending.add(key)
    finite = [value for value in values.values() if np.isfinite(value)]
    best, worst = min(finite), max(finite)
    wanted: list[Floats] = []

    def objective(x: Floats) -> float:
        key = _key(x)
        if key in values:
            return float(min(values[key], worst))
        if key not in pending:
            pending.add(key)
            wanted.append(x.copy())
            if len(wanted) == n:
                raise _EnoughError
        return float(best)

    bounds = (np.zeros_like(search.start), np.ones_like(search.start))
    try:
        pybobyqa.solve(objective, search.start, bounds=bounds, rhobeg=RADIUS, rhoend=LAST_RADIUS, do_logging=False)
    except _EnoughError:
        return wanted, False
    return wanted, not wanted and not any(trials[number].state is TrialState.RUNNING for number in search.trials.values())


def _loss(study: Study, trial: FrozenTrial) -> float:
    """The value of a trial, or the last intermediate value of a pruned one, with the sign for minimization."""
    value = trial.value if trial.value is not None else max(trial.intermediate_values.items())[1]
    return value if only_direction(study) is StudyDirection.MINIMIZE else -value


def _key(point: Floats) -> Key:
    return tuple(np.round(point, 12).tolist())
