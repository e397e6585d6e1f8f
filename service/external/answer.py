"""From the runs of a program to an answer: finalists over seeds, the winner, its baseline and ablation. Pure.

The steps follow from the runs so far: first the best trials' settings over seeds; then, of the winner, the settings without
any regularizer and without each one. Test scores come with the runs, and only those of winner and baseline are read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from service.result import Ablation, Spread
from service.result.external import ExternalFront, ExternalResult, ExternalSetting, SeedInterval
from service.search import values
from service.search.front import ranks
from service.spec import Value
from service.spec.external import ExternalSpec
from service.store.records import FinalRun, TrialRecord

UNREGULARIZED = "unregularized"
_LEVEL = 0.95
Params = Mapping[str, Value]


def plan_finals(spec: ExternalSpec, trials: Sequence[TrialRecord], runs: Sequence[FinalRun]) -> list[FinalRun]:
    """The runs to add once all of ``runs`` have ended; none when the answer is complete.

    Args:
        spec: The study's.
        trials: Its complete trials.
        runs: The final runs so far.
    """
    if not spec.finals:
        return []
    if not runs:
        finalists = _finalists(spec, trials)
        return _over_seeds(spec, 0, [(f"trial {trial.number}", "finalist", trial.number, own) for trial, own in finalists])
    winner = _winner(spec, runs)
    if winner is None or any(run.role != "finalist" for run in runs):
        return []
    params = next(run.params for run in runs if run.name == winner)
    regularizers = regularizers_in(spec, params)
    others: list[_Planned] = []
    if regularizers:
        others.append((UNREGULARIZED, "baseline", None, without(spec, params, regularizers)))
    if len(regularizers) > 1:
        others += [(f"without {name}", "ablation", None, without(spec, params, [name])) for name in regularizers]
    return _over_seeds(spec, len(runs), others)


def regularizers_in(spec: ExternalSpec, params: Params) -> tuple[str, ...]:
    """The regularizers that are on."""
    return tuple(
        name
        for name, value in params.items()
        if (setting := spec.settings[name]).regularizer and value not in (setting.neutral, "off")
    )


def without(spec: ExternalSpec, params: Params, names: Sequence[str]) -> dict[str, Value]:
    """The settings with some regularizers off."""
    return {name: spec.settings[name].neutral if name in names else value for name, value in params.items()}


def conclude(spec: ExternalSpec, trials: Sequence[TrialRecord], runs: Sequence[FinalRun]) -> ExternalResult | None:
    """The result; None if no run of any finalist was completed."""
    winner = _winner(spec, runs)
    if not spec.finals:
        return _of_search(spec, trials)
    if winner is None:
        return None
    scores, tests = _by_seed(runs), _by_seed(runs, test=True)
    named = {run.name for run in runs}
    best = _setting(spec, runs, (scores, tests), winner, winner)
    baseline = _setting(spec, runs, (scores, tests), UNREGULARIZED, winner) if UNREGULARIZED in named else None
    finalists = [name for name in scores if name.startswith("trial ") and name != winner]
    others = tuple(_setting(spec, runs, (scores, tests), name, winner) for name in finalists)
    gain = _difference(spec, scores, winner, UNREGULARIZED)
    test_gain = _difference(spec, tests, winner, UNREGULARIZED)
    found = next(trial.value for trial in trials if trial.number == best.trial)
    assert best.valid is not None, "the winner has scores"
    assert found is not None, "a complete trial has a value"
    return ExternalResult(
        executor="external",
        metric=spec.metric,
        direction=spec.objectives[spec.metric],
        verdict=_verdict(spec, best, baseline, gain, test_gain),
        winner=best,
        baseline=baseline,
        others=tuple(sorted(others, key=lambda each: spec.sign * each.valid.mean if each.valid else np.inf)),
        gain=gain,
        test_gain=test_gain,
        ties=tuple(each.name for each in others if each.behind_winner and not each.behind_winner.low > 0),
        optimism=spec.sign * (best.valid.mean - found),
        seeds=spec.budget.seeds,
        ablation=_ablation(spec, scores, best),
        front=_front(spec, trials),
    )


_Role = Literal["finalist", "baseline", "ablation"]
_Planned = tuple[str, _Role, int | None, Params]
_Scores = Mapping[str, Mapping[int, float]]
"""By setting and index of its seed."""


def _finalists(spec: ExternalSpec, trials: Sequence[TrialRecord]) -> list[tuple[TrialRecord, Params]]:
    """The best complete trials with different settings; of equal ones the earlier."""
    best = sorted((each for each in trials if each.value is not None), key=lambda each: (_signed(spec, each), each.number))
    chosen: list[tuple[TrialRecord, Params]] = []
    for trial in best:
        own = values(spec, trial.params)
        if all(own != other for _, other in chosen):
            chosen.append((trial, own))
        if len(chosen) == spec.budget.finalists:
            break
    return chosen


def _signed(spec: ExternalSpec, trial: TrialRecord) -> float:
    assert trial.value is not None, "a complete trial has a value"
    return spec.sign * trial.value


def _over_seeds(spec: ExternalSpec, first: int, settings: Sequence[_Planned]) -> list[FinalRun]:
    seeds = spec.budget.seeds
    return [
        FinalRun(first + place * seeds + index, name, role, trial, index, params)
        for place, (name, role, trial, params) in enumerate(settings)
        for index in range(seeds)
    ]


def _by_seed(runs: Sequence[FinalRun], *, test: bool = False) -> _Scores:
    found: dict[str, dict[int, float]] = {}
    for run in runs:
        value = run.test if test else run.value
        if run.state == "complete" and value is not None:
            found.setdefault(run.name, {})[run.seed_index] = value
    return found


def _winner(spec: ExternalSpec, runs: Sequence[FinalRun]) -> str | None:
    """The finalist with the best mean over seeds; one of which a run failed wins only where all have failed ones."""
    names = {run.name: None for run in runs if run.role == "finalist"}
    scores = {name: own for name, own in _by_seed(runs).items() if name in names}
    most = max(map(len, scores.values()), default=0)
    whole = {name: own for name, own in scores.items() if len(own) == most}
    return min(whole, key=lambda name: spec.sign * float(np.mean([*whole[name].values()])), default=None)


def _setting(
    spec: ExternalSpec, runs: Sequence[FinalRun], told: tuple[_Scores, _Scores], name: str, winner: str
) -> ExternalSetting:
    """A setting with what was ``told`` of all: on validation and on test data."""
    own = [run for run in runs if run.name == name]
    scores, tests = told
    read = name in (winner, UNREGULARIZED)
    return ExternalSetting(
        name=name,
        role="finalist" if own[0].role == "finalist" else "baseline",
        trial=own[0].trial,
        params=own[0].params,
        regularizers=regularizers_in(spec, own[0].params),
        valid=_spread(scores.get(name, {})),
        test=_spread(tests.get(name, {})) if read else None,
        behind_winner=None if name == winner else _difference(spec, scores, winner, name),
        failed=tuple(dict.fromkeys(run.reason or "for no reason told" for run in own if run.state == "fail")),
    )


def _spread(scores: Mapping[int, float]) -> Spread | None:
    if not scores:
        return None
    given = np.array([*scores.values()])
    return Spread(mean=float(given.mean()), std=float(given.std(ddof=1)) if len(given) > 1 else 0.0, n=len(given))


def _difference(spec: ExternalSpec, scores: _Scores, winner: str, other: str) -> SeedInterval | None:
    """How much worse ``other`` is than the winner, seed by seed; None where there is no common seed."""
    common = sorted(scores.get(winner, {}).keys() & scores.get(other, {}).keys())
    if not common:
        return None
    return interval(np.array([spec.sign * (scores[other][index] - scores[winner][index]) for index in common]))


def interval(differences: NDArray[np.float64]) -> SeedInterval:
    """Student's t interval of the mean of paired differences (n,)."""
    n, mean = len(differences), float(differences.mean())
    if n < 2:
        return SeedInterval(mean=mean, low=np.nan, high=np.nan, n=n)
    from scipy.special import stdtrit  # noqa: PLC0415  # slow to import

    half = float(stdtrit(n - 1, (1 + _LEVEL) / 2) * differences.std(ddof=1) / np.sqrt(n))
    return SeedInterval(mean=mean, low=mean - half, high=mean + half, n=n)


def _ablation(spec: ExternalSpec, scores: _Scores, winner: ExternalSetting) -> tuple[Ablation, ...]:
    """Of each regularizer of the winner; where it has one only, being without it is being unregularized."""
    found = []
    for name in winner.regularizers:
        other = f"without {name}" if len(winner.regularizers) > 1 else UNREGULARIZED
        change, valid = _difference(spec, scores, winner.name, other), _spread(scores.get(other, {}))
        if change is not None and valid is not None:
            bounds = {"low": change.low, "high": change.high}
            found.append(Ablation(without=name, valid=valid, change=change.mean, n=change.n, **bounds))
    return tuple(sorted(found, key=lambda each: -each.change))


def _front(spec: ExternalSpec, trials: Sequence[TrialRecord]) -> tuple[ExternalFront, ...] | None:
    if not spec.also:
        return None
    whole = [each for each in trials if each.value is not None and len(each.also) == len(spec.also)]
    points = [[float(each.value or 0.0), *each.also.values()] for each in whole]
    best = [each for each, rank in zip(whole, ranks(spec, points), strict=True) if rank == 0] if whole else []
    return tuple(
        ExternalFront(
            trial=each.number, params=values(spec, each.params), values={spec.metric: each.value or 0.0, **each.also}
        )
        for each in sorted(best, key=lambda each: _signed(spec, each))
    )


def _of_search(spec: ExternalSpec, trials: Sequence[TrialRecord]) -> ExternalResult | None:
    """The result of a study without final runs: its best trial."""
    best = next(iter(_finalists(spec, trials)), None)
    if best is None:
        return None
    trial, params = best
    assert trial.value is not None, "a complete trial has a value"
    setting = ExternalSetting(
        name=f"trial {trial.number}",
        role="trial",
        trial=trial.number,
        params=params,
        regularizers=regularizers_in(spec, params),
        valid=Spread(mean=trial.value, std=0.0, n=1),
        test=None,
        behind_winner=None,
        failed=(),
    )
    verdict = f"Trial {trial.number} has the best {spec.metric} of one seed, {trial.value:.4g}; it was not run again."
    return ExternalResult(
        executor="external",
        metric=spec.metric,
        direction=spec.objectives[spec.metric],
        verdict=verdict,
        winner=setting,
        baseline=None,
        others=(),
        gain=None,
        test_gain=None,
        ties=(),
        optimism=np.nan,
        seeds=1,
        ablation=(),
        front=_front(spec, trials),
    )


def _verdict(
    spec: ExternalSpec,
    winner: ExternalSetting,
    baseline: ExternalSetting | None,
    gain: SeedInterval | None,
    test_gain: SeedInterval | None,
) -> str:
    assert winner.valid is not None, "the winner has scores"
    own, other, told, where = winner.valid, baseline.valid if baseline else None, gain, ""
    if baseline is not None and test_gain is not None and winner.test is not None:
        own, other, told, where = winner.test, baseline.test, test_gain, " on test data"
    start = f"{winner.name.capitalize()} reaches a {spec.metric} of {own.mean:.4g}{where} over {own.n} seeds"
    if baseline is None:
        return f"{start}; it has no regularizer on, so there is nothing to compare it with."
    if other is None or told is None:
        return f"{start}; no run without regularization was completed."
    both = f"{start}, and {other.mean:.4g} without regularization"
    if np.isnan(told.low):
        return f"{both}: a gain of {told.mean:.3g} with one seed."
    about = f"{told.mean:.3g} (95 % interval over seeds {told.low:.3g} to {told.high:.3g})"
    if told.low > 0:
        return f"{both}: regularization gains {about}."
    if told.high < 0:
        return f"{both}: regularization loses {about}."
    return f"{both}: the difference of {about} is not clear."
