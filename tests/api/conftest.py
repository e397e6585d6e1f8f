"""The application in this process on a fresh SQLite store, for tests that need no socket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from service.api.app import create_app
from service.settings import Settings
from service.store import Store, open_store


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    roots = tmp_path / "allowed"
    roots.mkdir()
    return Settings(home=tmp_path / "home", data_roots=(roots,), max_upload_mb=0.01)


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    opened = open_store(settings.database_url, create=True)
    yield opened
    opened.close()


@pytest.fixture
def app(store: Store, settings: Settings) -> FastAPI:
    return create_app(store, settings)


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, raise_server_exceptions=False) as opened:
        yield opened
