"""A harness that does harm to the real service at random, and checks in the database what is left.

Processes are killed and frozen, the disk is filled and freed, files are torn, clocks jump, memory runs out.

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
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import Connection, text

from service.atomic import PART
from service.cli.supervisor import free_port
from service.client.connection import HttpClient
from service.errors import RegsearchError
from service.store import Store, open_store
from tests.postgres import restart_postgres, start_postgres
from tests.trained import models_of

LEASE_SECONDS = 2.0
ENDED = ("finished", "failed", "cancelled")
_JUMP_SECONDS = 3600.0
_TIMES = {
    "rs_leases": ("expires_at",),
    "rs_workers": ("started_at", "seen_at"),
    "rs_studies": ("created_at", "started_at"),
    "rs_writes": ("at",),
}


class Postgres:
    """A PostgreSQL server that may be killed and started again.

    Its data are in a directory of their own: the server runs as another user, whom pytest locks out of its directories.
    """

    def __init__(self, place: Path | None = None) -> None:
        self._directory = tempfile.mkdtemp(prefix="regsearch-pg-", dir=place)
        self.server = start_postgres(Path(self._directory))

    @property
    def url(self) -> str:
        """Of its only database."""
        return str(self.server.get_uri())

    def crash(self) -> None:
        """SIGKILL to the postmaster, and a new one behind it."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """An end in which all connections are cut (`pg_ctl stop -m fast`), and a new start."""
        self._end(signal.SIGINT)

    def _end(self, number: int) -> None:
        pid = self.server.get_pid()
        if pid is not None and _alive(pid):
            os.kill(pid, number)
            while _alive(pid):
                time.sleep(0.02)
        restart_postgres(self.server)

    def tend(self) -> None:
        """Start it if it has ended, as it does on a full disk."""
        pid = self.server.get_pid()
        if pid is None or not _alive(pid):
            restart_postgres(self.server)

    def stop(self) -> None:
        """End it for good."""
        self.server.cleanup()
        shutil.rmtree(self._directory, ignore_errors=True)


class Disk:
    """A folder that can be full: a file system in memory. Only root may mount one; else it is a folder like others.

    It is outside of pytest's directories, as PostgreSQL runs as another user.
    """

    def __init__(self, megabytes: int = 512) -> None:
        self.place = Path(tempfile.mkdtemp(prefix="regsearch-disk-"))
        command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(self.place)]
        done = subprocess.run(command, capture_output=True, check=False) if shutil.which("mount") else None
        self.mounted = done is not None and done.returncode == 0
        self.place.chmod(0o755)

    def fill(self) -> None:
        """Take all the room that there is."""
        with suppress(OSError), (self.place / "ballast").open("ab") as file:
            while True:
                file.write(b"x" * 2**20)
                file.flush()

    def free(self) -> None:
        """Give it back."""
        (self.place / "ballast").unlink(missing_ok=True)

    def close(self) -> None:
        """Unmount and remove it."""
        if self.mounted:
            subprocess.run(["umount", "--lazy", str(self.place)], check=True)
        shutil.rmtree(self.place, ignore_errors=True)


class Cluster:
    """An API and workers on one database, each a process, started again whenever it is gone.

    ``disk`` is what ``home`` and an embedded database are on, if it can be filled.
    """

    def __init__(
        self,
        home: Path,
        url: str,
        *,
        workers: int,
        seed: int,
        postgres: Postgres | None = None,
        disk: Disk | None = None,
    ) -> None:
        self.url = url
        self.disk = disk
        self.port = free_port()
        self.client = HttpClient(f"http://127.0.0.1:{self.port}")
        self.postgres = postgres
        self.kills: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._home = home
        self._frozen: list[tuple[float, subprocess.Popen[bytes]]] = []
        self._undo: list[tuple[float, Callable[[], None]]] = []
        self._scratch = Path(tempfile.mkdtemp(prefix="regsearch-crash-"))  # which is never full
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
        """One blow at random."""
        blows: list[tuple[str, Callable[[], None]]] = [
            ("kill worker", self._kill_worker),
            ("kill worker", self._kill_worker),
            ("freeze worker", self._freeze_worker),
            ("kill api", self._kill_api),
            ("kill api and worker", self._kill_both),
            ("clock forward", partial(self._shift_clock, _JUMP_SECONDS)),
            ("clock back", partial(self._shift_clock, -_JUMP_SECONDS)),
            ("tear files", self._tear_files),
            ("kill reader", self._kill_reader),
            ("no memory", self._no_memory),
        ]
        if self.postgres is not None:
            for what, end in (("kill", self.postgres.crash), ("restart", self.postgres.restart)):
                blows.append((f"{what} postgresql", partial(self._end_postgres, end)))
        if self.disk is not None and self.disk.mounted:
            blows.append(("fill disk", self._fill_disk))
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

    def _end_postgres(self, end: Callable[[], None]) -> None:
        self._settle()  # it can't start on a full disk
        end()

    def _settle(self) -> None:
        """Undo at once what was done for a while."""
        for _, undo in self._undo:
            undo()
        self._undo = []

    def _kill_both(self) -> None:
        self._kill_api()
        self._kill_worker()

    def _shift_clock(self, seconds: float) -> None:
        """Have the database's clock jump: all times in it are moved the other way, which is the same."""
        with suppress(RegsearchError), closing(open_store(self.url)) as store:

            def shift(connection: Connection) -> None:
                for table, columns in _TIMES.items():
                    moved = ", ".join(f"{column} = {column} - ({seconds})" for column in columns)
                    connection.execute(text(f"UPDATE {table} SET {moved}"))

            store.database.write(shift)

    def _tear_files(self) -> None:
        """Half of a checkpoint and of a program are lost, and all of another one."""
        folders = (self._home / "checkpoints", self._home / "cache")
        files = [path for folder in folders for path in sorted(folder.rglob("*.*")) if path.is_file()]
        for path in self._random.sample(files, min(3, len(files))):
            with suppress(OSError):  # it is gone by now
                torn = path.read_bytes()[: self._random.choice((0, path.stat().st_size // 2))]
                copy = path.with_name(f"{path.name}.torn")
                copy.write_bytes(torn)
                copy.replace(path)  # as after a power failure: nobody has it open

    def _kill_reader(self) -> None:
        """An upload whose reader dies; the same content was uploaded before, and must not be lost."""
        upload = threading.Thread(target=self._upload, daemon=True)
        upload.start()
        give_up = time.monotonic() + 1.0
        while time.monotonic() < give_up and upload.is_alive():
            with suppress(psutil.Error):
                for child in psutil.Process(self._api.pid).children():
                    if "service.api.inspection" in child.cmdline():
                        child.kill()
                        return
            time.sleep(0.005)

    def _upload(self) -> None:
        with suppress(RegsearchError, OSError):
            self.client.upload(self.table, "table")

    def _no_memory(self) -> None:
        """For a second a worker gets no more than it has."""
        worker = self._random.choice(self._workers)
        with suppress(psutil.Error):
            process = psutil.Process(worker.pid)
            _, most = process.rlimit(psutil.RLIMIT_DATA)
            process.rlimit(psutil.RLIMIT_DATA, (process.memory_info().data, most))

            def restore() -> None:
                with suppress(psutil.Error):
                    process.rlimit(psutil.RLIMIT_DATA, (most, most))

            self._undo.append((time.monotonic() + 1.0, restore))

    def _fill_disk(self) -> None:
        assert self.disk is not None
        self.disk.fill()
        self._undo.append((time.monotonic() + 1.5 * LEASE_SECONDS, self.disk.free))

    @property
    def table(self) -> Path:
        """A file that studies use."""
        path = self._scratch / "table.csv"
        if not path.exists():
            rows = (f"{row * 37 % 101},{row * 7 % 13},{'abc'[row * row % 7 % 3]}\n" for row in range(300))
            path.write_text("first,second,class\n" + "".join(rows))
        return path

    def tend(self) -> None:
        """Thaw what has been frozen long enough, undo what was done for a while, and start what is gone again."""
        now = time.monotonic()
        for due, undo in [each for each in self._undo if each[0] <= now]:
            self._undo.remove((due, undo))
            undo()
        if self.postgres is not None and not self._undo:
            self.postgres.tend()
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
        self._settle()
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
        shutil.rmtree(self._scratch)


def storm(cluster: Cluster, specs: list[dict[str, Any]], *, kills: int, pause: tuple[float, float]) -> None:
    """Strike ``kills`` times while studies are searched, then let them finish. More studies are queued as they end.

    Every other study is of an uploaded file.
    """
    uploaded = cluster.client.upload(cluster.table, "table")["id"]
    specs = [*specs, *({**spec, "data": {"dataset": uploaded, "target": "class"}} for spec in specs)]
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


def broken_invariants(url: str, home: Path) -> list[str]:
    """What is wrong in the database, and among the models of the home, after all studies have ended; empty if nothing is."""
    with closing(open_store(url)) as store:
        return [*_broken(store), *_broken_models(store, home)]


QUERIES = {
    "a study that has not ended, or for no good reason": """
        SELECT study_id, state, reason FROM rs_studies WHERE state <> 'finished'
        AND NOT (state = 'failed' AND reason LIKE '%memory%')""",
    "a budget that is not exact": """
        SELECT study_id FROM rs_studies WHERE state = 'finished' AND complete + pruned + fail <> budget_trials""",
    "counters that are not what they count": """
        SELECT s.study_id FROM rs_studies s JOIN trials t ON t.study_id = s.study_id WHERE s.state = 'finished'
        GROUP BY s.study_id HAVING COUNT(*) <> MAX(s.budget_trials) OR MAX(s.told) <> MAX(s.budget_trials)
            OR SUM(CASE WHEN t.state = 'COMPLETE' THEN 1 ELSE 0 END) <> MAX(s.complete)
            OR SUM(CASE WHEN t.state = 'PRUNED' THEN 1 ELSE 0 END) <> MAX(s.pruned)""",
    "trial numbers that are not dense": """
        SELECT study_id FROM trials GROUP BY study_id
        HAVING MIN(number) <> 0 OR MAX(number) <> COUNT(*) - 1 OR COUNT(DISTINCT number) <> COUNT(*)""",
    "numbers that differ": """
        SELECT t.trial_id FROM trials t JOIN rs_trials r ON r.trial_id = t.trial_id WHERE t.number <> r.number""",
    "a trial left open": "SELECT trial_id FROM trials WHERE state IN ('RUNNING', 'WAITING')",
    "a lease left": "SELECT token FROM rs_leases UNION SELECT lease_token FROM rs_trials WHERE lease_token IS NOT NULL",
    "leases that are not counted": """
        SELECT study_id, held FROM rs_studies s
        WHERE held <> (SELECT COUNT(*) FROM rs_leases l WHERE l.study_id = s.study_id)""",
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


def _broken_models(store: Store, home: Path) -> Iterator[str]:
    """Every finished study has its own archive, whole; every other object is written down as a stray."""
    models = models_of(store, home)
    with store.database.engine.connect() as connection:
        studies = connection.execute(text("SELECT study_id FROM rs_studies WHERE state = 'finished'")).scalars().all()
        rows = connection.execute(text("SELECT object, onnx_object FROM rs_model_archives")).all()
    for study_id in studies:
        try:
            with models.archive(study_id) as path, zipfile.ZipFile(path) as files:
                found = json.loads(files.read("recipe.json"))["study"]["id"]
        except (RegsearchError, zipfile.BadZipFile) as error:
            found = error
        if found != study_id:
            yield f"a study without its archive: {study_id}, {found}"
    named = {*store.archives.strays(1_000_000), *(name for row in rows for name in row)}
    kept = {f"models/{path.name}" for path in (home / "models").glob("*") if path.suffix != PART}
    if kept - named:
        yield f"objects that nothing names: {sorted(kept - named)[:5]}"


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
