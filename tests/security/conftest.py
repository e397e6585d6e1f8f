"""A service with tokens on: two owners with studies and data sets, and a token of each scope."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from service.api.app import create_app
from service.settings import Settings
from service.store import Store, open_store
from service.store.records import TokenScope
from tests.api import conftest as shared

SCOPES: tuple[TokenScope, ...] = get_args(TokenScope)
ANN, BOB = "ann", "bob"
CSV = "a,b,y\n" + "".join(f"{n},{n % 7},{n % 2}\n" for n in range(100))
app = shared.app
"""A fixture, here of a service with tokens."""
EXTERNAL = {"executor": "external", "metric": "log_loss", "space": {"dropout": [0, 0.1]}, "budget": {"trials": 2}}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", auth="tokens")


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Owner]]:
    """A home with the two owners, made once and copied for each test."""
    home = tmp_path_factory.mktemp("prepared") / "home"
    home.mkdir()
    settings = Settings(home=home, auth="tokens")
    made = open_store(settings.database_url, create=True)
    with TestClient(create_app(made, settings), base_url="http://localhost") as client:
        owners = {name: make_owner(made, client, name) for name in (ANN, BOB)}
    made.close()
    return home, owners


@pytest.fixture
def store(settings: Settings, prepared: tuple[Path, dict[str, Owner]]) -> Iterator[Store]:
    shutil.copytree(prepared[0], settings.home)
    opened = open_store(settings.database_url)
    yield opened
    opened.close()


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, base_url="http://localhost", raise_server_exceptions=False, follow_redirects=False) as opened:
        yield opened


@dataclass(frozen=True)
class Owner:
    """An owner with a token of each scope, a study, an external study, one that has ended, a data set and a webhook."""

    tokens: dict[str, str]
    study: int
    external: int
    ended: int
    dataset: str
    webhook: int

    def headers(self, scope: str) -> dict[str, str]:
        return bearer(self.tokens[scope])


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def make_owner(store: Store, client: TestClient, name: str) -> Owner:
    tokens: dict[str, str] = {scope: store.tokens.create(owner=name, scope=scope)[1] for scope in SCOPES}
    headers = bearer(tokens["submit"])

    def posted(path: str, **body: Any) -> Any:
        answer = client.post(path, headers=headers, **body)
        assert answer.status_code == 201, answer.text
        return answer.json()["id"]

    dataset = posted("/v1/datasets", files={"file": (f"{name}.csv", f"{CSV}{len(name)},{ord(name[0])},1\n")})
    study = posted("/v1/studies", json={"name": f"of {name}", "data": {"dataset": dataset, "target": "y"}})
    external = posted("/v1/studies", json={**EXTERNAL, "name": f"external of {name}"})
    ended = posted("/v1/studies", json={**EXTERNAL, "name": f"ended of {name}"})
    store.studies.cancel(ended)
    webhook = posted("/v1/webhooks", json={"url": f"https://127.0.0.1/{name}"})
    return Owner(tokens, study, external, ended, dataset, webhook)


@pytest.fixture
def ann(prepared: tuple[Path, dict[str, Owner]]) -> Owner:
    return prepared[1][ANN]


@pytest.fixture
def bob(prepared: tuple[Path, dict[str, Owner]]) -> Owner:
    return prepared[1][BOB]
