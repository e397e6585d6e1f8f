"""Pruning of a cohort compared with Optuna's pruners, trial by trial."""

from __future__ import annotations

from typing import Any

import numpy as np
import optuna
import pytest
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner

from service.pruning import HyperbandJudge, Standing, make_judge
from service.spec import StudySpec


def spec(pruner: Any, metric: str, **parts: Any) -> StudySpec:
    raw = {"data": {"dataset": "diabetes"}, "pruner": pruner, "metric": metric, **parts}
    return StudySpec.model_validate(raw).resolved("regression")


def by_optuna(
    pruner: BasePruner, finished: list[list[float]], running: np.ndarray, epoch: int, sign: float, name: str | None = None
) -> set[int]:
    """Which of ``running`` (trials, epochs) Optuna prunes at ``epoch`` when all others have reported before.

    Each trial is judged in a separate study, in which it reports last.
    """
    pruned = set()
    for last in range(len(running)):
        study = optuna.create_study(study_name=name, direction="minimize" if sign > 0 else "maximize", pruner=pruner)
        for curve in finished:
            values = dict(enumerate(curve, start=1))
            study.add_trial(optuna.trial.create_trial(value=curve[-1], intermediate_values=values))
        order = [number for number in range(len(running)) if number != last] + [last]
        trials = [study.ask() for _ in running]
        for number in order:
            trial = trials[number]
            should_prune = False
            for step in range(1, epoch + 1):
                trial.report(float(running[number][step - 1]), step)
                should_prune = trial.should_prune()
            if number == last and should_prune:
                pruned.add(number)
    return pruned


def standings(running: np.ndarray, epoch: int, sign: float) -> list[Standing]:
    return [
        Standing(
            number, epoch, float(curve[epoch - 1]), float(sign * np.nanmin(sign * curve[:epoch])), curve[:epoch].tolist()
        )
        for number, curve in enumerate(running)
    ]


@pytest.mark.parametrize(("metric", "sign"), [("rmse", 1.0), ("r2", -1.0)])
@pytest.mark.parametrize("seed", range(5))
def test_median_is_optunas(metric: str, sign: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    finished = [list(rng.normal(size=int(rng.integers(2, 8)))) for _ in range(9)]
    running = rng.normal(size=(12, 6))
    running[3, 2] = np.nan
    judge = make_judge(spec({"name": "median", "startup_trials": 5, "warmup_epochs": 2}, metric))
    for number, curve in enumerate(finished):
        judge.remember(100 + number, curve, complete=True, judged_here=False)
    reference = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=3)
    for epoch in (1, 3, 6):
        assert judge.judge(standings(running, epoch, sign)) == by_optuna(reference, finished, running, epoch, sign)


def test_median_waits_for_enough_completed_trials() -> None:
    judge = make_judge(spec({"name": "median", "startup_trials": 2, "warmup_epochs": 0}, "rmse"))
    bad = [Standing(0, 1, 9.0, 9.0)]
    judge.remember(7, [1.0], complete=True, judged_here=True)
    judge.remember(7, [1.0], complete=False, judged_here=True)
    assert judge.judge(bad) == set()
    judge.remember(7, [1.0], complete=True, judged_here=True)
    assert judge.judge(bad) == {0}


@pytest.mark.parametrize(("metric", "sign"), [("rmse", 1.0), ("r2", -1.0)])
@pytest.mark.parametrize("seed", range(5))
def test_the_first_rung_is_optunas(metric: str, sign: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    running = rng.normal(size=(int(rng.integers(2, 20)), 2))
    judge = make_judge(spec({"name": "successive_halving", "min_epochs": 2, "reduction_factor": 3}, metric))
    assert judge.judge(standings(running, 1, sign)) == set()
    reference = optuna.pruners.SuccessiveHalvingPruner(min_resource=2, reduction_factor=3)
    assert judge.judge(standings(running, 2, sign)) == by_optuna(reference, [], running, 2, sign)


def test_synchronous_halving_keeps_a_third_at_every_rung() -> None:
    judge = make_judge(spec({"name": "successive_halving", "min_epochs": 1, "reduction_factor": 3}, "rmse"))
    alive = set(range(81))
    kept = []
    for epoch in range(1, 10):
        alive -= judge.judge([Standing(n, epoch, float(n), float(n)) for n in sorted(alive)])
        kept.append(len(alive))
    assert kept == [27, 27, 9, 9, 9, 9, 9, 9, 3]
    assert alive == {0, 1, 2}


def test_trials_of_other_workers_compete() -> None:
    judge = make_judge(spec({"name": "successive_halving", "min_epochs": 1, "reduction_factor": 2}, "rmse"))
    for number, value in enumerate((1.0, 2.0, 3.0)):
        judge.remember(number, [value], complete=False, judged_here=False)
    assert judge.judge([Standing(9, 1, 2.5, 2.5)]) == {9}
    assert judge.judge([Standing(8, 1, 1.5, 1.5)]) == set()


@pytest.mark.parametrize(("metric", "sign"), [("rmse", 1.0), ("r2", -1.0)])
@pytest.mark.parametrize("percentile", [0.0, 10.0, 25.0, 80.0])
def test_percentile_is_optunas(metric: str, sign: float, percentile: float) -> None:
    rng = np.random.default_rng(int(percentile))
    finished = [list(rng.normal(size=int(rng.integers(2, 8)))) for _ in range(11)]
    finished[2][1] = np.nan
    running = rng.normal(size=(12, 6))
    running[3, 2] = np.nan
    judge = make_judge(
        spec({"name": "percentile", "percentile": percentile, "startup_trials": 5, "warmup_epochs": 1}, metric)
    )
    for number, curve in enumerate(finished):
        judge.remember(100 + number, curve, complete=True, judged_here=False)
    reference = optuna.pruners.PercentilePruner(percentile, n_startup_trials=5, n_warmup_steps=2)
    for epoch in (1, 2, 4, 6):
        assert judge.judge(standings(running, epoch, sign)) == by_optuna(reference, finished, running, epoch, sign)


@pytest.mark.parametrize(("metric", "sign", "seed"), [("rmse", 1.0, 0), ("r2", -1.0, 7)])
def test_the_first_rung_of_every_bracket_is_optunas(metric: str, sign: float, seed: int) -> None:
    running = np.random.default_rng(seed).normal(size=(30, 9))
    made = spec({"name": "hyperband", "min_epochs": 1, "reduction_factor": 3}, metric, seed=seed, budget={"epochs": 9})
    reference = optuna.pruners.HyperbandPruner(min_resource=1, max_resource=9, reduction_factor=3)
    brackets = set()
    for bracket, epoch in enumerate((1, 3, 9)):
        judge = make_judge(made)
        assert isinstance(judge, HyperbandJudge)
        members = {number for number in range(len(running)) if judge.bracket(number) == bracket}
        brackets.add(len(members))
        expected = by_optuna(reference, [], running, epoch, sign, name=f"{seed}")
        assert judge.judge(standings(running, epoch, sign)) & members == expected & members
        assert 0 < len(expected & members) < len(members)
    assert len(brackets) == 3


def test_brackets_are_optunas() -> None:
    study = optuna.create_study(study_name="5")
    for epochs, least, factor in ((100, 5, 3), (81, 1, 3), (64, 1, 2), (7, 7, 4)):
        judge = make_judge(
            spec(
                {"name": "hyperband", "min_epochs": least, "reduction_factor": factor},
                "rmse",
                seed=5,
                budget={"epochs": epochs},
            )
        )
        reference = optuna.pruners.HyperbandPruner(least, epochs, factor)
        reference._try_initialization(study)
        trials = [optuna.trial.create_trial(value=0.0) for _ in range(200)]
        for number, trial in enumerate(trials):
            trial.number = number
        assert isinstance(judge, HyperbandJudge)
        assert [judge.bracket(number) for number in range(200)] == [
            reference._get_bracket_id(study, each) for each in trials
        ]


@pytest.mark.parametrize(("lower", "upper"), [(-0.5, 0.5), (None, 0.0), (0.0, None)])
def test_threshold_is_optunas(lower: float | None, upper: float | None) -> None:
    running = np.random.default_rng(1).normal(size=(15, 4))
    running[4, 3] = np.nan
    judge = make_judge(spec({"name": "threshold", "lower": lower, "upper": upper, "warmup_epochs": 1}, "r2"))
    reference = optuna.pruners.ThresholdPruner(lower, upper, n_warmup_steps=2)
    for epoch in (1, 2, 4):
        assert judge.judge(standings(running, epoch, -1.0)) == by_optuna(reference, [], running, epoch, -1.0)


@pytest.mark.filterwarnings("ignore:All-NaN")  # by Optuna
@pytest.mark.parametrize("wrapped", [None, "median"])
@pytest.mark.parametrize(("metric", "sign"), [("rmse", 1.0), ("r2", -1.0)])
@pytest.mark.parametrize("patience", [0, 2])
def test_patient_is_optunas(metric: str, sign: float, patience: int, wrapped: str | None) -> None:
    rng = np.random.default_rng(patience)
    finished = [list(rng.normal(size=8) - 1.5 * sign) for _ in range(6)]
    running = rng.normal(size=(14, 8))
    running[0, 0], running[1, 7], running[2, 4:] = np.nan, np.nan, np.nan
    inner = {"name": wrapped, "startup_trials": 1, "warmup_epochs": 0} if wrapped else None
    judge = make_judge(spec({"name": "patient", "pruner": inner, "patience": patience, "min_delta": 0.1}, metric))
    for number, curve in enumerate(finished):
        judge.remember(100 + number, curve, complete=True, judged_here=False)
    median = optuna.pruners.MedianPruner(n_startup_trials=1, n_warmup_steps=0)
    with pytest.warns(ExperimentalWarning):
        reference = optuna.pruners.PatientPruner(median if wrapped else None, patience, 0.1)
    some = 0
    for epoch in (1, 4, 7):
        expected = by_optuna(reference, finished, running, epoch, sign)
        assert judge.judge(standings(running, epoch, sign)) == expected
        some += len(expected)
    assert some


def test_a_trial_with_only_nan_lately_is_not_stalled() -> None:
    judge = make_judge(spec({"name": "patient", "patience": 1}, "rmse"))
    assert judge.judge([Standing(0, 4, float("nan"), 1.0, [1.0, 1.0, float("nan"), float("nan")])]) == set()


def test_none_prunes_nothing() -> None:
    judge = make_judge(spec("none", "rmse"))
    judge.remember(7, [0.0], complete=True, judged_here=True)
    assert judge.judge([Standing(0, 1, 1e9, 1e9)]) == set()
