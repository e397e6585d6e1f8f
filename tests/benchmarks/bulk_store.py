"""Our bulk store against stock Optuna on the same databases, in one interleaved run.

    python tests/benchmarks/bulk_store.py [--lanes 64] [--trials 1000]

Per trial and at so many existing trials: an epoch (report, and the decision to prune) of all lanes, and the telling of all.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution

from service.pruning import Standing, make_judge
from service.spec import StudySpec
from service.store import Store, open_store
from service.store.records import Lease, Proposal, Report, TrialResult
from tests.benchmarks.report import save
from tests.postgres import start_postgres

DISTRIBUTIONS: dict[str, BaseDistribution] = {f"x{i}": FloatDistribution(0.0, 1.0) for i in range(6)}
STEPS = 5
ROUNDS = 3


def spec(trials: int) -> StudySpec:
    raw = {"data": {"dataset": "diabetes"}, "budget": {"trials": trials, "epochs": 100}}
    return StudySpec.model_validate(raw).resolved("regression")


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


class Ours:
    """A study with finished trials, and lanes of it in training."""

    def __init__(self, store: Store, lanes: int, existing: int) -> None:
        self.store, self.lanes = store, lanes
        self.rng = np.random.default_rng(0)
        self.spec = spec(existing + lanes * (ROUNDS + 1))
        self.judge = make_judge(self.spec)
        store.studies.submit(self.spec)
        lease = store.leases.claim("bench", 3600)
        assert lease is not None
        self.lease: Lease = lease
        for start in range(0, existing, 250):
            self.finish(self.ask(min(250, existing - start)), [1.0] * 5)

    def ask(self, n: int) -> list[int]:
        drawn = [{name: float(self.rng.random()) for name in DISTRIBUTIONS} for _ in range(n)]
        return [trial.id for trial in self.store.trials.ask(self.lease, [Proposal(p, DISTRIBUTIONS) for p in drawn])]

    def epoch(self, ids: list[int], step: int) -> None:
        values = self.rng.random(len(ids)).tolist()
        self.judge.judge([Standing(i, step + 1, v, v) for i, v in zip(ids, values, strict=True)])
        self.store.trials.record(self.lease, [Report(i, step, v) for i, v in zip(ids, values, strict=True)], [])

    def finish(self, ids: list[int], curve: list[float]) -> None:
        results = [TrialResult(i, "complete", 1.0, 0, "epochs", len(curve), {"rmse": curve}) for i in ids]
        for i in ids:
            self.judge.remember(i, curve, complete=True, judged_here=True)
        self.store.trials.record(self.lease, [], results)


class Stock:
    """The same with Optuna's own storage, one call per trial, as its documentation has it."""

    def __init__(self, url: str, lanes: int, existing: int) -> None:
        self.lanes = lanes
        storage = optuna.storages.RDBStorage(url)
        self.engine = storage.engine
        pruner = optuna.pruners.MedianPruner(n_startup_trials=8, n_warmup_steps=10)
        sampler = optuna.samplers.RandomSampler(seed=0)
        self.study = optuna.create_study(storage=storage, pruner=pruner, sampler=sampler)
        steps = dict.fromkeys(range(5), 1.0)
        for _ in range(existing):
            params = dict.fromkeys(DISTRIBUTIONS, 0.5)
            self.study.add_trial(
                optuna.trial.create_trial(value=1.0, params=params, distributions=DISTRIBUTIONS, intermediate_values=steps)
            )

    def ask(self, n: int) -> list[Any]:
        return [self.study.ask(DISTRIBUTIONS) for _ in range(n)]

    def epoch(self, trials: list[Any], step: int) -> None:
        for trial in trials:
            trial.report(0.5, step)
            trial.should_prune()

    def finish(self, trials: list[Any]) -> None:
        for trial in trials:
            self.study.tell(trial, 1.0)


def compare(ours: Ours, stock: Stock, lanes: int) -> dict[str, Any]:
    """Rounds of the two in turn; milliseconds per trial, medians."""
    times: dict[str, list[float]] = {name: [] for name in ("epoch_ours", "epoch_stock", "tell_ours", "tell_stock")}
    for _ in range(ROUNDS):
        mine, theirs = ours.ask(lanes), stock.ask(lanes)
        for step in range(10, 10 + STEPS):  # behind the pruner's warm-up, so that it has to look
            times["epoch_ours"].append(timed(partial(ours.epoch, mine, step)))
        times["epoch_stock"].append(timed(partial(stock.epoch, theirs, 10)))
        times["tell_ours"].append(timed(partial(ours.finish, mine, [1.0] * 15)))
        times["tell_stock"].append(timed(partial(stock.finish, theirs)))
    figures: dict[str, Any] = {f"{name}_ms": round(1000 * statistics.median(t) / lanes, 4) for name, t in times.items()}
    for part in ("epoch", "tell"):
        figures[f"{part}_ratio"] = round(figures[f"{part}_stock_ms"] / figures[f"{part}_ours_ms"], 1)
    return figures


def main() -> None:
    """Both databases, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lanes", type=int, default=64)
    parser.add_argument("--trials", type=int, default=1000)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    figures: dict[str, Any] = {"lanes": arguments.lanes, "existing_trials": arguments.trials, "rounds": ROUNDS}
    with tempfile.TemporaryDirectory() as scratch:
        server = start_postgres(Path(scratch) / "pg")
        server.psql("CREATE DATABASE ours")
        server.psql("CREATE DATABASE stock")
        pg = server.get_uri()
        urls = {
            "sqlite": (f"sqlite:///{scratch}/ours.db", f"sqlite:///{scratch}/stock.db"),
            "postgresql": (pg.replace("/postgres?", "/ours?"), pg.replace("/postgres?", "/stock?")),
        }
        for name, (mine, theirs) in urls.items():
            store = open_store(mine, create=True)
            stock = Stock(theirs.replace("postgresql://", "postgresql+psycopg://"), arguments.lanes, arguments.trials)
            figures[name] = compare(Ours(store, arguments.lanes, arguments.trials), stock, arguments.lanes)
            store.close()
            stock.engine.dispose()
        server.cleanup()
    print(figures, save("bulk_store", figures))  # noqa: T201


if __name__ == "__main__":
    main()
