"""Many workers on one study of short trials, ours against stock Optuna workers, and a database that has seen a lot.

    python -m tests.benchmarks.many_workers [--workers 8] [--trials 2000] [--stock-trials 200] [--studies 1000] [--rounds 3]
        [--without postgresql]

Workers are processes that ask, report and tell without training, so that only the database is measured: ours in stacks
of 32 lanes through the bulk store, stock ones through Optuna's ask, report, should_prune and tell; the rate is trials over
the seconds of all processes, their start included. Then reads and the queue's choice with ``--studies`` finished studies of
100 trials in the database.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution

from service.errors import LeaseLost
from service.pruning import Standing, make_judge
from service.search import Search
from service.spec import StudySpec
from service.store import Store, open_store
from service.store.records import Lease, Proposal, Report, TrialResult
from tests.benchmarks.databases import databases
from tests.benchmarks.rounds import ROOT, Options, Rounds, in_turn, ratio, spread

STEPS = 5
LANES = 32
KINDS: dict[str, BaseDistribution] = {f"x{i}": FloatDistribution(0.0, 1.0) for i in range(6)}


def spec(trials: int) -> StudySpec:
    raw = {"data": {"dataset": "diabetes"}, "sampler": "random", "budget": {"trials": trials, "epochs": STEPS}}
    return StudySpec.model_validate(raw).resolved("regression")


def our_worker(url: str) -> None:
    """Run lanes of the first study until it has no more."""
    store = open_store(url)
    while (lease := store.leases.claim("bench", 60)) is None or lease.phase == "finalize":
        if lease is not None:
            store.leases.release(lease)
            return
        time.sleep(0.02)
    with suppress(LeaseLost):  # the study has all its trials, and goes on to be finalized
        run_lanes(store, lease)
    store.leases.release(lease)
    store.close()


def run_lanes(store: Store, lease: Lease) -> None:
    """Stacks of lanes, one after the other, until there are no more trials."""
    made = spec(1)
    search, judge = Search(made, seed=lease.ordinal), make_judge(made)
    while True:
        trials = store.trials.ask(lease, [Proposal(*drawn) for drawn in search.propose(LANES)])
        search.adopt([trial.number for trial in trials])
        if not trials:
            return
        for step in range(STEPS):
            judge.judge([Standing(trial.number, step + 1, 1.0, 1.0) for trial in trials])
            ended = [TrialResult(t.id, "complete", 1.0, 0, "epochs", STEPS) for t in trials] if step == STEPS - 1 else []
            store.trials.record(lease, [Report(trial.id, step, 1.0) for trial in trials], ended)


def stock_worker(url: str, trials: int) -> None:
    """The usual loop of an Optuna script, with ask and tell."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.RDBStorage(url, skip_table_creation=True)
    study = optuna.load_study(study_name="stock", storage=storage, sampler=optuna.samplers.RandomSampler())
    while len(study.get_trials(deepcopy=False)) < trials:
        trial = study.ask(KINDS)
        for step in range(STEPS):
            trial.report(1.0, step)
            trial.should_prune()
        study.tell(trial, 1.0)


def run(kind: str, url: str, workers: int, trials: int) -> dict[str, Any]:
    """Seconds of all worker processes together, and which of them failed."""
    module = ("-m", "tests.benchmarks.many_workers")
    command = [sys.executable, *module, "--role", kind, "--url", url, "--trials", str(trials), "--without", "postgresql"]
    start = time.perf_counter()
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(workers)]
    errors = [process.communicate()[1] for process in processes]
    seconds = time.perf_counter() - start
    failed = [error.strip().splitlines()[-1] for process, error in zip(processes, errors, strict=True) if process.returncode]
    return {"seconds": round(seconds, 1), "failed_workers": len(failed), "errors": sorted(set(failed))[:3]}


def ours(url: str, workers: int, trials: int) -> dict[str, Any]:
    store = open_store(url, create=True)
    study = store.studies.submit(spec(trials))
    figures = run("ours", url, workers, trials)
    counts = store.studies.get(study).counts
    store.close()
    return {**figures, "trials": counts.finished, "budget": trials, "rate": round(counts.finished / figures["seconds"], 1)}


def stock(url: str, workers: int, trials: int) -> dict[str, Any]:
    storage = optuna.storages.RDBStorage(url)
    study = optuna.create_study(study_name="stock", storage=storage)
    figures = run("stock", url, workers, trials)
    states = [trial.state.name for trial in study.get_trials(deepcopy=False)]
    storage.engine.dispose()
    finished = states.count("COMPLETE")
    return {**figures, "trials": finished, "budget": trials, "rate": round(finished / figures["seconds"], 1)}


def fill(store: Store, studies: int, trials: int) -> None:
    """Finished studies, written through the store as workers write them."""
    for _ in range(studies):
        store.studies.submit(spec(trials))
    while (lease := store.leases.claim("fill", 600)) is not None and lease.phase == "search":
        _fill_one(store, lease, trials)
        final = store.leases.claim("fill", 600)
        if final is not None and final.phase == "finalize":
            store.studies.finish(final, {"verdict": ""})
        elif final is not None:
            store.leases.release(final)


def _fill_one(store: Store, lease: Lease, trials: int) -> None:
    asked = store.trials.ask(lease, [Proposal(dict.fromkeys(KINDS, 0.5), KINDS) for _ in range(trials)])
    curve = {"rmse": [1.0] * STEPS}
    store.trials.record(lease, [], [TrialResult(t.id, "complete", 1.0, 0, "epochs", STEPS, curve) for t in asked])


def latencies(create: Callable[[str], str], studies: int) -> dict[str, float]:
    """Medians in milliseconds of what the API and the queue do, with everything in the database."""
    store = open_store(create("full"), create=True)
    fill(store, studies, 100)
    waiting = store.studies.submit(spec(10))

    claimed: list[Lease] = []

    def claim() -> None:
        lease = store.leases.claim("bench", 60)
        assert lease is not None
        claimed.append(lease)

    def release() -> None:
        store.leases.release(claimed.pop())

    calls: dict[str, tuple[Callable[[], object], ...]] = {
        "get_study_ms": (lambda: store.studies.get(waiting // 2),),
        "page_of_trials_ms": (lambda: store.history.page(waiting // 2, limit=50),),
        "list_studies_ms": (lambda: store.studies.list(limit=50),),
        "claim_ms": (claim, release),
    }
    found = {name: round(1000 * _median(*call), 2) for name, call in calls.items()}
    store.close()
    return found


def _median(call: Callable[[], object], undo: Callable[[], object] = lambda: None) -> float:
    times = []
    for _ in range(50):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
        undo()
    return statistics.median(times)


def contest(create: Callable[[str], str], number: int, given: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """One round, on databases of its own."""
    sides = {
        "ours": lambda: ours(create(f"ours_{number}"), given.workers, given.trials),
        "stock": lambda: stock(create(f"stock_{number}"), given.workers, given.stock_trials),
    }
    return in_turn(sides, number)


def summary(done: list[dict[str, dict[str, Any]]]) -> dict[str, Any]:
    """One database: how many times the stock workers' rate, and workers that failed."""
    rates = [{name: side["rate"] for name, side in each.items()} for each in done]
    figures: dict[str, Any] = {"ratio": ratio(rates, "ours", "stock")}
    for name in ("ours", "stock"):
        figures[f"{name}_trials_per_second"] = spread(each[name] for each in rates)
        figures[f"{name}_failed_workers"] = sum(each[name]["failed_workers"] for each in done)
    return figures


def main() -> None:
    """All of it on both databases."""
    small = {"workers": 2, "trials": 64, "stock_trials": 6, "studies": 3, "rounds": 1}
    options = Options("many_workers", __doc__, quick=small, optional=["postgresql"])
    options.add_argument("--workers", type=int, default=8, help="worker processes")
    options.add_argument("--trials", type=int, default=2000, help="of our study")
    options.add_argument("--stock-trials", type=int, default=200, help="of the stock study")
    options.add_argument("--studies", type=int, default=1000, help="finished studies when reads are measured")
    options.add_argument("--rounds", type=int, default=3, help="of both kinds of workers, on each database")
    options.add_argument("--role", choices=("ours", "stock"), help="be one worker, as this program starts it")
    options.add_argument("--url", help="that worker's database")
    given = options.given()
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if given.role == "ours":
        our_worker(given.url)
        return
    if given.role == "stock":
        stock_worker(given.url, given.trials)
        return
    rounds = Rounds("many_workers", given, lanes=LANES, steps=STEPS)
    figures: dict[str, Any] = {}
    with databases(given.without) as kinds:
        for name, create in kinds.items():
            names = range(given.rounds)
            done = [rounds.once(f"{name} {number}", partial(contest, create, number, given)) for number in names]
            reads = rounds.once(f"{name}, reads", partial(latencies, create, given.studies))
            figures[name] = summary(done) | {"with_100_trials_per_study": reads}
    rounds.conclude(figures)


if __name__ == "__main__":
    main()
