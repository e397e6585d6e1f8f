"""Our bulk store against stock Optuna on the same databases, in turn.

    python -m tests.benchmarks.bulk_store [--lanes 64] [--trials 1000] [--rounds 3] [--without postgresql]

Milliseconds per trial of an epoch of all lanes (report, and the decision to prune) and of telling all of them, in a study
that has ``--trials`` finished trials; ratios are stock over ours.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
import warnings
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution

from service.pruning import Standing, make_judge
from service.spec import StudySpec
from service.store import Store, open_store
from service.store.records import Lease, Proposal, Report, TrialResult
from tests.benchmarks.databases import databases
from tests.benchmarks.rounds import Options, Rounds, in_turn, ratio, spread

DISTRIBUTIONS: dict[str, BaseDistribution] = {f"x{i}": FloatDistribution(0.0, 1.0) for i in range(6)}
STEPS = 5
PARTS = ("epoch", "tell")


def spec(trials: int) -> StudySpec:
    raw = {"data": {"dataset": "diabetes"}, "budget": {"trials": trials, "epochs": 100}}
    return StudySpec.model_validate(raw).resolved("regression")


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


class Ours:
    """A study with finished trials, and lanes of it in training."""

    def __init__(self, store: Store, existing: int, lanes: int, rounds: int) -> None:
        self.store = store
        self.rng = np.random.default_rng(0)
        self.spec = spec(existing + lanes * (rounds + 1))
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

    def __init__(self, url: str, existing: int) -> None:
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


def compare(ours: Ours, stock: Stock, lanes: int, number: int) -> dict[str, dict[str, float]]:
    """One round of the two; milliseconds per trial."""

    def mine() -> dict[str, float]:
        ids = ours.ask(lanes)
        steps = range(10, 10 + STEPS)  # after the pruner's warm-up, so that it has to look
        epochs = [timed(partial(ours.epoch, ids, step)) for step in steps]
        return {"epoch": statistics.median(epochs), "tell": timed(partial(ours.finish, ids, [1.0] * 15))}

    def theirs() -> dict[str, float]:
        trials = stock.ask(lanes)
        return {"epoch": timed(partial(stock.epoch, trials, 10)), "tell": timed(partial(stock.finish, trials))}

    found = in_turn({"ours": mine, "stock": theirs}, number)
    return {name: {part: 1000 * seconds / lanes for part, seconds in side.items()} for name, side in found.items()}


def summary(rounds: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    """One database: how many times faster, and milliseconds per trial."""
    figures: dict[str, Any] = {}
    for part in PARTS:
        sides = [{name: side[part] for name, side in each.items()} for each in rounds]
        figures[f"{part}_ratio"] = ratio(sides, "stock", "ours")
        figures |= {f"{part}_{name}_ms": spread(each[name] for each in sides) for name in ("ours", "stock")}
    return figures


class Pair:
    """Both sides on databases of one kind, filled when the first round needs them."""

    def __init__(self, create: Callable[[str], str], given: argparse.Namespace) -> None:
        self._create, self._given = create, given

    @functools.cached_property
    def _sides(self) -> tuple[Ours, Stock]:
        given = self._given
        ours = Ours(open_store(self._create("ours"), create=True), given.trials, given.lanes, given.rounds)
        return ours, Stock(self._create("stock"), given.trials)

    def compare(self, number: int) -> dict[str, dict[str, float]]:
        """Round ``number``."""
        return compare(*self._sides, self._given.lanes, number)

    def close(self) -> None:
        """Close all connections."""
        if "_sides" in vars(self):
            ours, stock = self._sides
            ours.store.close()
            stock.engine.dispose()


def main() -> None:
    """All databases, one after the other."""
    options = Options("bulk_store", __doc__, quick={"lanes": 8, "trials": 20, "rounds": 2}, optional=["postgresql"])
    options.add_argument("--lanes", type=int, default=64, help="trials in training")
    options.add_argument("--trials", type=int, default=1000, help="finished trials in the study")
    options.add_argument("--rounds", type=int, default=3, help="of both, on each database")
    given = options.given()
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rounds = Rounds("bulk_store", given)
    figures = {}
    with databases(given.without) as kinds:
        for name, create in kinds.items():
            with closing(Pair(create, given)) as pair:
                done = [rounds.once(f"{name} {number}", partial(pair.compare, number)) for number in range(given.rounds)]
            figures[name] = summary(done)
    rounds.conclude(figures)


if __name__ == "__main__":
    main()
