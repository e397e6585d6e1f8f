"""Promises of the audit log: every change is in it before its answer, with its owner, who sees nobody else's."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from rich.console import Console

from service.api.app import create_app
from service.cli import tokens
from service.errors import DatabaseUnavailable
from service.settings import Settings
from service.store import Store
from tests.security.conftest import Owner
from tests.security.test_scopes import routes, send


def entries(client: TestClient, who: Owner, scope: str = "admin", **query: Any) -> list[dict[str, Any]]:
    answer = client.get("/v1/audit", headers=who.headers(scope), params={"limit": 500, **query})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["entries"]
    return found


def test_every_change_is_in_it_and_no_read(client: TestClient, app: FastAPI, ann: Owner) -> None:
    """Every route of the application, once: what is new can't be forgotten."""
    for route in sorted(routes(app)):
        before = entries(client, ann)
        answer = send(client, route, ann, ann.headers("admin"))
        added = entries(client, ann)[: len(entries(client, ann)) - len(before)]
        method, path = route.split(" ")
        unwritten = method == "GET" or "/trials:" in path or path.endswith("dry-run") or answer.status_code == 404
        assert len(added) == (0 if unwritten else 1), route
        for entry in added:
            assert (entry["method"], entry["route"], entry["status"]) == (method, path, answer.status_code)
            assert entry["owner"] == "ann"
            assert entry["request_id"] == answer.headers["x-request-id"]
            assert "{" not in entry["object"]


def test_what_is_new_is_named_by_its_own_path(client: TestClient, ann: Owner) -> None:
    study = client.post("/v1/studies", json={"data": {"dataset": "wine"}}, headers=ann.headers("submit")).json()["id"]
    client.post(f"/v1/studies/{study}/pause", headers=ann.headers("submit"))
    token = client.post("/v1/tokens", json={"owner": "eve", "scope": "read"}, headers=ann.headers("admin")).json()
    found = [(each["method"], each["object"]) for each in entries(client, ann)[:3]]
    assert found == [("POST", f"tokens/{token['id']}"), ("POST", f"studies/{study}/pause"), ("POST", f"studies/{study}")]
    assert token["token"] not in json.dumps(entries(client, ann))
    about = entries(client, ann, under=f"studies/{study}")
    assert [each["route"] for each in about] == ["/v1/studies/{study_id}/pause", "/v1/studies"]


def test_tokens_that_are_made_on_the_machine_are_in_it(client: TestClient, ann: Owner, settings: Settings) -> None:
    tokens.create(settings, Console(file=io.StringIO()), "eve", "read", "", None)
    made = entries(client, ann)[0]
    tokens.revoke(settings, Console(file=io.StringIO()), int(made["object"].removeprefix("tokens/")))
    ended = entries(client, ann)[0]
    assert [(each["owner"], each["route"]) for each in (made, ended)] == [
        (None, "regsearch token create"),
        (None, "regsearch token revoke"),
    ]
    assert made["object"] == ended["object"]


def test_what_the_dashboard_changes_is_in_it(store: Store, settings: Settings, ann: Owner) -> None:
    writable = settings.model_copy(update={"dashboard": "writable"})
    with TestClient(create_app(store, writable), base_url="http://localhost") as client:
        answer = client.put(
            f"/api/studies/{ann.study}/note", json={"body": "mine", "version": 2}, headers=ann.headers("admin")
        )
        assert answer.status_code < 300, answer.text
        latest = entries(client, ann)[0]
    assert (latest["method"], latest["object"], latest["owner"]) == ("PUT", f"api/studies/{ann.study}/note", "ann")


def test_what_was_refused_is_in_it_too(client: TestClient, ann: Owner, bob: Owner) -> None:
    refused = [
        client.post("/v1/studies", json={"data": {"dataset": "wines"}}, headers=ann.headers("submit")),
        client.delete(f"/v1/studies/{ann.study}", headers=ann.headers("submit")),
        client.post(f"/v1/studies/{ann.study}/cancel", headers=ann.headers("read")),
    ]
    assert [each.status_code for each in refused] == [422, 409, 403]
    found = entries(client, ann)[:3]
    assert [each["status"] for each in found] == [403, 409, 422]
    assert found[0]["object"] == f"studies/{ann.study}/cancel"
    before = len(entries(client, ann))
    client.post(f"/v1/studies/{bob.study}/cancel", headers=ann.headers("submit"))  # does not exist for her
    client.post(f"/v1/studies/{ann.study}/cancel")
    assert len(entries(client, ann)) == before


@pytest.mark.parametrize("scope", ["read", "submit"])
def test_owners_see_their_own_entries_only(client: TestClient, ann: Owner, bob: Owner, scope: str) -> None:
    for owner in (ann, bob):
        client.post(f"/v1/studies/{owner.study}/pause", headers=owner.headers("submit"))
    assert {each["owner"] for each in entries(client, ann, scope)} == {"ann"}
    assert entries(client, ann, scope, owner="bob") == []
    assert entries(client, ann, scope, under=f"studies/{bob.study}") == []
    assert {each["owner"] for each in entries(client, ann)} == {"ann", "bob"}
    assert {each["owner"] for each in entries(client, ann, owner="bob")} == {"bob"}


def test_a_fault_is_in_it_and_a_database_that_is_away_is_told_by_the_log(
    client: TestClient, ann: Owner, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a fault")

    with monkeypatch.context() as patched:
        patched.setattr(store.studies, "pause", broken)
        assert client.post(f"/v1/studies/{ann.study}/pause", headers=ann.headers("submit")).status_code == 500
    assert entries(client, ann)[0]["status"] == 500

    def away(*_: object) -> None:
        raise DatabaseUnavailable("away")

    with monkeypatch.context() as patched:
        patched.setattr(store.audit, "write", away)
        assert client.post(f"/v1/studies/{ann.study}/pause", headers=ann.headers("submit")).status_code == 200
    assert re.search(rf"not in the audit log.*studies/{ann.study}/pause", caplog.text)
