"""Requests that a page of another site makes a browser send."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.api.app import create_app
from service.settings import Settings
from service.store import Store
from tests.api import conftest as shared

settings, store, empty_database = shared.settings, shared.store, shared.empty_database
"""Fixtures: here there are no tokens."""
STUDY = {"data": {"dataset": "wine"}, "budget": {"trials": 2, "epochs": 2}}


def opened(store: Store, home: Path, **settings: Any) -> TestClient:
    return TestClient(create_app(store, Settings(home=home, **settings)), base_url="http://localhost:8000")


def submitted(client: TestClient) -> int:
    answer = client.post("/v1/studies", json=STUDY)
    assert answer.status_code == 201, answer.text
    return int(answer.json()["id"])


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "", "[::1", "192.168.0.7"])
def test_a_foreign_host_reads_nothing(store: Store, settings: Settings, host: str) -> None:
    client = opened(store, settings.home)
    number = submitted(client)
    for path in ("/v1/studies", f"/v1/studies/{number}", "/", "/docs", "/healthz", "/api/studies"):
        answer = client.get(path, headers={"host": host})
        assert answer.status_code == 421, path
        assert "wine" not in answer.text
    assert client.post("/v1/studies", json=STUDY, headers={"host": host}).status_code == 421
    assert client.get("/v1/studies").json()["total"] == 1


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:8000", "[::1]:8000", "work.localhost"])
def test_loopback_names_are_our_own(store: Store, settings: Settings, host: str) -> None:
    assert opened(store, settings.home).get("/healthz", headers={"host": host}).status_code == 200


def test_an_operator_names_hosts(store: Store, settings: Settings) -> None:
    client = opened(
        store, settings.home, allowed_hosts=("search.example.org", "*.lab.example"), public_url="https://r.example/x"
    )
    for host, status in (("search.example.org", 200), ("a.lab.example:90", 200), ("r.example", 200), ("lab.example", 421)):
        assert client.get("/healthz", headers={"host": host}).status_code == status, host
    anywhere = opened(store, settings.home, host="0.0.0.0")
    assert anywhere.get("/healthz", headers={"host": "10.0.0.3:8000"}).status_code == 200
    strict = opened(store, settings.home, host="0.0.0.0", allowed_hosts=("a.example",))
    assert strict.get("/healthz", headers={"host": "10.0.0.3:8000"}).status_code == 421


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "http://localhost:9999"},
        {"origin": "null"},
        {"origin": "http://localhost:8000.evil.example"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
    ids=str,
)
def test_a_foreign_page_changes_nothing(store: Store, settings: Settings, headers: dict[str, str]) -> None:
    client = opened(store, settings.home)
    number = submitted(client)
    for path in (
        f"/v1/studies/{number}/pause",
        f"/v1/studies/{number}/cancel",
        f"/v1/studies/{number}/replays",
        "/v1/studies",
    ):
        answer = client.post(path, headers=headers)
        assert answer.status_code == 403, path
        assert answer.headers["content-type"] == "application/problem+json"
    form = client.post("/v1/datasets", headers=headers, files={"file": ("x.csv", "a,b\n1,2\n" * 30)})
    assert form.status_code == 403
    assert client.delete(f"/v1/studies/{number}", headers=headers).status_code == 403
    assert client.get(f"/v1/studies/{number}").json()["state"] == "queued"
    assert client.get("/v1/studies").json()["total"] == 1


def test_our_own_page_may(store: Store, settings: Settings) -> None:
    client = opened(store, settings.home, public_url="https://search.example.org")
    for origin in ("http://localhost:8000", "https://search.example.org"):
        number = submitted(client)
        headers = {"origin": origin, "sec-fetch-site": "same-origin"}
        assert client.post(f"/v1/studies/{number}/pause", headers=headers).status_code == 200


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x"])
def test_commands_are_no_forms(store: Store, settings: Settings, kind: str) -> None:
    client = opened(store, settings.home)
    number = submitted(client)
    answer = client.post(f"/v1/studies/{number}/pause", content=b"", headers={"content-type": kind})
    assert answer.status_code == 415
    assert client.get(f"/v1/studies/{number}").json()["state"] == "queued"


def test_every_answer_is_protected(store: Store, settings: Settings) -> None:
    client = opened(store, settings.home)
    for path in ("/", "/dashboard", "/docs", "/v1/studies", "/v1/studies/999", "/nothing", "/metrics"):
        answer = client.get(path)
        assert answer.headers["x-content-type-options"] == "nosniff", path
        assert answer.headers["content-security-policy"], path
        assert answer.headers["x-request-id"], path


def test_a_process_for_the_dashboard_has_nothing_else(store: Store, settings: Settings) -> None:
    submitted(opened(store, settings.home))
    client = opened(store, settings.home, dashboard="only")
    assert client.get("/dashboard").status_code == 200
    assert client.get("/api/studies").json()["study_summaries"]
    assert client.get("/readyz").status_code == 200
    for path in ("/v1/studies", "/v1/workers", "/metrics", "/docs", "/openapi.json"):
        assert client.get(path).status_code == 404, path
    assert client.post("/v1/studies", json=STUDY).status_code == 404
    assert client.request("DELETE", "/api/studies/0").status_code == 403
