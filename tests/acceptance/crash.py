"""A harness that kills and freezes processes of the real service at random, and checks in the database what is left.

Used by a short test and by the long benchmark `tests/benchmarks/crash.py`.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy import text

from service.cli.client import Client
from service.cli.supervisor import free_port
from service.store import Store, open_store
from tests.postgres import restart_postgres, start_postgres

LEASE_SECONDS = 2.0
ENDED = ("finished", "failed", "cancelled")


class Postgres:
    """A PostgreSQL server that may be killed and started again.

    Its data are in a directory of their own: the server runs as another user, whom pytest locks out of its directories.
    """

    def __init__(self) -> None:
        self._directory = tempfile.mkdtemp(prefix="regsearch-pg-")
        self.server = start_postgres(Path(self._directory))

    @property
    def url(self) -> str:
        """Of its only database."""
        return str(self.server.get_uri())

    def crash(self) -> None:
        """SIGKILL to the postmaster, and a new one behind it."""
        pid = self.server.get_pid()
        os.kill(pid, signal.SIGKILL)
        while _alive(pid):
            time.sleep(0.02)
        restart_postgres(self.server)

    def stop(self) -> None:
        """End it for good."""
        self.server.cleanup()
        shutil.rmtree(self._directory, ignore_errors=True)


class Cluster:
    """An API and workers on one database, each a process, started again whenever it is gone."""

    def __init__(self, home: Path, url: str, *, workers: int, seed: int, postgres: Postgres | None = None) -> None:
        self.url = url
        self.port = free_port()
        self.client = Client(f"http://127.0.0.1:{self.port}")
        self.postgres = postgres
        self.kills: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._home = home
        self._frozen: list[tuple[float, subprocess.Popen[bytes]]] = []
        self._environment = {
            **os.environ,
            "REGSEARCH_HOME": str(home),
            "REGSEARCH_CACHE": str(home / "cache"),
            "REGSEARCH_DB_URL": url,
            "REGSEARCH_PORT": str(self.port),
            "REGSEARCH_LEASE_SECONDS": str(LEASE_SECONDS),
            "OMP_NUM_THREADS": "1",
        }
        self._api = self._start("service.cli", "serve")
        self.client.wait_until_ready(120)
        self._workers = [self._start("workers", "--device", "cpu") for _ in range(workers)]

    def _start(self, *module: str) -> subprocess.Popen[bytes]:
        log = (self._home / f"{module[0]}.log").open("ab")
        with log:
            return subprocess.Popen(
                [sys.executable, "-m", *module], env=self._environment, stdout=log, stderr=log, start_new_session=True
            )

    def strike(self) -> None:
        """One blow at random: kill a worker, freeze one past its lease, kill the API, or kill the database server."""
        blows: list[tuple[str, Callable[[], None]]] = [
            ("kill worker", self._kill_worker),
            ("kill worker", self._kill_worker),
            ("freeze worker", self._freeze_worker),
            ("kill api", self._kill_api),
        ]
        if self.postgres is not None:
            blows.append(("kill postgresql", self.postgres.crash))
        name, blow = self._random.choice(blows)
        blow()
        self.kills[name] += 1

    def _kill_worker(self) -> None:
        self._random.choice(self._workers).kill()

    def _kill_api(self) -> None:
        self._api.kill()

    def _freeze_worker(self) -> None:
        worker = self._random.choice(self._workers)
        if worker.poll() is None:
            worker.send_signal(signal.SIGSTOP)
            self._frozen.append((time.monotonic() + 1.5 * LEASE_SECONDS, worker))

    def tend(self) -> None:
        """Thaw what has been frozen long enough, and start what is gone again."""
        now = time.monotonic()
        for due, worker in [each for each in self._frozen if each[0] <= now]:
            self._frozen.remove((due, worker))
            if worker.poll() is None:
                worker.send_signal(signal.SIGCONT)
        if self._api.poll() is not None:
            self._api = self._start("service.cli", "serve")
        self._workers = [
            worker if worker.poll() is None else self._start("workers", "--device", "cpu") for worker in self._workers
        ]

    def states(self) -> dict[int, str]:
        """Studies by id, as the API tells, waiting for it where it is being started."""
        while True:
            with suppress(Exception):
                return {study["id"]: study["state"] for study in self.client.get("/v1/studies")["studies"]}
            self.tend()
            time.sleep(0.2)

    def submit(self, spec: dict[str, Any]) -> int:
        """Queue a study."""
        return int(self.client.post("/v1/studies", spec)["id"])

    def stop(self) -> None:
        """End all processes."""
        for _, worker in self._frozen:
            worker.send_signal(signal.SIGCONT)
        for process in (*self._workers, self._api):
            process.terminate()
        for process in (*self._workers, self._api):
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.client.close()


def storm(cluster: Cluster, specs: list[dict[str, Any]], *, kills: int, pause: tuple[float, float]) -> None:
    """Strike ``kills`` times while studies are searched, then let them finish. More studies are queued as they end."""
    ids = [cluster.submit(spec) for spec in specs]
    chooser = random.Random(kills)
    struck = 0
    while True:
        states = cluster.states()
        open_studies = [study for study in ids if states.get(study) not in ENDED]
        if struck >= kills and not open_studies:
            return
        if struck < kills and len(open_studies) < 2:
            with suppress(Exception):  # the API may be down just now
                ids.append(cluster.submit(specs[len(ids) % len(specs)]))
        if struck < kills:
            cluster.strike()
            struck += 1
        time.sleep(chooser.uniform(*pause))
        cluster.tend()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def broken_invariants(url: str) -> list[str]:
    """What is wrong in the database after all studies have ended; empty if nothing is."""
    store = open_store(url)
    try:
        return _broken(store)
    finally:
        store.close()


QUERIES = {
    "a study that has not ended": "SELECT study_id FROM rs_studies WHERE state NOT IN ('finished')",
    "a budget that is not exact": "SELECT study_id FROM rs_studies WHERE complete + pruned + fail <> budget_trials",
    "counters that are not what they count": """
        SELECT s.study_id FROM rs_studies s JOIN trials t ON t.study_id = s.study_id GROUP BY s.study_id
        HAVING COUNT(*) <> MAX(s.budget_trials) OR MAX(s.told) <> MAX(s.budget_trials)
            OR SUM(CASE WHEN t.state = 'COMPLETE' THEN 1 ELSE 0 END) <> MAX(s.complete)
            OR SUM(CASE WHEN t.state = 'PRUNED' THEN 1 ELSE 0 END) <> MAX(s.pruned)""",
    "trial numbers that are not dense": """
        SELECT study_id FROM trials GROUP BY study_id
        HAVING MIN(number) <> 0 OR MAX(number) <> COUNT(*) - 1 OR COUNT(DISTINCT number) <> COUNT(*)""",
    "numbers that differ": """
        SELECT t.trial_id FROM trials t JOIN rs_trials r ON r.trial_id = t.trial_id WHERE t.number <> r.number""",
    "a trial left open": "SELECT trial_id FROM trials WHERE state IN ('RUNNING', 'WAITING')",
    "a lease left": "SELECT token FROM rs_leases UNION SELECT lease_token FROM rs_trials WHERE lease_token IS NOT NULL",
    "a trial told not once": "SELECT trial_id FROM rs_trials WHERE seq IS NULL",
    "a complete trial without its one value": """
        SELECT t.trial_id FROM trials t LEFT JOIN trial_values v ON v.trial_id = t.trial_id
        WHERE t.state = 'COMPLETE' GROUP BY t.trial_id HAVING COUNT(v.trial_value_id) <> 1""",
    "a value without an owner": """
        SELECT v.trial_id FROM trial_values v LEFT JOIN trials t ON t.trial_id = v.trial_id
        WHERE t.trial_id IS NULL OR t.state NOT IN ('COMPLETE', 'PRUNED')""",
    "a step that is missing or too many": """
        SELECT r.trial_id FROM rs_trials r LEFT JOIN trial_intermediate_values i ON i.trial_id = r.trial_id
        WHERE r.stop_reason <> 'worker lost' GROUP BY r.trial_id, r.epochs
        HAVING COUNT(i.step) <> r.epochs OR MAX(i.step) <> r.epochs - 1""",
}


def _broken(store: Store) -> list[str]:
    found = []
    with store.database.engine.connect() as connection:
        for what, query in QUERIES.items():
            rows = connection.execute(text(query)).all()
            if rows:
                found.append(f"{what}: {[tuple(row) for row in rows[:5]]}")
        curves = connection.execute(text("SELECT trial_id, epochs, curve FROM rs_trials WHERE curve IS NOT NULL"))
        for trial_id, epochs, curve in curves:
            lengths = {len(values) for values in json.loads(curve).values()}
            if lengths != {epochs}:
                found.append(f"an incomplete curve: trial {trial_id}, {epochs} epochs, {lengths} points")
    return found
