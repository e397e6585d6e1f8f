"""Batch TPE: what an ask costs as a study grows, and how good it is beside sequential TPE and random search.

    python -m tests.benchmarks.sampling [--seeds 21] [--trials 256] [--batch 32] [--existing 1000 10000]

Costs are milliseconds per ask in batches of 64 with ``--existing`` finished trials; regrets are the best values of two known
functions of four parameters after ``--trials`` trials. A round is a seed, in which all of them take their turns.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution

from service.search import Search
from service.spec import StudySpec
from tests.benchmarks.rounds import Options, Rounds, in_turn, ratio, spread

COST_ROUNDS = 3
Function = Callable[[np.ndarray], float]


def spec(sampler: str = "tpe") -> StudySpec:
    space = {
        "preset": "off",
        "lr": {"low": 1e-4, "high": 1.0, "log": True},
        "l1": {"low": 1e-6, "high": 1.0, "log": True},
        "dropout": {"low": 0.0, "high": 0.9},
        "input_dropout": {"low": 0.0, "high": 0.9},
    }
    return StudySpec.model_validate({"data": {"dataset": "diabetes"}, "space": space, "sampler": sampler}).resolved(
        "regression"
    )


def unit(params: dict[str, Any]) -> np.ndarray:
    """The parameters on [0, 1]."""
    return np.array(
        [
            np.log10(params["lr"]) / 4 + 1,
            np.log10(params["l1"]) / 6 + 1,
            params["dropout"] / 0.9,
            params["input_dropout"] / 0.9,
        ]
    )


def sphere(x: np.ndarray) -> float:
    return float(((x - np.array([0.2, 0.7, 0.4, 0.6])) ** 2).sum())


def valley(x: np.ndarray) -> float:
    """Rosenbrock's, on [-1, 1.5]⁴."""
    z = 2.5 * x - 1.0
    return float((100 * (z[1:] - z[:-1] ** 2) ** 2 + (1 - z[:-1]) ** 2).sum()) / 100


FUNCTIONS: dict[str, Function] = {"sphere": sphere, "valley": valley}


@functools.cache
def kinds() -> Mapping[str, BaseDistribution]:
    """The distributions of the space's parameters."""
    return Search(spec()).propose(1)[0][1]


def cost(existing: int) -> float:
    """Milliseconds per ask in batches of 64, with ``existing`` finished trials."""
    search, rng = Search(spec(), seed=0), np.random.default_rng(0)
    for number in range(existing):
        x = rng.random(4)
        params = {"lr": 10 ** (4 * x[0] - 4), "l1": 10 ** (6 * x[1] - 6), "dropout": 0.9 * x[2], "input_dropout": 0.9 * x[3]}
        search.tell(number, "complete", sphere(x), 5, (params, kinds()))
    times = []
    for _ in range(3):
        start = time.perf_counter()
        search.propose(64)
        times.append(time.perf_counter() - start)
        search.adopt([])
    return round(1000 * statistics.median(times) / 64, 3)


def batched(function: Function, sampler: str, seed: int, given: argparse.Namespace) -> float:
    """The regret of our search, which asks for a batch at a time."""
    search, best, number = Search(spec(sampler), seed=seed), np.inf, 0
    while number < given.trials:
        drawn = search.propose(given.batch)
        search.adopt(range(number, number + given.batch))
        for params, distributions in drawn:
            loss = function(unit(params))
            best = min(best, loss)
            search.tell(number, "complete", loss, 5, (params, distributions))
            number += 1
    return float(best)


def sequential(function: Function, seed: int, given: argparse.Namespace) -> float:
    """The regret of Optuna's TPE with its defaults, one trial after the other."""
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))

    def objective(trial: optuna.Trial) -> float:
        params = {"lr": trial.suggest_float("lr", 1e-4, 1.0, log=True), "l1": trial.suggest_float("l1", 1e-6, 1.0, log=True)}
        rest = {name: trial.suggest_float(name, 0.0, 0.9) for name in ("dropout", "input_dropout")}
        return float(function(unit(params | rest)))

    study.optimize(objective, n_trials=given.trials)
    return float(study.best_value)


def regrets(function: Function, seed: int, given: argparse.Namespace) -> dict[str, float]:
    """One seed of all searches."""
    sides = {
        "batch_tpe": partial(batched, function, "tpe", seed, given),
        "random": partial(batched, function, "random", seed, given),
        "sequential_tpe": partial(sequential, function, seed, given),
    }
    return in_turn(sides, seed)


def main() -> None:
    """Costs, then regrets."""
    options = Options("sampling", __doc__, quick={"seeds": 2, "trials": 32, "batch": 8, "existing": [50, 100]})
    options.add_argument("--seeds", type=int, default=21, help="searches of each kind")
    options.add_argument("--trials", type=int, default=256, help="of a search")
    options.add_argument("--batch", type=int, default=32, help="trials asked for at a time")
    options.add_argument("--existing", type=int, nargs=2, default=[1000, 10_000], help="finished trials at an ask")
    given = options.given()
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rounds = Rounds("sampling", given, count="seeds")
    few, many = (f"ask_ms_at_{n}" for n in given.existing)
    sides = {few: partial(cost, given.existing[0]), many: partial(cost, given.existing[1])}
    costs = [rounds.once(f"cost {number}", partial(in_turn, sides, number)) for number in range(COST_ROUNDS)]
    figures: dict[str, Any] = {name: spread(each[name] for each in costs) for name in (few, many)}
    figures["cost_ratio"] = ratio(costs, many, few)
    for name, function in FUNCTIONS.items():
        found = [rounds.once(f"{name} {seed}", partial(regrets, function, seed, given)) for seed in range(given.seeds)]
        figures[name] = {side: spread(each[side] for each in found) for side in found[0]}
    rounds.conclude(figures)


if __name__ == "__main__":
    main()
