"""service/README.md: its requests are sent, its tables name what there is."""

from __future__ import annotations

import argparse
import io
import json
import re
import shlex
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pandas as pd
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from service.api.problems import STATUS
from service.settings import Settings
from service.store import Store
from tests.api import test_portable, test_replays, test_routes
from tests.api.test_routes import CSV, submit
from tests.contract.test_trials import proposals
from tests.results import result
from tests.servers import S3
from tests.trained import keep_onnx, models_of

README = (Path(__file__).parents[2] / "service/README.md").read_text()


def section(title: str) -> str:
    """What stands under a heading of the second level."""
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def cells(title: str) -> list[list[str]]:
    """The rows of the tables in a section, without their heads."""
    rows = [line.strip("|").split("|") for line in section(title).splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row] for row in rows if row[0].strip().startswith(("`", "4", "5"))]


def requests(text: str) -> list[argparse.Namespace]:
    """The curl commands of a text."""
    curl = argparse.ArgumentParser(exit_on_error=False)
    curl.add_argument("url")
    curl.add_argument("-s", action="store_true")
    curl.add_argument("-X", dest="method")
    curl.add_argument("-H", dest="headers", action="append", default=[])
    curl.add_argument("-d", dest="body")
    curl.add_argument("-F", dest="form", action="append", default=[])
    curl.add_argument("-o", dest="out")
    commands = re.findall(r"^curl ((?:.*\\\n)*.*)$", text, flags=re.MULTILINE)
    return [curl.parse_args(shlex.split(command.replace("\\\n", " "))) for command in commands]


def method(request: argparse.Namespace) -> str:
    given: str | None = request.method
    return given or ("POST" if request.body or request.form else "GET")


def send(client: TestClient, request: argparse.Namespace, saved: Mapping[str, bytes] = MappingProxyType({})) -> Any:
    """What curl would send, to the application; ``saved`` are files that earlier requests have written."""
    assert request.url.startswith("localhost:8000/")
    parts = dict(each.split("=", 1) for each in request.form)
    named = {name: value[1:] for name, value in parts.items() if value.startswith("@")}
    files = {name: (file, saved.get(file, CSV.encode())) for name, file in named.items()}
    fields = {name: value for name, value in parts.items() if name not in files}
    headers = dict(each.split(": ", 1) for each in request.headers)
    body: dict[str, Any] = {"files": files, "data": fields} if request.form else {"content": request.body}
    return client.request(method(request), request.url.removeprefix("localhost:8000"), headers=headers, **body)


ROUTES = requests(section("Routes"))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """With the prefix and the database of the examples."""
    path = tmp_path / "sales.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE sold (id INTEGER PRIMARY KEY, city TEXT, price REAL)")
        connection.executemany("INSERT INTO sold (city, price) VALUES (?, ?)", [("ab"[n % 2], n / 3) for n in range(50)])
    named = {"data_prefixes": ["s3://bucket/"], "databases": {"sales": f"sqlite:///{path}"}}
    return Settings.model_validate({"home": tmp_path / "home", **named})


@pytest.mark.usefixtures("credentials")
def test_the_requests_are_answered(client: TestClient, store: Store, s3: S3) -> None:
    people = io.BytesIO()
    pd.read_csv(io.StringIO(CSV)).to_parquet(people)
    s3.fill("bucket", {"people.parquet": people.getvalue()})
    submit(client)
    test_routes.finish(store, result(), test_portable.zipped())
    submit(client)
    store.studies.pause(2)  # so that study 3 is the next of the queue
    client.post("/v1/studies/1/replay")
    test_replays.finish(store, (1.0, 2.0, 3.0))
    store.studies.resume(2)
    running = store.leases.claim("worker", 60)
    assert running is not None
    store.trials.ask(running, proposals(1))
    keep_onnx(store, models_of(store), 1, b"a model")
    saved: dict[str, bytes] = {}
    for request in ROUTES:
        answer = send(client, request, saved)
        assert answer.is_success, (request.url, answer.text)
        if request.out:
            saved[request.out] = answer.content


def test_there_is_a_request_for_every_route_and_none_asks_for_more(app: FastAPI) -> None:
    operations = {(name.upper(), path): each for path, item in app.openapi()["paths"].items() for name, each in item.items()}
    seen = set()
    for request in ROUTES:
        url = urlsplit(request.url.removeprefix("localhost:8000"))
        fitting = [key for key in operations if key[0] == method(request) and fits(url.path, key[1])]
        assert len(fitting) == 1, request.url
        parameters = operations[fitting[0]].get("parameters", [])
        schemas = {each["name"]: each["schema"] for each in parameters if each["in"] == "query"}
        for name, value in parse_qsl(url.query):
            assert name in schemas, request.url
            assert value in schemas[name].get("enum", [value]), request.url
        seen.add(fitting[0])
    assert seen == operations.keys()


def fits(path: str, template: str) -> bool:
    """Whether a path is one of a route's."""
    return re.fullmatch(re.sub(r"{\w+}", "[^/]+", template), path) is not None


def test_the_problem_is_the_one_shown(client: TestClient) -> None:
    (request,) = requests(section("Problems"))
    (shown,) = re.findall(r"```json\n(.*?)```", section("Problems"), re.DOTALL)
    found, expected = send(client, request).json(), json.loads(shown)
    assert found | {"request_id": ""} == expected | {"request_id": ""}


def test_every_status_of_a_problem_is_told() -> None:
    told = {int(row[0]) for row in cells("Problems")}
    assert told == {status.value for status in STATUS.values()} | {401, 403, 421, 500}


def test_every_setting_is_told_with_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {row[0].strip("`"): row[1].strip("`") for row in cells("Settings of the operator")}
    defaults = {f"REGSEARCH_{name.upper()}": field.default for name, field in Settings.model_fields.items()}
    assert told.keys() == defaults.keys()
    for name, text in told.items():
        if text == "none":
            assert defaults[name] in (None, "")
        else:
            monkeypatch.setenv(name, text.replace("~", str(Path.home())))
            assert getattr(Settings(), name.removeprefix("REGSEARCH_").lower()) == defaults[name]


def test_every_metric_is_told(client: TestClient) -> None:
    told = {row[0].strip("`").removesuffix("_total") for row in cells("Operation")}
    assert told == {family.name for family in text_string_to_metric_families(client.get("/metrics").text)}
