"""Query parameters that a route does not know are refused, on every route."""

from __future__ import annotations

import re

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from service.settings import Settings
from service.store import Store
from tests.api.test_routes import SMALL, submit


def test_every_route_refuses_a_parameter_that_it_does_not_know(app: FastAPI, client: TestClient) -> None:
    sent = 0
    for path, operations in app.openapi()["paths"].items():
        for method, operation in operations.items():
            address = re.sub(r"{\w+}", "1", path)
            answer = client.request(method, f"{address}?surprise=1", json={} if "requestBody" in operation else None)
            names = [error["field"] for error in answer.json().get("errors", [])]
            assert answer.status_code == 422, (method, path)
            assert "surprise" in names, (method, path)
            assert "422" in operation["responses"], (method, path)
            sent += 1
    assert sent > 25


@pytest.mark.parametrize("path", ["/", "/new", "/studies/1"])
def test_pages_refuse_them_too(client: TestClient, path: str) -> None:
    answer = client.get(path, params={"nmae": "x"})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "nmae")


def test_the_nearest_parameter_is_told(client: TestClient) -> None:
    answer = client.get("/v1/studies?limt=5&offset=0&nothing=x")
    assert answer.status_code == 422
    first, second = answer.json()["errors"]
    assert (first["field"], first["value"]) == ("limt", "5")
    assert first["message"] == "is not a known query parameter; did you mean limit?"
    assert {"limit", "offset", "state", "name", "owner"} <= set(first["allowed"])
    assert second["message"] == "is not a known query parameter"


def test_an_alias_is_the_name_and_a_python_name_is_not(client: TestClient, store: Store) -> None:
    submit(client)
    assert client.get("/v1/studies/1/export?format=csv").status_code == 200
    answer = client.get("/v1/studies/1/export?format_=csv")
    assert answer.json()["errors"][0]["message"].endswith("did you mean format?")


def test_a_submit_that_asks_for_a_dry_run_queues_nothing(client: TestClient) -> None:
    answer = client.post("/v1/studies?dry_run=true", json=SMALL)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["message"].endswith("did you mean POST /v1/studies/dry-run?")
    assert client.get("/v1/studies").json()["total"] == 0


def test_what_is_mounted_has_parameters_of_its_own(client: TestClient, settings: Settings) -> None:
    assert settings.dashboard == "readonly"
    assert client.get("/api/studies?anything=1").status_code == 200
