"""Lost connections, restarted servers, unacknowledged commits: nothing is lost, nothing is done twice."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from sqlalchemy import event, insert, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import PoolProxiedConnection

from service.errors import DatabaseUnavailable, NotFound
from service.store import PING_SECONDS, Store, StudyState, open_store
from service.store import engine as engine_module
from service.store import tables as t
from service.store.engine import Database, normalize
from service.store.records import Lease, Report
from tests.clock import Clock
from tests.contract.conftest import Server, a_spec
from tests.contract.test_trials import complete, expire, proposals, started

GONE = "server closed the connection unexpectedly"


class Line:
    """The connection to the database; after `cut`, the next commit is done but its acknowledgement is lost."""

    def __init__(self, store: Store) -> None:
        self._dialect = store.database.engine.dialect
        self._commit = self._dialect.do_commit
        self._error = sqlite3.OperationalError if store.database.is_sqlite else psycopg.OperationalError
        self._is_cut = False
        self._dialect.do_commit = self._lossy  # type: ignore[method-assign]

    def cut(self) -> None:
        self._is_cut = True

    def mend(self) -> None:
        self._dialect.do_commit = self._commit  # type: ignore[method-assign]

    def was_cut(self) -> bool:
        return not self._is_cut

    def _lossy(self, dbapi_connection: PoolProxiedConnection) -> None:
        self._commit(dbapi_connection)
        if self._is_cut:
            self._is_cut = False
            raise self._error(GONE)


@pytest.fixture
def line(store: Store) -> Iterator[Line]:
    found = Line(store)
    yield found
    found.mend()


def test_a_submit_is_not_repeated(store: Store, line: Line) -> None:
    line.cut()
    study_id = store.studies.submit(a_spec(name="once"))
    assert line.was_cut()
    assert [(record.id, record.name) for record in store.studies.list()[0]] == [(study_id, "once")]


def test_writes_are_remembered_for_an_hour(store: Store) -> None:
    def keys() -> set[str]:
        return set(store.database.read(lambda connection: connection.execute(select(t.writes.c.key)).scalars()))

    old = {"key": "of yesterday", "at": 1.0, "answer": "null"}
    store.database.write(lambda connection: connection.execute(insert(t.writes).values(old)))
    store.studies.submit(a_spec())
    assert len(keys()) == 1
    assert "of yesterday" not in keys()
    store.studies.submit(a_spec())
    assert len(keys()) == 2


def test_an_extension_is_not_repeated(store: Store, line: Line) -> None:
    study_id = store.studies.submit(a_spec())
    line.cut()
    store.studies.extend(study_id, trials=5)
    assert line.was_cut()
    assert store.studies.get(study_id).budget_trials == 15


def test_a_repeated_transition_succeeds(store: Store, line: Line) -> None:
    study_id = store.studies.submit(a_spec())
    steps: list[tuple[Callable[[int], None], StudyState]] = [
        (store.studies.pause, StudyState.PAUSED),
        (store.studies.resume, StudyState.QUEUED),
        (store.studies.cancel, StudyState.CANCELLED),
    ]
    for step, state in steps:
        line.cut()
        step(study_id)
        assert line.was_cut()
        assert store.studies.get(study_id).state is state
    line.cut()
    store.studies.delete(study_id)
    with pytest.raises(NotFound):
        store.studies.get(study_id)


def test_a_worker_and_a_test_access_are_recorded_once(store: Store, line: Line) -> None:
    line.cut()
    worker = store.workers.register(name="w", host="h", pid=1, device="cpu")
    assert [record.id for record in store.workers.list()] == [worker]
    study_id = store.studies.submit(a_spec())
    line.cut()
    store.studies.open_test(study_id, "worker 1", "final score")
    assert len(store.studies.test_accesses(study_id)) == 1


def test_a_claim_is_not_repeated(store: Store, line: Line) -> None:
    study_id = store.studies.submit(a_spec(budget={"trials": 1}))
    line.cut()
    taken = store.leases._claims.take("worker", 60)
    assert line.was_cut()
    assert taken is not None
    lease = Lease(**taken)
    assert (lease.study_id, lease.worker_id, lease.phase, lease.ordinal) == (study_id, "worker", "search", 0)
    assert store.leases.renew(lease, 60) is StudyState.RUNNING
    other = store.leases.claim("other", 60)
    assert other is not None
    assert (other.study_id, other.ordinal) == (study_id, 1)


def test_an_ask_is_not_repeated_and_remembers_what_was_fresh(store: Store, line: Line) -> None:
    lease = started(store)
    store.trials.ask(lease, proposals(2))
    store.leases.release(lease)
    again = store.leases.claim("other", 60)
    assert again is not None
    line.cut()
    trials = store.trials.ask(again, proposals(5))
    assert line.was_cut()
    assert [(trial.number, trial.fresh) for trial in trials] == [(0, False), (1, False), *((n, True) for n in (2, 3, 4))]
    assert [dict(trial.params) for trial in trials[2:]] == [dict(proposal.params) for proposal in proposals(3)]
    assert store.studies.get(again.study_id).counts.running == 5


def test_the_last_record_of_a_study_can_be_repeated_although_its_lease_ended_with_it(store: Store, line: Line) -> None:
    lease = started(store, budget={"trials": 2})
    trials = store.trials.ask(lease, proposals(2))
    line.cut()
    state = store.trials.record(lease, [Report(trials[0].id, 0, 1.0)], [complete(trial) for trial in trials])
    assert line.was_cut()
    assert state is StudyState.FINALIZING
    record = store.studies.get(lease.study_id)
    assert (record.counts.complete, record.epochs) == (2, 6)


def test_a_finish_is_not_repeated(store: Store, line: Line) -> None:
    lease = started(store, budget={"trials": 1})
    store.trials.record(lease, [], [complete(trial) for trial in store.trials.ask(lease, proposals(1))])
    final = store.leases.claim("worker", 60)
    assert final is not None
    line.cut()
    store.studies.finish(final, {"verdict": "good"})
    assert line.was_cut()
    assert store.studies.get(lease.study_id).result == {"verdict": "good"}


def test_a_lease_is_taken_away_once(store: Store, line: Line) -> None:
    lease = started(store)
    store.trials.ask(lease, proposals(1))
    expire(store, lease)
    taken = store.leases._take_away

    def cut_and_take(*arguments: Any) -> bool:
        line.cut()
        return taken(*arguments)

    store.leases._take_away = cut_and_take  # type: ignore[assignment,method-assign]
    assert store.leases.reap() == 1
    assert line.was_cut()
    assert store.leases.lost() == 1
    assert store.history.trial(lease.study_id, 0).attempt == 1


def test_a_study_survives_a_restart_of_the_server(postgres: Server) -> None:
    """The server crashes in the middle of a study and is back a second later."""
    store = open_store(postgres.database("restarted", "prepared"))
    lease = started(store, budget={"trials": 40})
    back = threading.Timer(1.0, postgres.start)
    for round_ in range(8):
        trials = store.trials.ask(lease, proposals(5))
        if round_ == 3:
            postgres.crash()
            back.start()
        reports = [Report(trial.id, step, 1.0) for trial in trials for step in range(3)]
        store.trials.record(lease, reports, [complete(trial) for trial in trials])
    back.join()
    record = store.studies.get(lease.study_id)
    assert (record.counts.complete, record.counts.finished, record.epochs) == (40, 40, 120)
    assert record.state is StudyState.FINALIZING
    assert [trial.number for trial in store.history.since(lease.study_id, 0)] == list(range(40))
    store.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(engine_module, "time", made)
    return made


def test_a_ping_of_a_dead_server_fails_soon(postgres: Server, clock: Clock) -> None:
    store = open_store(postgres.database("pinged", "prepared"))
    store.database._sleep = clock.sleep
    postgres.crash()
    try:
        with pytest.raises(DatabaseUnavailable, match="does not respond"):
            store.ping()
        assert 0 < sum(clock.naps) <= PING_SECONDS
    finally:
        postgres.start()
    store.ping()
    store.close()


def test_retries_end_after_the_patience(postgres: Server, clock: Clock) -> None:
    server = normalize(postgres.database("patient", "prepared"))
    database = Database(server.set(host="127.0.0.1", port=1, query={}), patience_seconds=0.5, sleep=clock.sleep)
    with pytest.raises(DatabaseUnavailable, match="does not respond"):
        database.read(lambda connection: connection.exec_driver_sql("SELECT 1").scalar())
    assert clock.naps == [0.05, 0.1, 0.2]
    database.close()


def test_a_wrong_database_name_fails_at_once(postgres: Server) -> None:
    url = postgres.url("no_such_database")
    with pytest.raises(DatabaseUnavailable, match="does not exist"):
        open_store(url.render_as_string(hide_password=False))
    naps: list[float] = []
    database = Database(url, sleep=naps.append)
    with pytest.raises(DBAPIError, match="does not exist"):
        database.read(lambda connection: connection.exec_driver_sql("SELECT 1").scalar())
    assert naps == []
    database.close()


def test_a_process_frozen_inside_a_transaction_does_not_hold_its_locks(postgres: Server) -> None:
    """The server ends a session that is idle while it locks a study; here sooner than configured."""
    store = open_store(postgres.database("frozen", "prepared"))
    lease = started(store)
    (trial,) = store.trials.ask(lease, proposals(1))
    with store.database.engine.connect() as frozen:
        frozen.exec_driver_sql("SET idle_in_transaction_session_timeout = 500")
        frozen.exec_driver_sql("SELECT 1 FROM rs_studies FOR UPDATE")
        store.trials.record(lease, [], [complete(trial)])
        with pytest.raises(DBAPIError, match="idle-in-transaction"):
            frozen.exec_driver_sql("SELECT 1")
        frozen.invalidate()
    assert store.studies.get(lease.study_id).counts.complete == 1
    store.close()


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_a_write_waits_until_a_full_disk_has_room(store: Store) -> None:
    """SQLite's own limit on the size of its file: the error is that of a full disk."""
    engine = store.database.engine
    with engine.connect() as connection:
        most = [connection.exec_driver_sql("PRAGMA page_count").scalar_one()]
    event.listen(engine, "begin", lambda opened: opened.exec_driver_sql(f"PRAGMA max_page_count = {most[0]}"))
    waited: list[float] = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        most[0] = 1_000_000

    store.database._sleep = wait
    study = store.studies.submit(a_spec(), note="x" * 1_000_000)
    assert waited
    assert store.studies.get(study).state is StudyState.QUEUED
