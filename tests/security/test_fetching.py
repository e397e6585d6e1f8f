"""The service goes nowhere that its operator has not named, for any token; and what it knows is told nobody."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.api.app import create_app
from service.settings import Settings
from service.store import Store
from tests.security.conftest import Owner
from tests.servers import content, web_server

PASSWORD = "s3cr3t-password"


@pytest.fixture
def visits() -> list[str]:
    """Paths that a server was asked for."""
    return []


@pytest.fixture
def server(visits: list[str]) -> Iterator[str]:
    def answer(request: BaseHTTPRequestHandler) -> None:
        visits.append(request.path)
        content(b"a,y\n1,2\n3,4\n")(request)

    with web_server({"/open/x.csv": answer, "/x.csv": answer}) as address:
        yield address


def test_nothing_is_fetched_unless_the_operator_allows_it(
    client: TestClient, ann: Owner, server: str, visits: list[str], settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "private.csv").write_text("a,y\n1,2\n3,4\n")
    host = server.split("//")[1]
    for scope in ("submit", "admin"):
        for address in (
            f"{server}x.csv",
            f"http://user:{PASSWORD}@{host}x.csv",
            f"simplecache::{server}x.csv",
            f"file://{tmp_path}/private.csv",
            f"file://{settings.home}/regsearch.db",
            "http://169.254.169.254/latest/meta-data/",
            "s3://bucket/x.csv",
        ):
            answer = client.post("/v1/datasets", json={"address": address}, headers=ann.headers(scope))
            assert answer.status_code == 422, address
            assert answer.json()["errors"][0]["field"] == "address"
            assert PASSWORD not in answer.text
        query: dict[str, Any] = {"database": "main", "query": "SELECT * FROM rs_tokens"}
        answer = client.post("/v1/datasets", json=query, headers=ann.headers(scope))
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "database")
    assert visits == []


def test_it_is_asked_for_by_those_who_may_change_something(
    store: Store, settings: Settings, ann: Owner, bob: Owner, server: str, visits: list[str]
) -> None:
    allowed = settings.model_copy(update={"data_prefixes": (f"{server}open/",)})
    wanted = {"address": f"{server}open/x.csv"}
    with TestClient(create_app(store, allowed), base_url="http://localhost") as client:
        assert client.post("/v1/datasets", json=wanted).status_code == 401
        for scope in ("read", "worker"):
            assert client.post("/v1/datasets", headers=ann.headers(scope), json=wanted).status_code == 403
        foreign = {**ann.headers("submit"), "origin": "http://evil.example"}
        assert client.post("/v1/datasets", headers=foreign, json=wanted).status_code == 403
        assert visits == []
        made = client.post("/v1/datasets", headers=ann.headers("submit"), json=wanted)
        assert made.status_code == 201, made.text
        assert visits == ["/open/x.csv"]
        assert made.json()["owners"] == ["ann"]
        path = f"/v1/datasets/{made.json()['id']}"
        assert client.get(path, headers=bob.headers("submit")).status_code == 404
        assert "open/x.csv" not in client.get("/v1/datasets", headers=bob.headers("read")).text
