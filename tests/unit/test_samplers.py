"""Samplers on functions with a known optimum: better than random, in batches, with conditions, reproducible."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from optuna._transform import _SearchSpaceTransform
from scipy.stats import qmc

from service.errors import TrialError
from service.search import Search, lipo
from service.search.parameters import Params, whole
from service.search.planned import grid
from service.spec import SETTINGS, StudySpec

SPACE = {
    "preset": "off",
    "lr": {"low": 1e-4, "high": 1.0, "log": True},
    "dropout": {"low": 0.0, "high": 0.9, "off": True},
    "weight_decay": {"low": 0.01, "high": 100.0, "log": True, "off": True},
    "lr_schedule": ["constant", "step"],
    "step_every": {"low": 1, "high": 40},
    "step_gamma": 0.5,
}


def spec(sampler: Any, space: dict[str, Any] | None = None, **parts: Any) -> StudySpec:
    raw = {"data": {"dataset": "diabetes"}, "sampler": sampler, "space": SPACE if space is None else space, **parts}
    return StudySpec.model_validate(raw).resolved("regression")


def loss(params: Params) -> float:
    """The minimum, 0, is at lr = 0.01, dropout = 0.3, weight decay off, steps every 10 epochs."""
    found = (np.log10(params["lr"]) / 4 + 0.5) ** 2
    found += (params["dropout"] - 0.3) ** 2 if params["use_dropout"] else 0.1
    found += 0.05 + 0.01 * np.log10(params["weight_decay"]) ** 2 if params["use_weight_decay"] else 0.0
    found += (params["step_every"] / 40 - 0.25) ** 2 if params["lr_schedule"] == "step" else 0.1
    return float(found)


def searched(
    made: StudySpec, seed: int, trials: int, batch: int = 8, value: Callable[[Params], float] = loss
) -> tuple[list[float], list[dict[str, Any]]]:
    """Losses and parameters by trial number; one trial in ten is pruned, one in twenty fails."""
    search = Search(made, seed=seed)
    losses: list[float] = []
    everything: list[dict[str, Any]] = []
    for start in range(0, trials, batch):
        proposals = search.propose(batch)
        search.adopt(range(start, start + batch))
        for number, proposal in enumerate(proposals, start=start):
            params, kinds = search.planned(number) or proposal
            assert params.keys() == kinds.keys()
            assert all(kind._contains(kind.to_internal_repr(params[name])) for name, kind in kinds.items())
            losses.append(value(params))
            everything.append(params)
            state = "fail" if number % 20 == 7 else "pruned" if number % 10 == 3 else "complete"
            search.tell(number, state, None if state == "fail" else losses[-1], 5, (params, kinds))
    return losses, everything


RANDOM = {"name": "random"}
GP = {"name": "gp", "startup_trials": 16}
LEARNING: list[tuple[Any, int, int]] = [
    ({"name": "tpe", "startup_trials": 16}, 96, 5),
    ({"name": "cma_es"}, 160, 5),
    ({"name": "nsga2", "population": 16}, 160, 5),
]


@pytest.mark.parametrize(("sampler", "trials", "seeds"), LEARNING, ids=[case[0]["name"] for case in LEARNING])
def test_the_last_trials_are_better_than_random_ones(sampler: Any, trials: int, seeds: int) -> None:
    def late(of: Any) -> float:
        return float(np.mean([searched(spec(of), seed, trials)[0][-16:] for seed in range(seeds)]))

    assert late(sampler) < 0.6 * late(RANDOM)


NUMBERS = {"preset": "off", "lr": {"low": 1e-4, "high": 1.0, "log": True}, "dropout": {"low": 0.0, "high": 0.9}}


def bowl(params: Params) -> float:
    return float((np.log10(params["lr"]) / 4 + 0.5) ** 2 + (params["dropout"] - 0.3) ** 2)


def test_a_gaussian_process_finds_a_better_trial_in_few() -> None:
    """It explores to the end, so its best trial tells more than its last ones."""

    def best(of: Any) -> float:
        return float(np.mean([min(searched(spec(of, NUMBERS), seed, 24, value=bowl)[0]) for seed in range(5)]))

    assert best({"name": "gp", "startup_trials": 8}) < 0.3 * best(RANDOM)


def test_lipo_draws_where_the_best_point_may_be() -> None:
    def late(of: Any) -> float:
        return float(np.mean([searched(spec(of, NUMBERS), seed, 64, value=bowl)[0][-32:] for seed in range(5)]))

    assert late("lipo") < 0.4 * late("random")


def test_lipo_draws_no_point_that_the_steepest_slope_rules_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without exploration, the bound of every point reaches the best value known when it was drawn."""
    monkeypatch.setattr(lipo, "EXPLORATION", 0.0)
    losses, everything = searched(spec("lipo", NUMBERS), 0, 60, batch=1, value=bowl)
    points = np.array([[np.log10(each["lr"]) / 4 + 1, each["dropout"] / 0.9] for each in everything])
    told = np.array([number % 20 != 7 for number in range(60)])
    for number in range(10, 60):
        seen = np.flatnonzero(told[:number])
        x, y = points[seen], np.array(losses)[seen]
        apart = np.linalg.norm(x[:, None] - x, axis=2)
        slope = max(abs(y[i] - y[j]) / apart[i, j] for i, j in itertools.combinations(range(len(seen)), 2))
        bound = (y - 1.01 * slope * np.linalg.norm(x - points[number], axis=1)).max()
        assert bound <= y.min() + 1e-9


def test_different_choices_are_at_distance_one() -> None:
    space = {
        "preset": "off",
        "lr": {"low": 0.1, "high": 1.0},
        "batch_size": [16, 64, 128],
        "normalization": ["none", "layer"],
    }
    kinds = whole(spec("lipo", space))
    transform = _SearchSpaceTransform(kinds, transform_0_1=True)
    a, b, c = (
        lipo._scaled(transform.transform({"lr": lr, "batch_size": size, "normalization": norm})[None], transform)
        for lr, size, norm in ((0.1, 16, "none"), (0.1, 128, "none"), (1.0, 128, "layer"))
    )
    assert [float(np.linalg.norm(a - b)), float(np.linalg.norm(a - c))] == pytest.approx([1.0, 3**0.5])


def test_bobyqa_refines_the_best_trial() -> None:
    for seed in range(3):
        refined = searched(spec({"name": "bobyqa", "startup_trials": 24}, NUMBERS), seed, 80, value=bowl)[0]
        assert min(refined) < 1e-5
        assert min(refined) < 0.1 * min(searched(spec({"name": "tpe"}, NUMBERS), seed, 80, value=bowl)[0])


def test_bobyqa_keeps_choices_and_continues_with_tpe_after_convergence() -> None:
    made = spec({"name": "bobyqa", "startup_trials": 24})
    losses, everything = searched(made, 1, 32)
    centre = everything[min((n for n in range(32) if n % 20 != 7 and n % 10 != 3), key=lambda n: losses[n])]
    _, everything = searched(made, 1, 200)
    for params in everything[32:48]:
        assert params.keys() == centre.keys()
        assert all(params[name] == value for name, value in centre.items() if isinstance(value, bool | str))
    choices = [tuple(value for value in each.values() if isinstance(value, bool | str)) for each in everything]
    assert len(set(choices[32:48])) == 1 < len(set(choices[48:]))


def test_bobyqa_without_its_package_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(TrialError, match=r"pip install regsearch\[bobyqa\]"):
        Search(spec("bobyqa"))


ALL = [
    *(case[0] for case in LEARNING),
    GP,
    {"name": "lipo"},
    {"name": "bobyqa", "startup_trials": 12},
    RANDOM,
    {"name": "qmc"},
    {"name": "grid", "points": 3},
]


@pytest.mark.parametrize("sampler", ALL, ids=[each["name"] for each in ALL])
def test_a_search_repeats_exactly(sampler: Any) -> None:
    trials = 12 if sampler["name"] == "gp" else 32
    sampler = sampler | ({"startup_trials": 6} if sampler["name"] == "gp" else {})
    once = searched(spec(sampler), 3, trials, batch=4)
    assert searched(spec(sampler), 3, trials, batch=4) == once
    if sampler["name"] not in ("qmc", "grid", "gp"):
        assert searched(spec(sampler), 4, trials, batch=4) != once


@pytest.mark.parametrize("sampler", ALL, ids=[each["name"] for each in ALL])
def test_trials_of_others_are_learned_from_under_their_own_conditions(sampler: Any) -> None:
    search, other = Search(spec(sampler), seed=1), Search(spec("random"), seed=2)
    for number, proposal in enumerate(other.propose(20), start=100):
        search.tell(number, ("complete", "pruned")[number % 2], loss(proposal[0]), 5, proposal)
    for params, _ in search.propose(4):
        assert ("step_every" in params) == (params["lr_schedule"] == "step")
        assert ("dropout" in params) == params["use_dropout"]


def test_proposals_that_were_not_used_do_not_count() -> None:
    for name in ("gp", "cma_es", "nsga2"):
        search = Search(spec(name))
        search.propose(5)
        search.adopt([0, 1])
        assert [trial.state.name for trial in search._study.trials] == ["RUNNING", "RUNNING", "FAIL", "FAIL", "FAIL"]


def test_a_grid_is_covered_once_whichever_worker_asks() -> None:
    made = spec({"name": "grid", "points": 3})
    blocks = grid(made, 3)
    # 3 learning rates, dropout off or 3 rates, likewise weight decay, constant or 3 steps.
    assert sum(block.size for block in blocks) == 3 * 4 * 4 * 4
    one, other = Search(made, seed=1), Search(made, seed=2)
    seen = []
    for number in range(192):
        planned = (one, other)[number % 2].planned(number)
        assert planned is not None
        seen.append(tuple(sorted(planned[0].items())))
    assert len(set(seen)) == 192
    assert one.planned(192) is None
    assert {dict(each)["lr"] for each in seen} == {1e-4, 1e-2, 1.0}
    assert {dict(each).get("step_every") for each in seen} == {None, 1, 20, 40}


def test_the_order_of_a_grid_depends_on_the_seed() -> None:
    one, other = (Search(spec({"name": "grid", "points": 3}, seed=seed)) for seed in (0, 1))
    assert [one.planned(number) for number in range(8)] != [other.planned(number) for number in range(8)]


def test_a_grid_that_is_too_large_is_refused() -> None:
    with pytest.raises(ValueError, match="more than 1,000,000 points"):
        grid(spec({"name": "grid", "points": 1000}), 1000)


def test_sobol_points_are_scipys_and_fill_the_space_more_evenly_than_random_ones() -> None:
    space = {"preset": "off", "lr": {"low": 0.0001, "high": 1.0, "log": True}, "dropout": {"low": 0.0, "high": 0.5}}
    made = spec("qmc", space, seed=5)
    search = Search(made)
    points = []
    for number in range(64):
        planned = search.planned(number)
        assert planned is not None
        points.append((planned[0]["dropout"] / 0.5, np.log10(planned[0]["lr"]) / 4 + 1))
    assert sorted(whole(made)) == ["dropout", "lr"]
    np.testing.assert_allclose(points, qmc.Sobol(2, scramble=True, seed=5).random(64), atol=1e-9)
    far = qmc.Sobol(2, scramble=True, seed=5).random(1024)[700]
    late, early = search.planned(700), search.planned(3)
    assert late is not None
    assert late[0]["dropout"] / 0.5 == pytest.approx(far[0])
    assert early == Search(made).planned(3)
    random = [qmc.discrepancy(np.random.default_rng(seed).random((64, 2))) for seed in range(5)]
    assert qmc.discrepancy(np.array(points)) < 0.5 * min(random)


def test_enqueued_settings_come_first_and_the_others_are_drawn() -> None:
    enqueued = [
        {"lr": 0.01, "dropout": "off", "weight_decay": 3, "lr_schedule": "step", "step_every": 7},
        {"dropout": 0.25},
    ]
    made = spec("random", enqueue=enqueued)
    losses, everything = searched(made, 0, 16)
    assert everything[0] == {
        "use_dropout": False,
        "use_weight_decay": True,
        "weight_decay": 3.0,
        "lr": 0.01,
        "lr_schedule": "step",
        "step_every": 7,
    }
    assert (everything[1]["use_dropout"], everything[1]["dropout"]) == (True, 0.25)
    again, other = Search(made, seed=8), Search(made.model_copy(update={"seed": 9}), seed=8)
    assert again.planned(1) == Search(made, seed=7).planned(1) != other.planned(1)
    assert again.planned(2) is None
    assert losses[2:] != searched(made, 1, 16)[0][2:]


def test_enqueued_settings_include_models_choices_and_single_layers() -> None:
    space = {"preset": "off", "dropout": {"low": 0.1, "high": 0.5, "per_layer": True}, "batch_size": [16, 64]}
    model = {"depth": [1, 2], "width": {"low": 8, "high": 64}}
    enqueued = [{"depth": 2, "width": 16, "dropout": [0.2, 0.3], "batch_size": 64}, {"depth": 2, "dropout": 0.4}]
    made = spec("random", space, model=model, enqueue=enqueued)
    search = Search(made)
    first, second = search.planned(0), search.planned(1)
    assert first is not None
    assert second is not None
    assert first[0] == {"depth": 2, "width": 16, "dropout_1": 0.2, "dropout_2": 0.3, "batch_size": 64}
    assert (second[0]["dropout_1"], second[0]["dropout_2"]) == (0.4, 0.4)


def test_the_whole_space_contains_every_trial() -> None:
    made = spec("random", {"preset": "default", "lr_schedule": list(SETTINGS["lr_schedule"].words)})
    union = whole(made)
    for params, kinds in Search(made).propose(100):
        assert {name: union[name] for name in params} == kinds


def test_a_place_is_a_quantile_of_its_distribution() -> None:
    """Evenly spaced places yield each choice and each integer equally often."""
    made = spec("qmc", {"preset": "off", "lr_schedule": ["step", "constant"], "step_every": {"low": 3, "high": 6}})
    search = Search(made)
    plans = [search.planned(number) for number in range(256)]
    params = [plan[0] for plan in plans if plan is not None]
    counts = Counter(each["lr_schedule"] for each in params)
    assert counts == {"step": 128, "constant": 128}
    steps = Counter(each["step_every"] for each in params if "step_every" in each)
    assert set(steps) == {3, 4, 5, 6}
    assert max(steps.values()) - min(steps.values()) <= 8
    assert all(abs(a - b) <= 8 for a, b in itertools.pairwise(steps.values()))
