"""The application in this process on a fresh SQLite store, and as a process of its own where processes matter."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from service.api.app import create_app
from service.cli.supervisor import free_port
from service.client.connection import HttpClient
from service.settings import Settings
from service.store import Store, open_store
from tests.servers import S3


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed database with the schema and nothing in it: a copy of it is there sooner than a new one."""
    path = tmp_path_factory.mktemp("empty") / "regsearch.db"
    open_store(f"sqlite:///{path}", create=True).close()
    return path


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    roots = tmp_path / "allowed"
    roots.mkdir()
    return Settings(home=tmp_path / "home", data_roots=(roots,), max_upload_mb=0.01)


@pytest.fixture
def store(settings: Settings, empty_database: Path) -> Iterator[Store]:
    settings.home.mkdir()
    shutil.copy(empty_database, settings.home)
    opened = open_store(settings.database_url)
    yield opened
    opened.close()


@pytest.fixture
def app(store: Store, settings: Settings) -> FastAPI:
    return create_app(store, settings)


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as opened:
        yield opened


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    """An S3 server without content."""
    server = S3()
    yield server
    server.stop()


@pytest.fixture
def credentials(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that the server knows, in the environment of the service."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)


class Serving:
    """A running `regsearch serve`, without workers."""

    def __init__(self, home: Path, port: int, **settings: str) -> None:
        self.home = home
        self.url = f"http://127.0.0.1:{port}"
        self.environment = {
            **os.environ,
            "COLUMNS": "200",
            "REGSEARCH_HOME": str(home),
            "REGSEARCH_PORT": str(port),
            "REGSEARCH_LOG_FORMAT": "json",
            **{f"REGSEARCH_{name.upper()}": value for name, value in settings.items()},
        }
        home.mkdir(parents=True, exist_ok=True)
        self.log = home / "serve.log"
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "service.cli", "serve"]
            self.process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
        self.client = HttpClient(self.url)
        self.client.wait_until_ready(120)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A `regsearch` command against it."""
        command = [sys.executable, "-m", "service.cli", *arguments]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False, timeout=120)

    def lines(self) -> list[dict[str, Any]]:
        """Its log, line by line."""
        return [json.loads(line) for line in self.log.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def line(self, **wanted: Any) -> dict[str, Any]:
        """The last line of its log with these values; waits for it, for a line is written after its answer.

        Raises:
            IndexError: It does not come.
        """
        give_up = time.monotonic() + 60
        while True:
            found = [line for line in self.lines() if wanted.items() <= line.items()]
            if found or time.monotonic() > give_up:
                return found[-1]
            time.sleep(0.02)

    def stop(self) -> None:
        """Stop it.

        Raises:
            subprocess.TimeoutExpired: It does not end.
        """
        self.client.close()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


@pytest.fixture(scope="session")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    running = Serving(tmp_path_factory.mktemp("serving") / "home", free_port(), max_upload_mb="2")
    yield running
    running.stop()
