"""Every way to fail, each answered with one problem document of one shape, and with nothing queued."""

from __future__ import annotations

import json
import logging
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from service import errors
from service.api.problems import STATUS
from service.settings import Settings
from service.store import Store
from tests.api.test_routes import CSV, SMALL, submit

JSON = {"content-type": "application/json"}
INPUTS = [f"x{index}" for index in range(10)]

BAD_SUBMITS: list[tuple[dict[str, Any], str, Any]] = [
    ({"data": {"dataset": "diabetez"}}, "data.dataset", "diabetez"),
    ({"data": {"dataset": "diabetes", "target": "tarjet"}}, "data.target", "tarjet"),
    ({"data": {"dataset": "diabetes", "drop": ["x99"]}}, "data.drop.0", "x99"),
    ({"data": {"dataset": "diabetes", "drop": ["target"]}}, "data.drop.0", "target"),
    ({"data": {"dataset": "diabetes", "categorical": ["x1", "nope"]}}, "data.categorical.1", "nope"),
    ({"data": {"dataset": "diabetes", "drop": INPUTS}}, "data.drop", INPUTS),
    ({"data": {"path": "/etc/passwd"}}, "data.path", "/etc/passwd"),
    ({"data": {"path": 5}}, "data.path", 5),
    ({"task": "classification"}, "task", "classification"),
    ({"metric": "accuracy"}, "metric", "accuracy"),
    ({"space": {"normalization": "bach"}}, "space.normalization", "bach"),
    ({"space": {"l1": {"low": 1, "high": 0.5}}}, "space.l1", {"low": 1.0, "high": 0.5}),
    ({"spcae": {}}, "spcae", {}),
    ({"validation": {"test_fraction": 0.001}}, "validation.test_fraction", 0.001),
    ({"validation": {"valid_fraction": 0.001}}, "validation.valid_fraction", 0.001),
    ({"data": {"dataset": "diabetes", "groups": "x99"}}, "data.groups", "x99"),
    ({"data": {"dataset": "diabetes", "time": "target"}}, "data.time", "target"),
    ({"data": {"dataset": "diabetes", "split": "x1", "drop": ["x1"]}}, "data.split", "x1"),
    ({"data": {"dataset": "diabetes", "groups": "x1", "time": "x1"}}, "data.time", "x1"),
    (
        {"data": {"dataset": "diabetes", "groups": "x1", "drop": INPUTS[:1] + INPUTS[2:]}},
        "data.drop",
        INPUTS[:1] + INPUTS[2:],
    ),
    ({"validation": {"given": True}}, "validation.given", True),
    ({"data": {"dataset": "digits", "scaling": "log"}, "model": {"family": "cnn"}}, "data.scaling", "log"),
    ({"model": {"embedding": ["off", 4]}}, "model.embedding", ["off", 4]),
    ({"model": {"embedding": 0}}, "model.embedding", 0),
    ({"data": {"dataset": "digits"}, "model": {"family": "cnn", "embedding": 4}}, "model.embedding", 4),
    ({"data": {"dataset": "diabetes", "positive": "1"}}, "data.positive", "1"),
    ({"data": {"dataset": "wine", "positive": "class_1"}}, "data.positive", "class_1"),
    ({"data": {"dataset": "breast_cancer", "positive": "beningn"}}, "data.positive", "beningn"),
    ({"sampler": {"name": "grid", "points": 1000}, "space": {"preset": "default"}}, "sampler", 1000),
    ({"sampler": "grid", "space": {"preset": "off", "dropout": [0.1, 0.2]}, "budget": {"trials": 3}}, "budget.trials", 3),
]


@pytest.mark.parametrize(("parts", "field", "value"), BAD_SUBMITS)
def test_a_bad_submit_is_a_problem_and_queues_nothing(
    client: TestClient, parts: dict[str, Any], field: str, value: Any
) -> None:
    issue = only_issue(client.post("/v1/studies", json=SMALL | parts), 422)
    assert (issue["field"], issue["value"]) == (field, value)
    assert issue["allowed"]
    assert client.get("/v1/studies").json()["total"] == 0


BAD_BODIES: list[tuple[str | bytes, str]] = [
    ("{", "body"),
    ("", "body"),
    ("[1]", "body"),
    ("null", "body"),
    ('"diabetes"', "body"),
    (b'{"data": "\xff"}', "body"),
    ('{"data": NaN}', "data"),
    ('{"data": {"dataset": "diabetes"}, "budget": {"seconds": Infinity}}', "budget.seconds"),
    ('{"data": {"dataset": "diabetes"}, "budget": {"seconds": 1e999}}', "budget.seconds"),
    ('{"data": {"dataset": "diabetes"}, "space": {"l1": {"low": 0.1, "high": -Infinity}}}', "space.l1.high"),
    ('{"data": {"dataset": "diabetes"}, "seed": ' + "9" * 5000 + "}", "seed"),
    ('{"data": {"dataset": "diabetes"}, "seed": ' + "9" * 30 + "}", "seed"),
    ('{"data": {"dataset": "diabetes"}, "seed": 1, "seed": 2}', "seed"),
    ('{"data": {"dataset": "diabetes"}, "name": "\\ud800"}', "name"),
    ('{"data": {"dataset": "diabetes"}, "\\ud800": 1}', "body"),
    ('{"data": {"path": "a\\u0000.csv", "target": "y"}}', "data.path"),
    ('{"data": {"dataset": "wine", "drop": ["\\u0000"]}}', "data.drop.0"),
    ("[" * 100_000, "body"),
    ('{"name": ' + "[" * 900 + "]" * 900 + "}", "name.0.0"),
]


@pytest.mark.parametrize(("body", "field"), BAD_BODIES, ids=range(len(BAD_BODIES)))
def test_a_body_that_is_no_strict_json_is_a_problem_by_field(client: TestClient, body: str | bytes, field: str) -> None:
    issue = only_issue(client.post("/v1/studies", content=body, headers=JSON), 422)
    assert issue["field"] == field
    assert issue["allowed"]
    assert client.get("/v1/studies").json()["total"] == 0


def test_a_deep_value_is_cut_in_the_answer(client: TestClient) -> None:
    deep: Any = "bottom"
    for _ in range(12):
        deep = [deep]
    issue = only_issue(client.post("/v1/studies", json=SMALL | {"seed": deep}), 422)
    assert issue["field"] == "seed"
    assert "…" in json.dumps(issue["value"], ensure_ascii=False)


def test_the_target_of_an_upload_must_be_named_and_exist(client: TestClient) -> None:
    dataset = client.post("/v1/datasets", files={"file": ("people.csv", CSV)}).json()["id"]

    def refused(target: dict[str, str], **parts: Any) -> dict[str, Any]:
        return only_issue(client.post("/v1/studies", json=SMALL | parts | {"data": {"dataset": dataset, **target}}), 422)

    assert refused({})["allowed"] == ["age", "job", "class"]
    assert "did you mean 'class'?" in refused({"target": "clas"})["message"]
    assert refused({"target": "job"}, task="regression")["field"] == "task"
    issue = only_issue(client.post("/v1/studies", json=SMALL | {"data": {"dataset": "none"}}), 422)
    assert dataset in issue["allowed"]


def test_a_table_must_have_rows_for_every_part(client: TestClient) -> None:
    def dataset(text: str) -> str:
        return str(client.post("/v1/datasets", files={"file": ("t.csv", text)}).json()["id"])

    holes = dataset("a,y\n" + "".join(f"{i},{i if i < 10 else ''}\n" for i in range(30)))
    issue = only_issue(client.post("/v1/studies", json={"data": {"dataset": holes, "target": "y"}}), 422)
    assert (issue["field"], issue["value"], issue["allowed"]) == ("data", 10, "at least 20")
    constant = dataset("a,y\n" + "".join(f"{i},1.5\n" for i in range(30)))
    issue = only_issue(
        client.post("/v1/studies", json={"task": "regression", "data": {"dataset": constant, "target": "y"}}), 422
    )
    assert issue["field"] == "data.target"
    few = dataset("a,y\n" + "".join(f"{i},{i * 0.5}\n" for i in range(30)))
    kfold = {"validation": {"method": "kfold", "folds": 20}, "data": {"dataset": few, "target": "y"}}
    issue = only_issue(client.post("/v1/studies", json=kfold), 422)
    assert (issue["field"], issue["allowed"]) == ("validation.folds", "≤ 12")


@pytest.mark.parametrize("name", ["missing.csv", "a" * 300 + ".csv", "broken.csv", "loop.csv", "list.txt", ".."])
def test_a_path_that_is_no_table_is_told_of_the_path(client: TestClient, settings: Settings, name: str) -> None:
    (root,) = settings.data_roots
    (root / "broken.csv").write_bytes(b"PK\0\0\xff")
    (root / "list.txt").write_text("a,b\n1,2\n")
    (root / "loop.csv").symlink_to(root / "loop.csv")
    issue = only_issue(client.post("/v1/studies", json={"data": {"path": str(root / name), "target": "y"}}), 422)
    assert issue["field"] == "data.path"
    assert issue["allowed"]


BAD_UPLOADS: list[tuple[str, bytes]] = [
    ("data.pkl", b"x"),
    ("data", b"a,b\n1,2\n"),
    ("data.csv", b""),
    ("data.csv", b"a\n1\n"),
    ("data.csv", b"a,a\n1,2\n"),
    ("data.csv", bytes(range(256))),
    ("data.parquet", b"PAR1xxxxPAR1"),
    ("data.npz", b"PK\x03\x04xx"),
]


@pytest.mark.parametrize(("filename", "content"), BAD_UPLOADS)
def test_a_bad_upload_is_a_problem_and_leaves_nothing(
    client: TestClient, settings: Settings, filename: str, content: bytes
) -> None:
    answer = client.post("/v1/datasets", files={"file": (filename, content)})
    issue = only_issue(answer, 422)
    assert issue["field"] == "file"
    assert issue["allowed"]
    assert str(settings.home) not in answer.text
    assert not settings.datasets_dir.exists() or not list(settings.datasets_dir.iterdir())
    assert [each for each in client.get("/v1/datasets").json() if not each["built_in"]] == []


def failures(client: TestClient) -> Iterator[tuple[int, Any]]:
    """One request for every other way to fail, with the status it should have."""
    yield 404, client.get("/v1/studies/99")
    yield 404, client.get("/v1/studies/1/trials/5")
    yield 404, client.get("/v1/studies/99/trials")
    yield 404, client.get("/v1/studies/99/result")
    yield 404, client.get("/v1/datasets/none")
    yield 404, client.get("/v1/datasets/%00")
    yield 404, client.get("/nowhere")
    yield 404, client.get("/v1/nowhere")
    yield 405, client.put("/v1/studies")
    yield 405, client.delete("/v1/studies")
    yield 405, client.options("/v1/studies")
    yield 409, client.post("/v1/studies/1/resume")
    yield 409, client.get("/v1/studies/1/result")
    yield 409, client.delete("/v1/studies/1")
    yield 413, client.post("/v1/datasets", files={"file": ("big.csv", "a,b\n" + "1,2\n" * 5000)})
    yield 413, client.post("/v1/datasets", files={"file": ("big.csv", "a,b\n" + "1,2\n" * 50_000)})
    yield 413, client.post("/v1/studies", content=b'{"name": "' + b"x" * 2**20 + b'"}', headers=JSON)
    yield 413, client.post("/v1/studies", content=iter([b'{"name": "', *[b"x" * 2**16] * 17]), headers=JSON)
    yield 415, client.post("/v1/studies", content='{"data": {"dataset": "diabetes"}}')
    yield 415, client.post("/v1/studies", data={"data": "diabetes"})
    yield 415, client.post("/v1/studies/1/extend", content='{"trials": 1}', headers={"content-type": "text/plain"})
    yield 415, client.post("/v1/datasets", content="a,b\n1,2\n", headers={"content-type": "text/csv"})
    yield 422, client.post("/v1/datasets", json={"file": "a,b"})
    yield 422, client.get("/v1/studies/abc")
    yield 422, client.get("/v1/studies/-1")
    yield 422, client.get("/v1/studies/99999999999999999999")
    yield 422, client.get("/v1/studies", params={"limit": 0})
    yield 422, client.get("/v1/studies", params={"offset": "many"})
    yield 422, client.get("/v1/studies", params={"state": "sleeping"})
    yield 422, client.get("/v1/studies/1/trials", params={"state": "sleeping"})
    yield 422, client.post("/v1/studies/1/extend", json={"trials": 0})
    yield 422, client.post("/v1/studies/1/extend", json={"trails": 1, "trials": 1})
    yield 422, client.post("/v1/studies/1/extend", headers=JSON)
    yield 422, client.post("/v1/datasets")
    yield 422, client.post("/v1/datasets", files={"other": ("a.csv", "a,b\n1,2\n")})
    yield 422, client.post("/v1/datasets", files={"file": ("a.csv", "a,b\n1,2\n")}, data={"name": "x" * 201})
    yield 422, client.post("/v1/datasets", files={"file": ("a.csv", "a,b\n1,2\n")}, data={"name": "x\0"})
    yield 400, client.post("/v1/datasets", content=b"x", headers={"content-type": "multipart/form-data; boundary=q"})
    yield 403, client.delete("/api/studies/1")
    yield 403, client.post("/api/studies", json={"study_name": "mine", "directions": ["minimize"]})
    yield 403, client.put("/api/studies/1/note", json={"body": "mine", "version": 1})
    yield 405, client.post("/")


@pytest.mark.filterwarnings("ignore:.*multipart:UserWarning")
def test_every_failure_has_one_shape(client: TestClient) -> None:
    submit(client)
    for status, answer in failures(client):
        document = check_problem(answer, status)
        for issue in document["errors"]:
            assert issue["allowed"], document
        if status in (413, 415, 422):
            assert document["errors"], document
    assert client.get("/v1/studies").json()["total"] == 1


def test_unknown_keys_are_those_of_the_body_at_hand(client: TestClient) -> None:
    submit(client)
    issue = only_issue(client.post("/v1/studies/1/extend", json={"trails": 1, "trials": 1}), 422)
    assert (issue["field"], issue["allowed"], issue["value"]) == ("trails", ["trials"], 1)
    assert "did you mean trials?" in issue["message"]


def test_every_expected_failure_has_a_status() -> None:
    public = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.RegsearchError)}
    told = public - {errors.RegsearchError, errors.TrialError}
    assert all(any(issubclass(kind, known) for known in STATUS) for kind in told)


def test_an_unexpected_failure_is_in_the_log_under_the_id_in_the_answer(
    client: TestClient, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(study_id: int) -> Any:
        raise RuntimeError("secret")

    monkeypatch.setattr(store.studies, "tagged", broken)
    answer = client.get("/v1/studies/1")
    document = check_problem(answer, 500)
    assert "secret" not in answer.text
    assert document["request_id"] in document["detail"]
    assert answer.headers["x-request-id"] == document["request_id"]
    (record,) = [record for record in caplog.records if record.message == "unexpected error"]
    assert vars(record)["request_id"] == document["request_id"]
    assert record.exc_info is not None


def test_a_database_of_another_version_is_unavailable(client: TestClient, settings: Settings) -> None:
    assert client.get("/readyz").status_code == 200
    path = settings.database_url.removeprefix("sqlite:///")
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE regsearch_version SET version_num = '0000'")
    connection.close()
    answer = client.get("/readyz")
    check_problem(answer, 503)
    assert int(answer.headers["retry-after"]) > 0
    assert client.get("/healthz").status_code == 200


def test_every_request_is_one_line_in_the_log(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "regsearch.access"):
        answer = client.get("/v1/studies/77")
    (line,) = [record for record in caplog.records if record.name == "regsearch.access"]
    fields = vars(line)
    assert (fields["method"], fields["path"], fields["status"]) == ("GET", "/v1/studies/77", 404)
    assert fields["request_id"] == answer.headers["x-request-id"] == answer.json()["request_id"]
    assert fields["ms"] >= 0


def test_the_dashboard_can_be_left_out(store: Store, tmp_path: Path) -> None:
    from service.api.app import create_app  # noqa: PLC0415  # the fixtures' application has the dashboard

    app: FastAPI = create_app(store, Settings(home=tmp_path, dashboard="off"))
    with TestClient(app, base_url="http://localhost") as client:
        check_problem(client.get("/dashboard"), 404)
        assert client.get("/").status_code == 200


def only_issue(answer: Any, status: int) -> dict[str, Any]:
    """The one thing wrong that an answer tells."""
    (issue,) = check_problem(answer, status)["errors"]
    found: dict[str, Any] = issue
    return found


def check_problem(answer: Any, status: int) -> dict[str, Any]:
    """The problem document of an answer."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert set(document) == {"type", "title", "status", "detail", "instance", "request_id", "errors"}
    assert document["status"] == status
    assert document["detail"]
    assert document["request_id"] == answer.headers["x-request-id"]
    assert not re.search(r"Traceback|File \"", answer.text)
    for issue in document["errors"]:
        assert set(issue) == {"field", "message", "value", "allowed"}
    return document
