"""The data sheet at upload, in a dry run, at submit and in the report; what its columns can't do is refused at submit."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from service.settings import Settings
from service.store import Store
from tests.api.test_routes import SMALL, finish, uploaded

ROWS = 80


def csv_of(**columns: list[Any]) -> str:
    lines = [",".join(columns), *(",".join(map(str, cells)) for cells in zip(*columns.values(), strict=True))]
    return "\n".join(lines) + "\n"


TABLE = csv_of(
    row_id=list(range(ROWS)),
    day=[(date(2024, 1, 1) + timedelta(days=row)).isoformat() for row in range(ROWS)],
    clinic=[f"c{row % 2}" for row in range(ROWS)],
    part=["train" if row < 50 else "valid" if row < 60 else "test" for row in range(ROWS)],
    bad_part=["train" if row < 50 else "holdout" for row in range(ROWS)],
    two=[row // 40 for row in range(ROWS)],
    us=[f"0{row % 9 + 1}/0{row * 2 % 9 + 1}/2024" for row in range(ROWS)],
    age=[20 + row * 7 % 31 + 0.5 for row in range(ROWS)],
    y=[row % 9 * 1.5 if row % 20 else "" for row in range(ROWS)],
)


@pytest.fixture
def dataset(client: TestClient) -> str:
    return str(uploaded(client, TABLE)["id"])


def body(dataset: str, **data: Any) -> dict[str, Any]:
    return SMALL | {"data": {"dataset": dataset, "target": "y", **data}}


def test_a_dry_run_answers_as_a_submit_would_and_queues_nothing(client: TestClient, dataset: str, store: Store) -> None:
    dry = client.post("/v1/studies/dry-run", json=body(dataset, drop=["two"], time="day"))
    assert dry.status_code == 200, dry.text
    assert client.get("/v1/studies").json()["total"] == 0
    real = client.post("/v1/studies", json=body(dataset, drop=["two"], time="day")).json()
    found = dry.json()
    for part in ("plan", "data", "warnings"):
        assert found[part] == real[part]
    assert client.get(f"/v1/studies/{real['id']}").json()["warnings"] == real["warnings"]
    assert found["spec"]["metric"] == "rmse"
    sheet = found["data"]
    assert (sheet["rows"], sheet["used"], sheet["dropped"]) == (80, 76, {"no target": 4})
    columns = {column["name"]: column for column in sheet["columns"]}
    assert {name: column["use"] for name, column in columns.items() if column["use"] != "input"} == {
        "day": "time",
        "two": "dropped",
        "y": "target",
    }
    assert columns["day"]["kind"] == "date"
    assert "like an id" in columns["row_id"]["notes"][0]
    assert "can be meant in several ways" in columns["us"]["notes"][0]
    finish(store)
    report = client.get(f"/v1/studies/{real['id']}/report?format=markdown").text
    assert "## The data" in report
    assert "76 of 80 rows are used; 4 are left out: no target." in report
    assert "like an id" in report


WRONG = [
    ({"types": {"agee": "number"}}, "data.types.agee", "did you mean 'age'"),
    ({"types": {"clinic": "date"}}, "data.types.clinic", "'c0'"),
    ({"types": {"us": "date"}}, "data.types.us", "month_first or day_first"),
    ({"types": {"age": "number"}, "categorical": ["age"]}, "data.types.age", "also in data.categorical"),
    ({"types": {"age": "quantity"}}, "data.types.age", "must be one of number"),
    ({"groups": "clinic"}, "data.groups", "2 groups, too few"),
    ({"time": "clinic"}, "data.time", "no times that can be read"),
    ({"time": "us"}, "data.time", "month_first or day_first"),
    ({"time": "two"}, "data.time", "2 distinct times, too few"),
    ({"split": "bad_part"}, "data.split", "'holdout'"),
    ({"split": "clinic"}, "data.split", "'c0'"),
    ({"weights": "clinic"}, "data.weights", "kind categorical"),
    ({"weights": "y"}, "data.weights", "is the target"),
    ({"weights": "two", "groups": "two"}, "data.weights", "already used as data.groups"),
    ({"layout": "channels_last"}, "data.layout", "applies to images"),
    ({"image_size": 32}, "data.image_size", "applies to ZIP files of images"),
]


@pytest.mark.parametrize(("data", "field", "text"), WRONG)
def test_what_a_column_can_not_do_is_refused_at_submit(
    client: TestClient, dataset: str, data: dict[str, Any], field: str, text: str
) -> None:
    answer = client.post("/v1/studies", json=body(dataset, **data))
    assert answer.status_code == 422, answer.text
    (issue,) = answer.json()["errors"]
    assert issue["field"] == field
    assert text in json.dumps(issue)


RIGHT: list[dict[str, Any]] = [
    {"types": {"us": "day_first", "two": "category", "row_id": "text"}},
    {"time": "us", "types": {"us": "month_first"}},
    {"time": "day"},
    {"split": "part"},
]


@pytest.mark.parametrize("data", RIGHT)
def test_what_it_can_do_is_taken(client: TestClient, dataset: str, data: dict[str, Any]) -> None:
    assert client.post("/v1/studies", json=body(dataset, **data)).status_code == 201


def test_a_data_set_of_an_earlier_version_is_described_again_once(
    client: TestClient, dataset: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = store.datasets.get(dataset)
    plain = tuple({key: column[key] for key in ("name", "kind", "missing", "distinct", "whole")} for column in old.columns)
    store.datasets.add(replace(old, columns=plain, sheet=None))
    assert client.get(f"/v1/datasets/{dataset}").json()["equal_rows"] == 0
    assert client.post("/v1/studies", json=body(dataset, time="day")).status_code == 201
    assert store.datasets.get(dataset).columns == old.columns


def test_arrays_take_no_types(client: TestClient, settings: Settings) -> None:
    np.savez(settings.data_roots[0] / "a.npz", x=np.random.default_rng(0).random((60, 4)), y=np.arange(60) % 2)
    data = {"path": str(settings.data_roots[0] / "a.npz"), "types": {"x": "category"}}
    answer = client.post("/v1/studies", json=SMALL | {"data": data})
    assert answer.json()["errors"][0]["field"] == "data.types"
