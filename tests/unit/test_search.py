"""Proposals from a spec: conditions, `off`, recipes, reproducibility."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import StudyDirection

from service.search import Search, distributions, recipe
from service.search.tpe import _rank
from service.spec import StudySpec


def spec(**parts: Any) -> StudySpec:
    return StudySpec.model_validate({"data": {"dataset": "diabetes"}, **parts}).resolved("regression")


def test_settings_become_distributions_once_their_conditions_hold() -> None:
    space = {
        "preset": "off",
        "l1": {"low": 1e-4, "high": 0.1, "log": True, "off": True},
        "lr_schedule": ["step", "constant"],
    }
    made = spec(space=space)
    assert distributions(made, {}) == {
        "use_l1": CategoricalDistribution((True, False)),
        "lr_schedule": CategoricalDistribution(("step", "constant")),
    }
    assert {"step_every": IntDistribution(5, 40), "step_gamma": FloatDistribution(0.1, 0.9)}.items() <= distributions(
        made, {"lr_schedule": "step"}
    ).items()
    drawn = distributions(made, {"use_l1": True, "lr_schedule": "constant"})
    assert set(drawn) == {"use_l1", "l1", "lr_schedule"}
    assert drawn["l1"] == FloatDistribution(1e-4, 0.1, log=True)


def test_off_becomes_the_neutral_value() -> None:
    made = spec(space={"preset": "off", "l1": {"low": 1e-4, "high": 0.1, "off": True}, "clip_norm": ["off", 1.0]})
    assert recipe(made, {"use_l1": False, "clip_norm": "off"}).number("l1") == 0.0
    on = recipe(made, {"use_l1": True, "l1": 0.01, "clip_norm": 1.0})
    assert (on.number("l1"), on.number("clip_norm")) == (0.01, 1.0)


def test_one_rate_per_layer() -> None:
    made = spec(model={"depth": [1, 3]}, space={"preset": "off", "dropout": {"low": 0.1, "high": 0.5, "per_layer": True}})
    names = set(distributions(made, {"depth": 3}))
    assert {"dropout_1", "dropout_2", "dropout_3"} <= names
    params = {"depth": 3, "dropout_1": 0.1, "dropout_2": 0.2, "dropout_3": 0.3}
    assert recipe(made, params)["dropout"] == (0.1, 0.2, 0.3)
    fixed = spec(space={"preset": "off", "dropout": {"per_layer": [0.4, 0.2]}})
    assert recipe(fixed, {})["dropout"] == (0.4, 0.2)


def drawn(seed: int, rounds: int = 4) -> list[dict[str, Any]]:
    search = Search(spec(), seed=seed)
    found: list[dict[str, Any]] = []
    for _ in range(rounds):
        batch = search.propose(10)
        search.adopt(range(len(found), len(found) + 10))
        for place, proposal in enumerate(batch):
            params = proposal[0]
            found.append(params)
            search.tell(len(found) - 1, "complete", float(params["lr"]) + place * 1e-6, 5, proposal)
    return found


def test_a_search_repeats_exactly() -> None:
    assert drawn(3) == drawn(3)
    assert drawn(3) != drawn(4)


def test_every_proposal_is_complete_and_within_its_domain() -> None:
    made = spec(space={"lr_schedule": ["step", "plateau", "constant"]})
    search = Search(made)
    for params, kinds in search.propose(50):
        assert params.keys() == kinds.keys()
        assert all(kind._contains(kind.to_internal_repr(params[name])) for name, kind in kinds.items())
        assert ("step_gamma" in params) == (params["lr_schedule"] == "step")
        assert ("l1" in params) == params["use_l1"]
        recipe(made, params)


def test_tpe_learns_and_random_does_not() -> None:
    """On a sphere over two settings: the mean of the last quarter, averaged over seeds."""
    made = spec(space={"preset": "off", "lr": {"low": 1e-4, "high": 1.0, "log": True}, "dropout": {"low": 0.0, "high": 0.9}})
    assert _mean_of_last(made, 5) < 0.5 * _mean_of_last(made.model_copy(update={"sampler": _random()}), 5)


def _random() -> Any:
    return spec(sampler="random").sampler


def _mean_of_last(made: StudySpec, seeds: int) -> float:
    total = 0.0
    for seed in range(seeds):
        search = Search(made, seed=seed)
        losses: list[float] = []
        for start in range(0, 160, 16):
            batch = search.propose(16)
            search.adopt(range(start, start + 16))
            for place, (params, kinds) in enumerate(batch):
                loss = (params["dropout"] - 0.3) ** 2 + (params["lr"] ** 0.25 - 0.4) ** 2
                losses.append(loss)
                search.tell(start + place, "complete", loss, 3, (params, kinds))
        total += sum(losses[-40:]) / 40
    return total / seeds


def test_trials_of_others_are_learned_from() -> None:
    search = Search(spec(), seed=1)
    (proposal,) = Search(spec(), seed=2).propose(1)
    search.tell(17, "complete", 1.0, 5, proposal)
    search.tell(18, "pruned", 2.0, 5, proposal)
    search.tell(19, "fail", None, 0, proposal)
    states = [trial.state.name for trial in search._study.trials]
    assert states == ["COMPLETE", "PRUNED", "FAIL"]


def test_proposals_that_were_not_used_leave_no_running_trial() -> None:
    search = Search(spec(space={"preset": "default"}))
    search.propose(5)
    search.adopt([0, 1])
    states = [trial.state.name for trial in search._study.trials]
    assert states == ["RUNNING", "RUNNING", "FAIL", "FAIL", "FAIL"]


@pytest.mark.parametrize("direction", [StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE])
def test_good_trials_depend_on_the_direction(direction: StudyDirection) -> None:
    minimize = direction is StudyDirection.MINIMIZE
    trials = [optuna.trial.create_trial(value=value) for value in (1.0, 2.0)]
    first = min(trials, key=lambda trial: _rank(trial, direction))
    assert first.value == (1.0 if minimize else 2.0)
