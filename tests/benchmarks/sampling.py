"""Batch TPE: what an ask costs as a study grows, and how good it is beside sequential TPE and random search.

python tests/benchmarks/sampling.py
"""

from __future__ import annotations

import statistics
import time
import warnings
from typing import Any

import numpy as np
import optuna

from service.search import Search
from service.spec import StudySpec
from tests.benchmarks.report import save

BATCH, TRIALS, SEEDS = 32, 256, 21


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


def cost(existing: int) -> float:
    """Milliseconds per ask in batches of 64, with so many finished trials."""
    search, rng = Search(spec(), seed=0), np.random.default_rng(0)
    for number in range(existing):
        x = rng.random(4)
        params = {"lr": 10 ** (4 * x[0] - 4), "l1": 10 ** (6 * x[1] - 6), "dropout": 0.9 * x[2], "input_dropout": 0.9 * x[3]}
        search.tell(number, "complete", sphere(x), 5, (params, KINDS))
    times = []
    for _ in range(3):
        start = time.perf_counter()
        search.propose(64)
        times.append(time.perf_counter() - start)
        search.adopt([])
    return round(1000 * statistics.median(times) / 64, 3)


KINDS = Search(spec()).propose(1)[0][1]


def batched(function: Any, sampler: str, seed: int) -> float:
    search, best, number = Search(spec(sampler), seed=seed), np.inf, 0
    while number < TRIALS:
        drawn = search.propose(BATCH)
        search.adopt(range(number, number + BATCH))
        for params, kinds in drawn:
            loss = function(unit(params))
            best = min(best, loss)
            search.tell(number, "complete", loss, 5, (params, kinds))
            number += 1
    return float(best)


def sequential(function: Any, seed: int) -> float:
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))

    def objective(trial: optuna.Trial) -> float:
        params = {"lr": trial.suggest_float("lr", 1e-4, 1.0, log=True), "l1": trial.suggest_float("l1", 1e-6, 1.0, log=True)}
        rest = {name: trial.suggest_float(name, 0.0, 0.9) for name in ("dropout", "input_dropout")}
        return float(function(unit(params | rest)))

    study.optimize(objective, n_trials=TRIALS)
    return float(study.best_value)


def main() -> None:
    """Costs, then median regrets."""
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    costs = {f"ask_ms_at_{n}": cost(n) for n in (1000, 10_000)}
    figures: dict[str, Any] = {"batch": BATCH, "trials": TRIALS, "seeds": SEEDS, **costs}
    figures["cost_ratio"] = round(costs["ask_ms_at_10000"] / costs["ask_ms_at_1000"], 2)
    for name, function in (("sphere", sphere), ("valley", valley)):
        figures[name] = {
            "batch_tpe": statistics.median(batched(function, "tpe", seed) for seed in range(SEEDS)),
            "random": statistics.median(batched(function, "random", seed) for seed in range(SEEDS)),
            "sequential_tpe": statistics.median(sequential(function, seed) for seed in range(SEEDS)),
        }
    print(figures, save("sampling", figures))  # noqa: T201


if __name__ == "__main__":
    main()
