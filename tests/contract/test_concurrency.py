"""Concurrent processes and threads: exact budgets, dense numbers, one finalizer, one reaper, the queue in order."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from sqlalchemy import text

from service.errors import LeaseLost
from service.store import Store, StudyState
from service.store.records import DatasetRecord
from tests.contract.conftest import a_spec
from tests.contract.test_trials import complete, expire, proposals, started

T = TypeVar("T")

WORKER = """
import json, random, sys
from service.errors import LeaseLost
from service.store import open_store
from service.store.records import Report
from tests.contract.test_trials import complete, proposals

store, mine, random_ = open_store(sys.argv[1]), [], random.Random(sys.argv[2])
while (lease := store.leases.claim(sys.argv[2], 60)) is not None and lease.phase == "search":
    try:
        while trials := store.trials.ask(lease, proposals(random_.randint(1, 7))):
            store.trials.record(lease, [Report(trial.id, 0, 1.0) for trial in trials], [])
            store.trials.record(lease, [], [complete(trial) for trial in trials])
            mine += [trial.number for trial in trials]
    except LeaseLost:
        pass
    store.leases.release(lease)
print(json.dumps(mine))
store.close()
"""


def together(*calls: Callable[[], T]) -> list[T]:
    """Call all at the same time, each in its own thread; what they returned."""
    barrier, results, errors = threading.Barrier(len(calls)), list[T](), list[BaseException]()

    def run(call: Callable[[], T]) -> None:
        barrier.wait()
        try:
            results.append(call())
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    return results


def numbers(store: Store, query: str) -> Sequence[int]:
    return list(store.database.read(lambda connection: connection.execute(text(query)).scalars().all()))


def test_the_budget_is_exact_between_processes(store: Store, database_url: str) -> None:
    study_id = store.studies.submit(a_spec(budget={"trials": 200}))
    command = [sys.executable, "-c", WORKER, database_url]
    processes = [subprocess.Popen([*command, str(i)], stdout=subprocess.PIPE, text=True) for i in range(4)]
    taken = [json.loads(process.communicate(timeout=100)[0]) for process in processes]
    assert sorted(number for mine in taken for number in mine) == list(range(200))
    record = store.studies.get(study_id)
    assert (record.state, record.counts.complete, record.counts.finished) == (StudyState.FINALIZING, 200, 200)
    assert numbers(store, "SELECT number FROM trials ORDER BY trial_id") == list(range(200))
    assert numbers(store, "SELECT seq FROM rs_trials ORDER BY seq") == list(range(1, 201))


def test_a_study_is_finalized_by_one_of_many(store: Store) -> None:
    for _ in range(5):
        lease = started(store, budget={"trials": 1})
        store.trials.record(lease, [], [complete(trial) for trial in store.trials.ask(lease, proposals(1))])
        claims = together(*[partial(store.leases.claim, f"w{i}", 60) for i in range(6)])
        (final,) = [claim for claim in claims if claim]
        assert final.phase == "finalize"
        store.studies.finish(final, {})


def test_an_expired_lease_is_reaped_by_one_of_many(store: Store) -> None:
    leases = [started(store, owner=str(i)) for i in range(3)]
    for lease in leases:
        store.trials.ask(lease, proposals(2))
        expire(store, lease)
    assert sum(together(*[store.leases.reap] * 6)) == 3
    assert store.leases.lost() == 3
    assert set(numbers(store, "SELECT attempt FROM rs_trials")) == {1}


def test_a_waiting_trial_is_taken_by_one_of_many(store: Store) -> None:
    lease = started(store)
    store.trials.ask(lease, proposals(10))
    store.leases.release(lease)
    claims = [store.leases.claim(f"w{i}", 60) for i in range(5)]
    asks = [partial(store.trials.ask, mine, proposals(3)) for mine in claims if mine]
    taken = [trial.number for trials in together(*asks) for trial in trials]
    assert sorted(taken) == list(range(10))


def test_simultaneous_claims_are_spread_like_successive_ones(store: Store) -> None:
    """Each claim sees the leases of the earlier ones, so six studies of six owners get one worker each."""
    ids = {store.studies.submit(a_spec(owner=str(i))) for i in range(6)}
    claims = together(*[partial(store.leases.claim, f"w{i}", 60) for i in range(6)])
    assert {claim.study_id for claim in claims if claim} == ids


def test_priority_goes_first_while_others_write_to_that_study(store: Store) -> None:
    lease = started(store, priority=5, budget={"trials": 1_000_000})
    store.studies.submit(a_spec(priority=1))
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            trials = store.trials.ask(lease, proposals(4))
            store.trials.record(lease, [], [complete(trial) for trial in trials])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        claims = [store.leases.claim(f"w{i}", 60) for i in range(10)]
    finally:
        stop.set()
        writer.join()
    assert [claim.study_id for claim in claims if claim] == [lease.study_id] * 10


def test_simultaneous_submits_of_one_name(store: Store) -> None:
    together(*[lambda: store.studies.submit(a_spec(name="twin"))] * 6)
    names = sorted(record.name for record in store.studies.list()[0])
    assert names == ["twin", *(f"twin-{number}" for number in range(2, 7))]


def test_simultaneous_uploads_of_one_file(store: Store) -> None:
    record = DatasetRecord("abc", "mine", "mine.csv", "csv", 10, 3, (2,), ({"name": "a"},))
    together(*[lambda: store.datasets.add(record)] * 6)
    assert len(store.datasets.list()) == 1


def test_transitions_race_and_one_wins(store: Store) -> None:
    """A study that is cancelled while its workers ask and tell has no open trials."""
    lease = started(store, budget={"trials": 100})
    trials = store.trials.ask(lease, proposals(20))

    def record() -> None:
        for trial in trials:
            try:
                store.trials.record(lease, [], [complete(trial)])
            except LeaseLost:
                return

    together(record, lambda: store.studies.cancel(lease.study_id))
    counts = store.studies.get(lease.study_id).counts
    assert (counts.waiting, counts.running, counts.finished) == (0, 0, 20)
    assert numbers(store, "SELECT seq FROM rs_trials ORDER BY seq") == list(range(1, 21))
