"""Both databases for one suite: an SQLite file, and a real PostgreSQL server started once per session.

The schema is created once per database system; every test gets its own copy.
"""

from __future__ import annotations

import itertools
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL

from service.spec import StudySpec
from service.store import Store, open_store
from service.store.engine import normalize
from service.trained import TrainedModels
from tests.postgres import restart_postgres, start_postgres
from tests.trained import models_of

_names = itertools.count()

# The data need not survive a power failure, and the disk of a test machine may be slow. Commits stay synchronous: a crash
# of the server alone, which tests provoke, must lose none.
_SETTINGS = ("fsync = off", "full_page_writes = off")


class Server:
    """A PostgreSQL server with one database per test."""

    def __init__(self, directory: Path) -> None:
        self._server = start_postgres(directory)
        self._url = normalize(self._server.get_uri())
        for setting in _SETTINGS:
            self.execute(f"ALTER SYSTEM SET {setting}")
        self.execute("SELECT pg_reload_conf()")

    def execute(self, statement: str) -> None:
        """Run a statement in the server's default database, outside a transaction."""
        engine = create_engine(self._url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(statement))
        engine.dispose()

    def database(self, name: str, template: str = "template1") -> str:
        """Create a database; returns its URL."""
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
        return self.url(name).render_as_string(hide_password=False)

    def url(self, name: str) -> URL:
        """The URL of a database."""
        return self._url.set(database=name)

    def crash(self) -> None:
        """Stop it as a crash would: connections are cut, nothing is cleaned up."""
        process = self._server.get_postmaster_info().process
        assert process is not None
        process.send_signal(signal.SIGQUIT)
        process.wait(30)

    def start(self) -> None:
        """Restart it after a crash."""
        restart_postgres(self._server)

    def stop(self) -> None:
        """Stop it permanently."""
        self.crash()  # an orderly shutdown would write databases to disk that are deleted anyway
        self._server.cleanup()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """The server of this session, with a template database `prepared` that has the schema."""
    with tempfile.TemporaryDirectory(prefix="regsearch-pg-") as directory:
        server = Server(Path(directory))
        open_store(server.database("prepared"), create=True).close()
        yield server
        server.stop()


@pytest.fixture(scope="session")
def prepared_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file that has the schema."""
    path = tmp_path_factory.mktemp("prepared") / "regsearch.db"
    open_store(f"sqlite:///{path}", create=True).close()
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def backend(request: pytest.FixtureRequest) -> str:
    """The database system."""
    return str(request.param)


@pytest.fixture
def empty_url(request: pytest.FixtureRequest, backend: str, tmp_path: Path) -> Iterator[str]:
    """URL of an empty database."""
    if backend == "sqlite":
        path = tmp_path / "regsearch.db"
        path.touch()  # which is an empty database
        yield f"sqlite:///{path}"
        return
    yield from _own_database(request.getfixturevalue("postgres"), "template1")


@pytest.fixture
def database_url(request: pytest.FixtureRequest, backend: str, tmp_path: Path) -> Iterator[str]:
    """URL of a database with a fresh schema."""
    if backend == "sqlite":
        path = tmp_path / "regsearch.db"
        shutil.copyfile(request.getfixturevalue("prepared_file"), path)  # closed, so it has no journal
        yield f"sqlite:///{path}"
        return
    yield from _own_database(request.getfixturevalue("postgres"), "prepared")


def _own_database(server: Server, template: str) -> Iterator[str]:
    name = f"test_{next(_names)}"
    yield server.database(name, template)
    server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    """An open store with a fresh schema."""
    opened = open_store(database_url)
    yield opened
    opened.close()


@pytest.fixture
def models(store: Store, tmp_path: Path) -> TrainedModels:
    """The trained models of a store, in a folder."""
    return models_of(store, tmp_path)


def a_spec(**changes: object) -> StudySpec:
    """A small resolved study."""
    budget = {"trials": 10, "epochs": 5, **(changes.pop("budget", {}) or {})}  # type: ignore[dict-item]
    raw = {"data": {"dataset": "diabetes"}, "name": "small", "budget": budget, **changes}
    return StudySpec.model_validate(raw).resolved("regression")
