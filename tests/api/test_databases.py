"""Data sets by query, of a real SQLite file and a real PostgreSQL, through the API."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.api.app import create_app
from service.errors import DatabaseUnavailable
from service.settings import Settings
from service.store import Store
from tests.api.test_routes import SMALL
from tests.contract import conftest as shared
from tests.contract import test_queries
from tests.contract.test_queries import PASSWORD, ROWS

postgres, people, shop = shared.postgres, test_queries.people, test_queries.shop
"""Fixtures."""


@pytest.fixture
def settings(tmp_path: Path, shop: Path, people: str) -> Settings:
    away = f"postgresql://someone:{PASSWORD}@127.0.0.1:1/nowhere"
    databases = {"shop": f"sqlite:///{shop}", "people": people, "away": away}
    return Settings.model_validate({"home": tmp_path / "home", "databases": databases, "max_upload_mb": 4})


def ask(client: TestClient, database: str, query: str, **more: str) -> Any:
    return client.post("/v1/datasets", json={"database": database, "query": query, **more})


def test_a_query_is_a_data_set(client: TestClient, settings: Settings) -> None:
    query = "SELECT price, city, y FROM sales ORDER BY id"
    answer = ask(client, "shop", query, name="sales")
    made = answer.json()
    assert answer.status_code == 201, answer.text
    assert made["source"] == {"file": None, "address": None, "database": "shop", "query": query}
    assert (made["name"], made["format"], made["rows"], made["unchanged"]) == ("sales", "parquet", ROWS, False)
    again = ask(client, "shop", query, name="sales")
    assert (again.status_code, again.json()["id"], again.json()["unchanged"]) == (200, made["id"], True)
    other = ask(client, "shop", f"{query} LIMIT 100", name="sales").json()
    assert [each["id"] for each in other["others"]] == [made["id"]]
    body = SMALL | {"data": {"dataset": made["id"], "target": "y"}}
    assert client.post("/v1/studies", json=body).status_code == 201


def test_rows_of_postgresql_are_read_as_what_they_are(client: TestClient) -> None:
    made = ask(client, "people", "SELECT born, income, member, city, id FROM people").json()
    kinds = {column["name"]: column["kind"] for column in made["columns"]}
    assert kinds == {"born": "date", "income": "numeric", "member": "categorical", "city": "categorical", "id": "numeric"}
    assert made["name"] == "people.parquet"
    for path in ("/v1/datasets", f"/v1/datasets/{made['id']}", "/openapi.json", "/metrics", "/readyz"):
        assert PASSWORD not in client.get(path).text


@pytest.mark.parametrize(
    ("database", "query", "field", "told"),
    [
        ("shops", "SELECT 1, 2", "database", "did you mean 'shop'"),
        ("away", "SELECT 1, 2", "database", "can't be reached"),
        ("shop", "DELETE FROM sales", "query", "must be one SELECT"),
        ("shop", "SELECT y FROM sales", "query", "needs at least two columns"),
        ("shop", "SELECT '" + "x" * 100_000 + "'", "query", "at most 100000 characters"),
        ("shop", None, "query", "is required"),
        (None, "SELECT 1, 2", "database", "is required"),
    ],
)
def test_what_is_no_data_set_is_refused_and_leaves_nothing(
    client: TestClient,
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
    database: str | None,
    query: str | None,
    field: str,
    told: str,
) -> None:
    with caplog.at_level(logging.DEBUG):
        answer = client.post("/v1/datasets", json={"database": database, "query": query})
    assert answer.status_code == 422, answer.text
    (issue,) = answer.json()["errors"]
    assert issue["field"] == field
    assert told in issue["message"]
    assert PASSWORD not in answer.text + caplog.text
    assert not settings.datasets_dir.exists() or list(settings.datasets_dir.iterdir()) == []


@pytest.mark.parametrize("url", [f"mysql://u:{PASSWORD}@h/x", f"{PASSWORD}", "sqlite://", "sqlite:///:memory:"])
def test_a_database_that_can_not_be_read_is_told_at_start(store: Store, tmp_path: Path, url: str) -> None:
    with pytest.raises(DatabaseUnavailable, match=r"REGSEARCH_DATABASES\.main") as caught:
        create_app(store, Settings.model_validate({"home": tmp_path / "home", "databases": {"main": url}}))
    assert PASSWORD not in str(caught.value)


def test_without_databases_the_setting_is_named(store: Store, tmp_path: Path) -> None:
    with TestClient(create_app(store, Settings(home=tmp_path / "home")), base_url="http://localhost") as plain:
        answer = plain.post("/v1/datasets", json={"database": "shop", "query": "SELECT 1, 2"})
    assert (answer.status_code, answer.json()["errors"][0]["allowed"]) == (422, "none")
    assert "REGSEARCH_DATABASES" in answer.text
