"""Searches with several objectives: fronts, and samplers beside Optuna's own on the same history."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
import pytest
from numpy.typing import NDArray
from optuna.samplers._tpe.sampler import _split_trials
from optuna.trial import TrialState

from service.search import Search
from service.search.front import ranks
from service.search.parameters import Params
from service.search.tpe import BatchTpeSampler, good_trials
from service.spec import OFF, StudySpec
from service.spec.samplers import OF_SEVERAL_OBJECTIVES

SPACE = {"preset": OFF, "lr": {"low": 1e-4, "high": 1.0, "log": True}, "dropout": {"low": 0.0, "high": 0.9}}


def spec(sampler: Any = "tpe", also: Sequence[str] = ("gap",), **parts: Any) -> StudySpec:
    raw = {"data": {"dataset": "diabetes"}, "sampler": sampler, "space": SPACE, "also": also, **parts}
    return StudySpec.model_validate(raw).resolved("regression")


def dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    """Of losses, by the definition."""
    return all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))


def fronts(losses: NDArray[np.float64]) -> list[int]:
    """The front of every row, by peeling off what nothing left dominates."""
    found, left = [0] * len(losses), set(range(len(losses)))
    for front in range(len(losses)):
        first = {i for i in left if not any(dominates(losses[j], losses[i]) for j in left)}
        for i in first:
            found[i] = front
        left -= first
    return found


@pytest.mark.parametrize("also", [("gap",), ("r2",), ("gap", "r2")])
def test_fronts_are_those_of_the_definition(also: Sequence[str]) -> None:
    rng = np.random.default_rng(4)
    values = rng.integers(0, 9, size=(60, 1 + len(also))).astype(float)  # integers, so that some are equal
    signs = np.array([1.0, *(-1.0 if name == "r2" else 1.0 for name in also)])
    assert ranks(spec(also=also), values.tolist()).tolist() == fronts(values * signs)
    assert ranks(spec(also=also), []).tolist() == []


def test_with_one_objective_the_rank_is_the_place_by_value() -> None:
    assert ranks(spec(also=(), metric="r2"), [[0.1], [0.9], [0.5], [0.9]]).tolist() == [2, 0, 1, 0]


def losses(params: Params) -> tuple[float, float]:
    """Both are least at dropout 0.3; the learning rate trades one off against the other."""
    place = np.log10(params["lr"]) / 4 + 1
    off = (params["dropout"] - 0.3) ** 2
    return float(place**2 + off), float((place - 1) ** 2 + off)


def searched(made: StudySpec, seed: int, trials: int, batch: int = 8) -> tuple[Search, NDArray[np.float64]]:
    """The search, and the losses in order of numbers."""
    search = Search(made, seed=seed)
    found: list[tuple[float, float]] = []
    for start in range(0, trials, batch):
        proposals = search.propose(batch)
        search.adopt(range(start, start + batch))
        for number, proposal in enumerate(proposals, start=start):
            drawn = search.planned(number) or proposal
            found.append(losses(drawn[0]))
            search.tell(number, "complete", found[-1][0], 5, drawn, [found[-1][1]])
    return search, np.array(found)


@pytest.mark.parametrize("sampler", OF_SEVERAL_OBJECTIVES)
def test_every_sampler_searches_with_several_objectives(sampler: str) -> None:
    small: dict[str, Any] = {"gp": {"startup_trials": 8}, "nsga2": {"population": 8}, "tpe": {"startup_trials": 8}}
    made = spec({"name": sampler, **small.get(sampler, {})})
    search, found = searched(made, 0, 24 if sampler != "gp" else 16)
    drawn = [trial for trial in search._study.trials if trial.state is TrialState.COMPLETE]
    assert [tuple(trial.values) for trial in drawn] == [tuple(each) for each in found.tolist()]
    front = [tuple(trial.values) for trial in search._study.best_trials]
    expected = {tuple(each) for each, rank in zip(found.tolist(), fronts(found), strict=True) if rank == 0}
    assert set(front) == expected


@pytest.mark.parametrize("trials", [16, 60, 300])
def test_tpe_divides_a_history_as_optuna_does(trials: int) -> None:
    search, _ = searched(spec("random"), 1, trials)
    study = search._study
    finished = [trial for trial in study.trials if trial.state is TrialState.COMPLETE]
    theirs, _ = _split_trials(study, finished, optuna.samplers._tpe.sampler.default_gamma_multiobjective(len(finished)))
    assert [trial.number for trial in good_trials(study, finished)] == [trial.number for trial in theirs]


def test_tpe_draws_from_the_densities_that_optuna_fits() -> None:
    search, _ = searched(spec("random"), 1, 400)
    study = search._study
    ours = BatchTpeSampler(startup_trials=16, seed=0)
    ours.begin_batch(study, 1)
    kind = study.trials[0].distributions["lr"]
    _, good, _ = ours._fit("lr", kind)
    stock = optuna.samplers.TPESampler(seed=0, multivariate=True)
    below, _ = _split_trials(study, study.trials, 40)
    theirs = stock._build_parzen_estimator(study, {"lr": kind}, below, handle_below=True)
    at = np.geomspace(1e-4, 1.0, 50)
    np.testing.assert_allclose(good.log_pdf(at), theirs.log_pdf({"lr": at}), rtol=1e-12)


@pytest.mark.parametrize("sampler", [{"name": "tpe"}, {"name": "nsga2", "population": 16}])
def test_a_search_comes_closer_to_the_front_than_chance(sampler: dict[str, Any]) -> None:
    """On the front both losses' distance from dropout 0.3 is 0: a + b there is 1 − 2·p·(1 − p) for a place p."""

    def late(of: Any) -> float:
        away = []
        for seed in range(3):
            found = searched(spec(of), seed, 160)[1][-32:]
            # sqrt(a − off) + sqrt(b − off) = 1 gives off, the distance from the front, by a bisection.
            low, high = np.zeros(len(found)), found.min(1)
            for _ in range(60):
                middle = (low + high) / 2
                over = np.sqrt(found - middle[:, None]).sum(1) > 1
                low, high = np.where(over, middle, low), np.where(over, high, middle)
            away.append(low.mean())
        return float(np.mean(away))

    assert late(sampler) < 0.6 * late({"name": "random"})


def test_pruned_trials_count_with_the_values_they_had_and_failed_ones_do_not() -> None:
    search = Search(spec({"name": "tpe", "startup_trials": 1}), seed=0)
    for number, state in enumerate(("complete", "pruned", "fail")):
        proposal = search.propose(1)[0]
        search.adopt([number])
        search.tell(number, state, None if state == "fail" else 1.0, 3, proposal, [] if state == "fail" else [2.0])
    assert [trial.state.name for trial in search._study.trials] == ["COMPLETE", "COMPLETE", "FAIL"]
    assert search.propose(2)
