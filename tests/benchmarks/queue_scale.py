"""The queue with many workers: claims, heartbeats, reports and tells of 10 to 1000 workers on one PostgreSQL.

    python -m tests.benchmarks.queue_scale [--workers 10 100 300 1000] [--studies 10000] [--seconds 60] [--epoch-seconds 4]

Workers are simulated, their calls of the store are real: what a worker writes, when it writes it, without the training
between. Each claims a study of the queue, asks for 16 trials at a time, reports an epoch of all of them every
``--epoch-seconds``, tells them after five, renews its lease and tells what it does as `workers.liveness` has it, looks
every two seconds whether somebody has stopped trials, and after 30 s whether others wait; it finalizes studies, too. Studies
are of 16, 32 and 64 trials, of 20 owners, one in twenty of a higher priority. Four processes with 12 connections each
make all calls.

A second round of each size has the heartbeats only, of workers that hold leases, and a third workers without work, on an
empty queue: what they take of the server's processors, of as many as the machine has. Clients run on the same machine, so
the figures are those of a server that shares it with them.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from optuna.distributions import BaseDistribution, FloatDistribution
from sqlalchemy import text

from service.errors import LeaseLost
from service.settings import Connections
from service.spec import StudySpec
from service.store import Store, open_store
from service.store.records import AskedTrial, Lease, Proposal, Report, TrialResult
from tests.benchmarks.rounds import ROOT, Options, Rounds
from workers.liveness import BEAT_SECONDS, IDLE_SECONDS, RARE_SECONDS
from workers.searching.recorder import STOPS_SECONDS

OWNERS = 20
LANES, EPOCHS = 16, 5
LEASE_SECONDS, TURN_SECONDS, LISTENING_SECONDS, FINALIZING_SECONDS = 30.0, 30.0, 15.0, 10.0
PROCESSES, THREADS = 4, 12
KINDS: dict[str, BaseDistribution] = {f"x{i}": FloatDistribution(0.0, 1.0) for i in range(6)}
PROPOSALS = [Proposal(dict.fromkeys(KINDS, 0.5), KINDS)] * LANES


def spec(number: int) -> StudySpec:
    raw = {
        "name": f"study-{number:06}",
        "data": {"dataset": "diabetes"},
        "sampler": "random",
        "owner": f"owner-{number % OWNERS:02}",
        "priority": 5 if number % 20 == 7 else 0,
        "budget": {"trials": (16, 32, 64)[number % 3], "epochs": EPOCHS},
    }
    return StudySpec.model_validate(raw).resolved("regression")


Step = Callable[[], float | None]
"""Something that a worker does; returns after how many seconds it does so again, None for never."""


class Clock:
    """Does what is due with a few threads, for many workers; notes how long each call takes, and how late it begins."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.late: list[float] = []
        self.errors: Counter[str] = Counter()
        self._due: list[tuple[float, int, Step]] = []
        self._ids = itertools.count()
        self._condition = threading.Condition()

    def after(self, seconds: float, step: Step) -> None:
        with self._condition:
            heapq.heappush(self._due, (time.monotonic() + seconds, next(self._ids), step))
            self._condition.notify()

    def call(self, name: str, call: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        try:
            return call()
        finally:
            self.seconds[name].append(time.perf_counter() - start)

    def forget(self) -> None:
        """Begin to measure."""
        self.seconds.clear()
        self.late.clear()
        sys.stdout.write("measuring\n")
        sys.stdout.flush()

    def run(self, end: float) -> None:
        with ThreadPoolExecutor(THREADS) as threads:
            for done in [threads.submit(self._work, end) for _ in range(THREADS)]:
                done.result()

    def _work(self, end: float) -> None:
        while (found := self._next(end)) is not None:
            at, step = found
            self.late.append(time.monotonic() - at)
            try:
                again = step()
            except LeaseLost:
                continue  # the study was ended by another worker; its steps end with its lease
            except Exception as error:
                self.errors[f"{type(error).__name__}: {str(error).splitlines()[0]}"] += 1
                again = 1.0
            if again is not None:
                self.after(again, step)

    def _next(self, end: float) -> tuple[float, Step] | None:
        with self._condition:
            while (now := time.monotonic()) < end:
                if self._due and self._due[0][0] <= now:
                    at, _, step = heapq.heappop(self._due)
                    return at, step
                self._condition.wait(min(end, self._due[0][0] if self._due else end) - now)
        return None


class Simulated:
    """A worker without training."""

    def __init__(self, store: Store, clock: Clock, number: int, *, searches: bool) -> None:
        self.store, self.clock, self.searches = store, clock, searches
        self.leases = copy(store.leases)  # what a process remembers of its last claims and reaps is each worker's own
        self.id = store.workers.register(name=f"bench:{number}", host="bench", pid=number, device="cpu")
        self.lease: Lease | None = None
        self.trials: list[AskedTrial] = []
        self.epoch = 0
        self.began = 0.0
        self.pause = BEAT_SECONDS

    def claim(self) -> float | None:
        lease = self.clock.call("claim", lambda: self.leases.claim(self.id, LEASE_SECONDS))
        if lease is None:
            self.clock.call("idle", lambda: None)
            return LISTENING_SECONDS
        self.lease, self.trials, self.epoch, self.began = lease, [], 0, time.monotonic()
        pace = self.clock.after
        pace(LEASE_SECONDS / 3, partial(self.renew, lease))
        self.pause = BEAT_SECONDS
        pace(BEAT_SECONDS, partial(self.beat, lease))
        if self.searches and lease.phase == "finalize":
            pace(FINALIZING_SECONDS, partial(self.finish, lease))
        elif self.searches:
            pace(STOPS_SECONDS, partial(self.look, lease))
            pace(0.1, partial(self.train, lease))
        return None

    def renew(self, lease: Lease) -> float | None:
        if lease is not self.lease:
            return None
        self.clock.call("renew", lambda: self.leases.renew(lease, LEASE_SECONDS))
        return LEASE_SECONDS / 3

    def beat(self, lease: Lease) -> float | None:
        if lease is not self.lease:
            return None
        stats = {
            "state": "searching",
            "study": lease.study_id,
            "lanes": LANES,
            "shares": {"training": 0.97, "sampling": 0.01},
        }
        self.clock.call("beat", lambda: self.store.workers.beat(self.id, stats))
        self.pause = min(2 * self.pause, RARE_SECONDS)
        return self.pause

    def idle(self) -> float:
        self.clock.call("claim", lambda: self.leases.claim(self.id, LEASE_SECONDS))
        self.clock.call("beat", lambda: self.store.workers.beat(self.id, {"state": "idle"}))
        return max(IDLE_SECONDS, LISTENING_SECONDS)

    def look(self, lease: Lease) -> float | None:
        if lease is not self.lease:
            return None
        self.clock.call("stops", lambda: self.store.stops.asked(lease))
        return STOPS_SECONDS

    def train(self, lease: Lease) -> float | None:
        """One epoch of all lanes."""
        if lease is not self.lease:
            return None
        if not self.trials:
            self.trials, self.epoch = self.clock.call("ask", lambda: self.store.trials.ask(lease, PROPOSALS)), 0
            if not self.trials:
                return self.leave(lease)
            return EPOCH_SECONDS[0]
        reports = [Report(trial.id, self.epoch, 1.0) for trial in self.trials]
        self.epoch += 1
        ended = self.epoch == EPOCHS
        results = [TrialResult(trial.id, "complete", 1.0, 0, "epochs", EPOCHS) for trial in self.trials] if ended else []
        self.clock.call("tell" if ended else "report", lambda: self.store.trials.record(lease, reports, results))
        self.trials = [] if ended else self.trials
        late = time.monotonic() - self.began > TURN_SECONDS
        if late and self.clock.call("others_wait", lambda: self.leases.others_wait(lease)):
            return self.leave(lease)
        return 0.0 if ended else EPOCH_SECONDS[0]

    def finish(self, lease: Lease) -> float | None:
        self.clock.call("finish", lambda: self.store.studies.finish(lease, {"verdict": ""}))
        self.take_next()
        return None

    def leave(self, lease: Lease) -> float | None:
        self.clock.call("release", lambda: self.leases.release(lease))
        self.take_next()
        return None

    def take_next(self) -> None:
        self.lease = None
        self.clock.after(0.0, self.claim)


EPOCH_SECONDS = [4.0]
"""Set by the option, in every process."""


def drive(url: str, kind: str, workers: int, seconds: float) -> dict[str, Any]:
    """The part of one process: its workers begin within 10 s; what is measured begins when they have."""
    store = open_store(url, Connections(kept=THREADS))
    clock = Clock()
    start = time.monotonic()
    ramp = max(10.0, PROCESSES * workers / 25)
    for number in range(workers):
        each = Simulated(store, clock, number, searches=kind == "search")
        clock.after(ramp * number / workers, each.idle if kind == "idle" else each.claim)
    measured = max(ramp + 2 * EPOCH_SECONDS[0], time.monotonic() - start)
    threading.Timer(measured, clock.forget).start()
    clock.run(time.monotonic() + measured + seconds)
    store.close()
    return {"seconds": clock.seconds, "late": clock.late, "errors": clock.errors}


def processor_seconds(*processes: psutil.Process) -> float:
    """Of processes and of their children, also of those that have ended."""
    total = 0.0
    for each in [each for process in processes for each in (process, *process.children())]:
        try:
            times = each.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def round_of(server: psutil.Process, url: str, kind: str, workers: int, given: argparse.Namespace) -> dict[str, Any]:
    """One round: ``workers`` of a kind, for ``--seconds``."""
    store = open_store(url)
    before = facts(store)
    module = [sys.executable, "-m", "tests.benchmarks.queue_scale", "--drive", kind, "--url", url]
    sizes = ["--seconds", str(given.seconds), "--epoch-seconds", str(given.epoch_seconds), "--workers"]
    command = [*module, *sizes, str(-(-workers // PROCESSES))]
    drivers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(PROCESSES)]
    for driver in drivers:
        while driver.stdout is not None and driver.stdout.readline() not in ("measuring\n", ""):
            pass
    clients = [psutil.Process(driver.pid) for driver in drivers]
    start, used, driven = time.monotonic(), processor_seconds(server), processor_seconds(*clients)
    time.sleep(0.9 * given.seconds)  # the connections of the drivers, and what they have used, are gone after their end
    passed = time.monotonic() - start
    busy, driving = (processor_seconds(server) - used) / passed, (processor_seconds(*clients) - driven) / passed
    parts = [json.loads(driver.communicate()[0]) for driver in drivers]
    after = facts(store)
    release_all(store)
    store.close()
    shared = {"server_processors": round(busy, 3), "drivers_processors": round(driving, 3)}
    return {**figures(parts), **shared, **{name: after[name] - before[name] for name in after}}


def facts(store: Store) -> dict[str, int]:
    """Of the whole database: deadlocks, and trials told."""
    queries = {
        "deadlocks": "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()",
        "trials_told": "SELECT coalesce(sum(told), 0) FROM rs_studies",
        "leases_lost": "SELECT coalesce(sum(lost_leases), 0) FROM rs_studies",
    }
    whole = text("SELECT " + ", ".join(f"({query}) AS {name}" for name, query in queries.items()))
    row = store.database.read(lambda connection: connection.execute(whole).mappings().one())
    return {name: int(value) for name, value in row.items()}


def release_all(store: Store) -> None:
    """Leave a queue without workers, as it was before."""
    rows = store.database.read(lambda c: c.execute(text("SELECT token, study_id, worker_id, phase FROM rs_leases")).all())
    for row in rows:
        store.leases.release(Lease(row.token, row.study_id, row.worker_id, row.phase, 0))


def figures(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Milliseconds of each kind of call, and how many there were; how late the drivers were; errors."""
    found: dict[str, Any] = {}
    for name in sorted({name for part in parts for name in part["seconds"]}):
        found[name] = _quantiles([seconds for part in parts for seconds in part["seconds"].get(name, ())])
    late = _quantiles([seconds for part in parts for seconds in part["late"]])
    errors = sum((Counter(part["errors"]) for part in parts), Counter())
    return {"calls_ms": found, "drivers_late_ms": late, "errors": dict(errors)}


def _quantiles(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(1000 * each for each in seconds)
    at = {"median": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
    return {name: round(ordered[int(q * (len(ordered) - 1))], 2) for name, q in at.items()} | {"n": len(ordered)}


def fill(url: str, studies: int) -> None:
    """Queue studies, a few at the same time."""
    store = open_store(url, create=True)
    with ThreadPoolExecutor(4) as threads:
        for _ in threads.map(lambda number: store.studies.submit(spec(number)), range(studies)):
            pass
    store.close()


def shares(rounds: dict[str, dict[str, Any]]) -> Iterator[tuple[str, Any]]:
    """What is asked: medians of claims, and what of the server's processors goes to heartbeats and to idle workers."""
    processors = os.cpu_count() or 1
    for name, each in rounds.items():
        kind, workers = name.split()
        if kind == "search":
            calls = each["calls_ms"]
            medians = {
                call: calls[call]["median"] for call in ("claim", "renew", "beat", "ask", "report", "tell") if call in calls
            }
            rest = {key: each[key] for key in ("deadlocks", "leases_lost", "errors", "trials_told")}
            yield f"{workers}_workers", {"median_ms": medians, "claim_max_ms": calls["claim"]["max"], **rest}
        else:
            yield f"{workers}_workers_{kind}_share_of_server", round(each["server_processors"] / processors, 4)


def main() -> None:
    """All sizes, one after the other, on one server."""
    small = {"workers": [2, 6], "studies": 30, "seconds": 5.0, "epoch_seconds": 0.5}
    options = Options("queue_scale", __doc__, quick=small)
    options.add_argument("--workers", type=int, nargs="+", default=[10, 100, 300, 1000], help="at the same time")
    options.add_argument("--studies", type=int, default=10_000, help="in the queue")
    options.add_argument("--seconds", type=float, default=60.0, help="that a round is measured")
    options.add_argument("--epoch-seconds", type=float, default=4.0, help="between two reports of a worker")
    options.add_argument("--drive", choices=("search", "heartbeats", "idle"), help="be one of the processes with workers")
    options.add_argument("--url", help="that process's database")
    given = options.given()
    EPOCH_SECONDS[0] = given.epoch_seconds
    if given.drive is not None:
        sys.stdout.write(json.dumps(drive(given.url, given.drive, given.workers[0], given.seconds)) + "\n")
        return
    rounds = Rounds("queue_scale", given, count="workers", lanes=LANES, epochs=EPOCHS, owners=OWNERS, processes=PROCESSES)
    done: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="regsearch-bench-") as scratch:
        from tests.postgres import start_postgres  # noqa: PLC0415  # optional

        server = start_postgres(Path(scratch) / "pg")
        urls = {}
        for name, studies in (("queue", given.studies), ("empty", 0)):
            server.psql(f"CREATE DATABASE bench_{name}")
            urls[name] = server.get_uri().replace("/postgres?", f"/bench_{name}?")
            fill(urls[name], studies)
        process = server.get_postmaster_info().process
        try:
            for workers in given.workers:
                for kind, place in (("search", "queue"), ("heartbeats", "queue"), ("idle", "empty")):
                    name = f"{kind} {workers}"
                    done[name] = rounds.once(name, partial(round_of, process, urls[place], kind, workers, given))
        finally:
            server.cleanup()
    rounds.conclude(dict(shares(done)))


if __name__ == "__main__":
    main()
