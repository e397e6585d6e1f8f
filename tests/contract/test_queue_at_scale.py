"""A long queue: the order in which studies are served, how idle workers learn of work, and a pooler before PostgreSQL."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from service.settings import Connections
from service.store import Store, StudyState, bell, open_store
from service.store.bell import Bell
from service.store.records import Report
from tests.contract.conftest import Server, a_spec
from tests.contract.test_trials import complete, proposals

POOLER = shutil.which("pgbouncer")


def held(store: Store) -> dict[int, int]:
    query = "SELECT study_id, held FROM rs_studies ORDER BY study_id"
    return dict(store.database.read(lambda connection: [tuple(row) for row in connection.execute(text(query))]))


def test_studies_are_served_in_the_order_of_the_queue(store: Store) -> None:
    chance = random.Random(0)
    kinds = {
        store.studies.submit(a_spec(owner=f"o{chance.randrange(4)}", priority=chance.randrange(3), budget={"trials": 5})): 0
        for _ in range(24)
    }
    studies = {each: store.studies.get(each) for each in kinds}
    served, all_of = dict.fromkeys(kinds, 0), Counter[str]()
    for turn in range(1, 49):
        owned = dict(all_of)

        def order(study: int, owned: dict[str, int] = owned) -> tuple[int, ...]:
            return -studies[study].priority, owned.get(studies[study].owner, 0), kinds[study], served[study], study

        lease = store.leases.claim("worker", 60)
        assert lease is not None
        assert lease.study_id == min(kinds, key=order)
        kinds[lease.study_id] += 1
        all_of[studies[lease.study_id].owner] += 1
        served[lease.study_id] = turn
        if turn % 3 == 0:
            store.studies.pause(lease.study_id)  # it is out of the queue
            kinds.pop(lease.study_id)
        if turn % 7 == 0:
            store.leases.release(lease)
            all_of[studies[lease.study_id].owner] -= 1
            if lease.study_id in kinds:
                kinds[lease.study_id] -= 1
        if not kinds:
            break


def test_a_study_that_others_write_to_delays_no_claim_of_another(postgres: Server) -> None:
    """A frozen process may hold the row of a study: others of its priority go first, none of a lower one."""
    with closing(open_store(postgres.database("busy", "prepared"))) as store:
        low, *high = (store.studies.submit(a_spec(priority=priority)) for priority in (0, 1, 1))
        with store.database.engine.connect() as frozen:
            frozen.execute(text("SELECT 1 FROM rs_studies WHERE study_id = :id FOR UPDATE"), {"id": high[0]})
            leases = [store.leases.claim(f"worker {i}", 60) for i in range(3)]
            assert [lease.study_id for lease in leases if lease] == [high[1]] * 3
            store.studies.pause(high[1])
            claimed: list[int] = []

            def claim() -> None:
                lease = store.leases.claim("patient", 60)
                claimed.append(lease.study_id if lease else 0)

            patient = threading.Thread(target=claim)
            patient.start()
            patient.join(0.5)
            assert claimed == []
        patient.join(30)
        assert claimed == [high[0]]
        assert held(store) == {low: 0, high[0]: 1, high[1]: 3}


def test_leases_are_counted_however_they_end(store: Store) -> None:
    first, second = (store.studies.submit(a_spec(budget={"trials": 4})) for _ in range(2))
    leases = [store.leases.claim(f"worker {i}", 60) for i in range(5)]
    assert held(store) == {first: 3, second: 2}
    assert leases[0] is not None
    assert leases[1] is not None
    store.leases.release(leases[0])
    store.leases.expire("worker 2")
    store.leases.reap()
    assert held(store) == {first: 1, second: 2}
    store.studies.cancel(second)
    trials = store.trials.ask(leases[4], proposals(4)) if leases[4] else []
    assert store.trials.record(leases[4], [], [complete(trial) for trial in trials]) is StudyState.FINALIZING  # type: ignore[arg-type]
    assert held(store) == {first: 0, second: 0}
    final = store.leases.claim("worker", 60)
    assert final is not None
    assert held(store) == {first: 1, second: 0}
    store.studies.finish(final, {"verdict": ""})
    assert held(store) == {first: 0, second: 0}


def test_postgresql_tells_idle_workers_of_work(postgres: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that hears nothing would look after a minute."""
    monkeypatch.setattr(bell, "_LISTENING_SECONDS", 60.0)
    with closing(open_store(postgres.database("rung", "prepared"))) as store:
        ear, stopped, woken = Bell(store.database), threading.Event(), threading.Event()
        ear.wait(stopped)  # listens from now on

        def idle() -> None:
            ear.wait(stopped)
            woken.set()

        waiting = threading.Thread(target=idle)
        begun = time.monotonic()
        waiting.start()
        store.studies.submit(a_spec())
        assert woken.wait(30)
        assert time.monotonic() - begun < 60
        waiting.join()
        again = threading.Thread(target=idle)
        again.start()
        stopped.set()
        again.join(30)
        assert not again.is_alive()
        ear.hush()


def test_without_anybody_who_tells_a_worker_looks_more_and_more_rarely(database_url: str) -> None:
    with closing(open_store(database_url, Connections(pooler=True))) as store:
        ear, stopped = Bell(store.database), _Waits()
        for _ in range(20):
            ear.wait(stopped)
        longest = 0.5 if store.database.is_sqlite else 5.0
        assert stopped.seconds[:4] == [0.05, 0.1, 0.2, 0.4]
        assert stopped.seconds[-1] == longest
        ear.hush()
        ear.wait(stopped)
        assert stopped.seconds[-1] == 0.05


class _Waits(threading.Event):
    """Notes for how long it was waited for, at once."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.seconds.append(timeout or 0.0)
        return False


@pytest.fixture
def pooled(postgres: Server) -> Iterator[str]:
    """The URL of a database through PgBouncer, which has four connections for all transactions."""
    if POOLER is None:
        pytest.skip("PgBouncer is not installed")
    scratch = Path(tempfile.mkdtemp(prefix="regsearch-pooler-"))
    address = postgres.url("pooled")
    postgres.database("pooled")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (scratch / "users.txt").write_text('"postgres" ""\n')
    (scratch / "pgbouncer.ini").write_text(
        f"[databases]\npooled = host={address.query['host']} dbname=pooled user=postgres\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\nauth_file = {scratch}/users.txt\n"
        "unix_socket_dir =\npool_mode = transaction\ndefault_pool_size = 4\nmax_client_conn = 50\n"
    )
    scratch.chmod(0o755)  # it runs as the server's user
    directory = Path(str(address.query["host"]))
    user = ["-u", directory.owner()] if os.getuid() == 0 and directory.owner() != "root" else []
    command = [POOLER, *user, str(scratch / "pgbouncer.ini")]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    give_up = time.monotonic() + 60
    while time.monotonic() < give_up and process.poll() is None:
        with suppress(OSError), closing(socket.create_connection(("127.0.0.1", port), timeout=1)):
            break
        time.sleep(0.05)
    yield f"postgresql://postgres@127.0.0.1:{port}/pooled"
    process.terminate()
    process.wait(30)
    shutil.rmtree(scratch)


def test_a_pooler_may_lend_few_connections_to_all(pooled: str) -> None:
    with closing(open_store(pooled, Connections(kept=4, pooler=True), create=True)) as store:
        study = store.studies.submit(a_spec(budget={"trials": 40}))
        assert store.database.read(_timeout) == "10s"
        done: list[int] = []

        def work(name: str) -> None:
            with closing(open_store(pooled, Connections(kept=2, pooler=True))) as mine:
                lease = mine.leases.claim(name, 60)
                while lease is not None and (trials := mine.trials.ask(lease, proposals(2))):
                    mine.trials.record(lease, [Report(trial.id, 0, 1.0) for trial in trials], [])
                    mine.leases.renew(lease, 60)
                    mine.trials.record(lease, [], [complete(trial) for trial in trials])
                    done.extend(trial.number for trial in trials)

        workers = [threading.Thread(target=work, args=(f"worker {i}",)) for i in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert sorted(done) == list(range(40))
        assert store.studies.get(study).state is StudyState.FINALIZING


def _timeout(connection: Connection) -> str:
    return str(connection.execute(text("SHOW lock_timeout")).scalar_one())
