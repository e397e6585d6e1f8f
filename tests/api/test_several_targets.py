"""Several targets at submit: the task that is inferred, the data sheet, and what is refused."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from tests.api.test_data_sheets import csv_of
from tests.api.test_routes import SMALL, uploaded

ROWS = 80
TABLE = csv_of(
    x=[row * 7 % 31 + 0.5 for row in range(ROWS)],
    yes=[["y", "n"][row % 3 == 0] for row in range(ROWS)],
    one=[row % 2 if row % 20 else "" for row in range(ROWS)],
    size=[row % 9 * 1.5 for row in range(ROWS)],
    mass=[row % 11 * 2.5 if row % 16 else "" for row in range(ROWS)],
    kind=["abc"[row % 3] for row in range(ROWS)],
    flat=[1] * ROWS,
)


@pytest.fixture
def dataset(client: TestClient) -> str:
    return str(uploaded(client, TABLE)["id"])


def body(dataset: str, target: list[str], **parts: Any) -> dict[str, Any]:
    return SMALL | {"data": {"dataset": dataset, "target": target}} | parts


def test_labels_and_numbers_are_told_apart(client: TestClient, dataset: str) -> None:
    labels = client.post("/v1/studies/dry-run", json=body(dataset, ["yes", "one"])).json()
    assert (labels["spec"]["task"], labels["spec"]["metric"]) == ("multilabel", "log_loss")
    uses = {column["name"]: (column["use"], column["kind"]) for column in labels["data"]["columns"]}
    assert uses["yes"] == uses["one"] == ("target", "label")
    assert uses["size"] == ("input", "numeric")
    assert labels["data"]["dropped"] == {"no target": 4}
    numbers = client.post("/v1/studies/dry-run", json=body(dataset, ["size", "mass"])).json()
    assert (numbers["spec"]["task"], numbers["spec"]["metric"]) == ("regression", "rmse")
    mixed = client.post("/v1/studies/dry-run", json=body(dataset, ["one", "mass"], task="regression")).json()
    assert mixed["spec"]["task"] == "regression"
    assert "Rows that lack any of the 2 targets are left out: 5 to 9 of 80." in mixed["warnings"]
    alone = client.post("/v1/studies/dry-run", json=body(dataset, ["kind"])).json()
    assert (alone["spec"]["task"], alone["spec"]["data"]["target"]) == ("classification", "kind")


REFUSED: list[tuple[list[str], dict[str, Any], str, str]] = [
    (["yes", "size"], {}, "data.target", "mixes kinds of targets: 'yes' has two values, 'size' has numbers"),
    (["yes", "kind"], {}, "data.target", "'kind' has 3 values of text"),
    (["yes", "flat"], {}, "data.target", "'flat' has only one value"),
    (["yes", "absent"], {}, "data.target", "no column 'absent'"),
    (["yes", "yes"], {}, "data.target", "names a column twice"),
    (["yes", "one"], {"task": "classification"}, "task", "has one target only"),
    (["yes", "one"], {"task": "regression"}, "task", "'yes' contain text"),
    (["one", "size"], {"task": "multilabel"}, "task", "'size' have more than two values"),
    (["yes", "one"], {"metric": "rmse"}, "metric", "does not fit a multilabel task"),
    (["size", "mass"], {"metric": "hamming_accuracy"}, "metric", "does not fit a regression task"),
    (["yes", "one"], {"space": {"huber_delta": 1.0}}, "space.huber_delta", "does not fit a multilabel task"),
    (["size", "mass"], {"space": {"focal_gamma": 1.0}}, "space.focal_gamma", "does not fit a regression task"),
]


@pytest.mark.parametrize(("target", "parts", "field", "message"), REFUSED, ids=str)
def test_what_does_not_fit_is_refused(
    client: TestClient, dataset: str, target: list[str], parts: dict[str, Any], field: str, message: str
) -> None:
    answer = client.post("/v1/studies", json=body(dataset, target, **parts))
    assert answer.status_code == 422, answer.text
    issues = {issue["field"]: issue["message"] for issue in answer.json()["errors"]}
    assert message in issues[field]


def test_a_positive_class_and_an_input_that_is_a_target_are_refused(client: TestClient, dataset: str) -> None:
    for data, field in (({"positive": "y"}, "data.positive"), ({"drop": ["one"]}, "data.drop.0")):
        asked = body(dataset, ["yes", "one"])
        answer = client.post("/v1/studies", json=asked | {"data": {**asked["data"], **data}})
        assert answer.status_code == 422
        assert [issue["field"] for issue in answer.json()["errors"]] == [field]


def test_arrays_with_several_targets_are_described(client: TestClient) -> None:
    file = io.BytesIO()
    rng = np.random.default_rng(0)
    np.savez(file, x=rng.normal(size=(60, 4)), y=rng.integers(0, 2, (60, 3)))
    found = client.post("/v1/datasets", files={"file": ("rows.npz", file.getvalue())}).json()
    study = client.post("/v1/studies/dry-run", json=SMALL | {"data": {"dataset": found["id"]}}).json()
    assert study["spec"]["task"] == "multilabel"
    some = client.post("/v1/studies/dry-run", json=SMALL | {"data": {"dataset": found["id"], "target": ["y0", "y2"]}})
    assert "leave it out" in some.json()["errors"][0]["message"]
