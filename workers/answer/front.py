"""The Pareto front of a search with several objectives: complete trials that no other trial dominates.

Values are those of the search, of one seed each, so a front is as optimistic as the best value of a search. Independent of
training.
"""

from __future__ import annotations

from collections.abc import Sequence

from service.result import FrontTrial
from service.search import recipe
from service.search.front import ranks
from service.spec import StudySpec
from service.store.records import TrialRecord


def ranked(spec: StudySpec, trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Complete trials, best first: front by front, within one by the study's metric, equal ones by number."""
    places = ranks(spec, [_values(trial) for trial in trials])
    order = sorted(zip(places, trials, strict=True), key=lambda pair: (pair[0], *_by_metric(spec, pair[1])))
    return [trial for _, trial in order]


def front(spec: StudySpec, trials: Sequence[TrialRecord]) -> tuple[FrontTrial, ...]:
    """The trials of the front, the best by the metric first."""
    places = ranks(spec, [_values(trial) for trial in trials])
    first = [trial for place, trial in zip(places, trials, strict=True) if place == 0]
    return tuple(_front_trial(spec, trial) for trial in sorted(first, key=lambda trial: _by_metric(spec, trial)))


def _front_trial(spec: StudySpec, trial: TrialRecord) -> FrontTrial:
    assert spec.metric is not None, "a stored spec is resolved"
    setting = recipe(spec, trial.params)
    values = dict(zip((spec.metric, *spec.also), _values(trial), strict=True))
    return FrontTrial(trial=trial.number, values=values, recipe=setting.said(), regularizers=setting.regularizers())


def _values(trial: TrialRecord) -> tuple[float, ...]:
    assert trial.value is not None, "a complete trial has a value"
    return (trial.value, *trial.also.values())


def _by_metric(spec: StudySpec, trial: TrialRecord) -> tuple[float, int]:
    return spec.sign * (trial.value or 0.0), trial.number
