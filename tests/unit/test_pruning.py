"""The judgement of a whole cohort against Optuna's own pruners, trial by trial."""

from __future__ import annotations

from typing import Any

import numpy as np
import optuna
import pytest
from optuna.pruners import BasePruner

from service.pruning import Standing, make_judge
from service.spec import StudySpec


def spec(pruner: Any, metric: str) -> StudySpec:
    raw = {"data": {"dataset": "diabetes"}, "pruner": pruner, "metric": metric}
    return StudySpec.model_validate(raw).resolved("regression")


def by_optuna(pruner: BasePruner, finished: list[list[float]], running: np.ndarray, epoch: int, sign: float) -> set[int]:
    """Which of ``running`` (trials, epochs) Optuna prunes at ``epoch``, each judged after all others had reported.

    Optuna's judgement is asked for every trial in a study of its own, in which that trial reports last.
    """
    pruned = set()
    for last in range(len(running)):
        study = optuna.create_study(direction="minimize" if sign > 0 else "maximize", pruner=pruner)
        for curve in finished:
            values = dict(enumerate(curve, start=1))
            study.add_trial(optuna.trial.create_trial(value=curve[-1], intermediate_values=values))
        order = [number for number in range(len(running)) if number != last] + [last]
        for number in order:
            trial = study.ask()
            verdict = False
            for step in range(1, epoch + 1):
                trial.report(float(running[number][step - 1]), step)
                verdict = trial.should_prune()
            if number == last and verdict:
                pruned.add(number)
    return pruned


def standings(running: np.ndarray, epoch: int, sign: float) -> list[Standing]:
    return [
        Standing(number, epoch, float(curve[epoch - 1]), float(sign * np.nanmin(sign * curve[:epoch])))
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
    for curve in finished:
        judge.remember(curve, complete=True, judged_here=False)
    theirs = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=3)
    for epoch in (1, 3, 6):
        assert judge.judge(standings(running, epoch, sign)) == by_optuna(theirs, finished, running, epoch, sign)


def test_median_waits_for_enough_completed_trials() -> None:
    judge = make_judge(spec({"name": "median", "startup_trials": 2, "warmup_epochs": 0}, "rmse"))
    bad = [Standing(0, 1, 9.0, 9.0)]
    judge.remember([1.0], complete=True, judged_here=True)
    judge.remember([1.0], complete=False, judged_here=True)
    assert judge.judge(bad) == set()
    judge.remember([1.0], complete=True, judged_here=True)
    assert judge.judge(bad) == {0}


@pytest.mark.parametrize(("metric", "sign"), [("rmse", 1.0), ("r2", -1.0)])
@pytest.mark.parametrize("seed", range(5))
def test_the_first_rung_is_optunas(metric: str, sign: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    running = rng.normal(size=(int(rng.integers(2, 20)), 2))
    judge = make_judge(spec({"name": "successive_halving", "min_epochs": 2, "reduction_factor": 3}, metric))
    assert judge.judge(standings(running, 1, sign)) == set()
    theirs = optuna.pruners.SuccessiveHalvingPruner(min_resource=2, reduction_factor=3)
    assert judge.judge(standings(running, 2, sign)) == by_optuna(theirs, [], running, 2, sign)


def test_halving_in_lock_step_keeps_a_third_at_every_rung() -> None:
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
    for value in (1.0, 2.0, 3.0):
        judge.remember([value], complete=False, judged_here=False)
    assert judge.judge([Standing(9, 1, 2.5, 2.5)]) == {9}
    assert judge.judge([Standing(8, 1, 1.5, 1.5)]) == set()


def test_none_prunes_nothing() -> None:
    judge = make_judge(spec("none", "rmse"))
    judge.remember([0.0], complete=True, judged_here=True)
    assert judge.judge([Standing(0, 1, 1e9, 1e9)]) == set()
