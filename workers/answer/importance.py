"""Which settings mattered over the whole study: importances over its complete trials, and marginal effects.

A setting is one axis here, whatever parameters it has in Optuna: a searched off (`use_l1`), a value on its own scale (`l1`),
or one value per layer. On a numeric axis 0 is off, or a condition that does not hold, and on-values range from 0.1 to 1 on
the scale on which they were searched.

References: fANOVA, Hutter et al., ICML (2014); PED-ANOVA, Watanabe et al., IJCAI (2023), the importance for being among
the best tenth; both as in `optuna.importance`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, assert_never

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator

from service.result import ChoiceBin, Effect, Importance, RangeBin
from service.spec import Choices, Range, Scalar, StudySpec
from service.store.records import TrialRecord

FEWEST_TRIALS = 20
MOST_TRIALS = 500
TREES = 16
"""As many as in the authors' implementation of fANOVA; Optuna's 64 take seconds for the same order of the settings."""
BINS = 5
_LOWEST_ON = 0.1
_INACTIVE = "off"

Searched = Range | Choices
"""Domains that a value can be drawn from."""
Values = NDArray[np.float64]
"""One per trial."""


def importance(spec: StudySpec, trials: Sequence[TrialRecord]) -> Importance:
    """Importances by setting, largest first, by fANOVA and PED-ANOVA; or None for both, with the reason.

    Args:
        spec: The study's spec.
        trials: Its complete trials, in any order; of more than `MOST_TRIALS`, that many are used, evenly spaced by number.
    """
    searched = searched_settings(spec, trials)
    usable = [trial for trial in trials if trial.value is not None and math.isfinite(trial.value)]
    usable = _thinned(sorted(usable, key=lambda trial: trial.number))
    reason = _too_little(len(usable), len({trial.value for trial in usable}), len(searched))
    if reason is not None:
        return Importance(fanova=None, ped_anova=None, trials=len(usable), reason=reason)
    study = _flat_study(spec, searched, usable)
    fanova = _shares(study, FanovaImportanceEvaluator(n_trees=TREES, seed=0))
    ped_anova = _shares(study, PedAnovaImportanceEvaluator())
    return Importance(fanova=fanova, ped_anova=ped_anova, trials=len(usable), reason=None)


def effects(spec: StudySpec, trials: Sequence[TrialRecord]) -> tuple[Effect, ...]:
    """Mean value of complete trials by setting: for every choice, or for off and up to five quantile bins of other values.

    Each bin has its ends (or its choice), the number of its trials, their mean and its standard error. The trials were
    chosen by a search, so this is not a controlled experiment in one setting.
    """
    values = np.array([trial.value for trial in trials], dtype=np.float64)
    found = []
    for name, domain in searched_settings(spec, trials).items():
        drawn = [_drawn(name, domain, trial.params) for trial in trials]
        bins = _choices(domain, drawn, values) if isinstance(domain, Choices) else _quantiles(drawn, values)
        found.append(Effect(setting=name, bins=tuple(each for each in bins if each is not None)))
    return tuple(found)


def searched_settings(spec: StudySpec, trials: Sequence[TrialRecord]) -> dict[str, Searched]:
    """Settings with more than one value among the trials; off, or a condition that does not hold, counts as a value."""
    several = {name: domain for name, domain in spec.domains.items() if isinstance(domain, Range | Choices)}
    drawn = {name: {_drawn(name, domain, trial.params) for trial in trials} for name, domain in several.items()}
    return {name: domain for name, domain in several.items() if len(drawn[name]) > 1}


def _too_little(trials: int, values: int, settings: int) -> str | None:
    if settings == 0:
        return "no setting was searched"
    if trials < FEWEST_TRIALS:
        return f"{trials} complete trials are too few; {FEWEST_TRIALS} are needed"
    return "all complete trials have the same value" if values < 2 else None


def _thinned(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    places = np.unique(np.linspace(0, len(trials) - 1, min(len(trials), MOST_TRIALS)).round().astype(int))
    return [trials[place] for place in places]


def _flat_study(spec: StudySpec, searched: Mapping[str, Searched], trials: Sequence[TrialRecord]) -> optuna.Study:
    """A study in memory with one parameter per setting."""
    study = optuna.create_study(direction=spec.direction)
    kinds: dict[str, BaseDistribution] = {name: _axis(domain) for name, domain in searched.items()}
    flat = []
    for trial in trials:
        params = {name: _position(domain, _drawn(name, domain, trial.params)) for name, domain in searched.items()}
        flat.append(optuna.trial.create_trial(params=params, distributions=kinds, value=trial.value))
    study.add_trials(flat)
    return study


def _shares(study: optuna.Study, evaluator: Any) -> dict[str, float]:
    found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(share) for name, share in found.items() if math.isfinite(share)}


def _axis(domain: Searched) -> BaseDistribution:
    match domain:
        case Choices():
            return CategoricalDistribution(tuple(dict.fromkeys((*map(str, domain.choices), _INACTIVE))))
        case Range():
            return FloatDistribution(0.0, 1.0)
        case _:
            assert_never(domain)


def _drawn(name: str, domain: Searched, params: Mapping[str, Any]) -> Any:
    """A trial's value of a setting: a choice, a number (the mean over layers), or None if the setting was off."""
    if isinstance(domain, Range) and domain.per_layer:
        layers = [float(value) for key, value in params.items() if key.removeprefix(f"{name}_").isdigit()]
        return float(np.mean(layers)) if layers else None
    return params.get(name)


def _position(domain: Searched, drawn: Any) -> Any:
    if isinstance(domain, Choices):
        return _INACTIVE if drawn is None else str(drawn)
    if drawn is None:
        return 0.0
    low, high, value = (math.log(each) if domain.log else float(each) for each in (domain.low, domain.high, drawn))
    return min(1.0, max(_LOWEST_ON, _LOWEST_ON + (1.0 - _LOWEST_ON) * (value - low) / (high - low)))


def _choices(domain: Choices, drawn: Sequence[Any], values: Values) -> list[ChoiceBin | None]:
    names: list[tuple[Scalar, str]] = [(choice, str(choice)) for choice in domain.choices]
    if all(text != _INACTIVE for _, text in names):
        names.append((_INACTIVE, _INACTIVE))
    held = np.array([_INACTIVE if value is None else str(value) for value in drawn])
    return [_choice_bin(choice, values[held == text]) for choice, text in names]


def _quantiles(drawn: Sequence[Any], values: Values) -> list[ChoiceBin | RangeBin | None]:
    numbers = np.array([math.nan if value is None else float(value) for value in drawn])
    on = numbers[~np.isnan(numbers)]
    bins: list[ChoiceBin | RangeBin | None] = [_choice_bin(_INACTIVE, values[np.isnan(numbers)])]
    if not len(on):
        return bins
    edges = np.unique(np.quantile(on, np.linspace(0.0, 1.0, min(BINS, len(on)) + 1)))
    which = np.clip(np.searchsorted(edges, numbers, side="right") - 1, 0, max(0, len(edges) - 2))
    for place in range(max(1, len(edges) - 1)):
        low, high = float(edges[place]), float(edges[min(place + 1, len(edges) - 1)])
        bins.append(_range_bin(low, high, values[(which == place) & ~np.isnan(numbers)]))
    return bins


def _choice_bin(choice: Scalar, values: Values) -> ChoiceBin | None:
    """None without a trial."""
    if not len(values):
        return None
    return ChoiceBin(choice=choice, n=len(values), mean=float(values.mean()), standard_error=_standard_error(values))


def _range_bin(low: float, high: float, values: Values) -> RangeBin | None:
    """None without a trial."""
    if not len(values):
        return None
    return RangeBin(low=low, high=high, n=len(values), mean=float(values.mean()), standard_error=_standard_error(values))


def _standard_error(values: Values) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan
