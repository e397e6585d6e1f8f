"""Data sets by address: a real S3 server, web servers that redirect, break off, lie and never end, and directories."""

from __future__ import annotations

import gzip
import io
import json
import logging
import math
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from service.api import sources
from service.settings import Settings
from tests import servers
from tests.api.test_routes import SMALL
from tests.servers import S3, SECRET

pytestmark = pytest.mark.usefixtures("credentials")

LIMIT = 200_000
ROWS = 300
CSV = b"age,job,class\n" + b"".join(
    b"%d,%s,%s\n" % (20 + n % 60, b"ab"[n % 2 :][:1], b"yes" if n % 3 else b"no") for n in range(ROWS)
)


@pytest.fixture(scope="module", autouse=True)
def _filled(s3: S3) -> None:
    s3.fill("closed", {"people.csv": CSV})
    s3.fill(
        "open",
        {
            "people.csv": CSV,
            "people.parquet": parquet(0),
            "packed.csv.gz": gzip.compress(CSV),
            "sales/year=2023/a.parquet": parquet(0, "old"),
            "sales/year=2024/b.parquet": parquet(1),
            "sales/_SUCCESS": b"",
            "sales/.b.parquet.crc": b"x",
            "images/cat/1.png": picture(1, "L"),
            "images/cat/2.webp": picture(2, "RGB", "WEBP"),
            "images/dog/1.png": picture(3, "RGBA"),
            "images/dog/2.png": picture(4, "P"),
            "images/notes.txt": b"none",
            "delta/_delta_log/00.json": b"{}",
            "delta/a.parquet": parquet(0),
            "words/readme.txt": b"none",
            "unfit/a.parquet": parquet(0),
            "unfit/b.parquet": frame(pd.DataFrame({"a": ["x"] * 3, "y": [1, 2, 3]})),
            "large/a.parquet": large(0),
            "large/b.parquet": large(1),
            "large.csv": b"a,y\n" + b"1,2\n" * LIMIT,
            "nothing.parquet": b"no Parquet",
        },
    )


def frame(table: pd.DataFrame) -> bytes:
    out = io.BytesIO()
    table.to_parquet(out, index=False)
    return out.getvalue()


def parquet(part: int, *more: str) -> bytes:
    """A part of a table; the later one has wider numbers and a column that the first one lacks."""
    table = pd.DataFrame({"a": np.arange(40) if part == 0 else np.arange(40) / 4, "y": np.arange(40) % 2})
    if part == 1:
        table["new"] = "word"
    return frame(table.assign(**dict.fromkeys(more, 1)))


def large(seed: int) -> bytes:
    return frame(pd.DataFrame(np.random.default_rng(seed).random((6000, 3)), columns=["a", "b", "y"]))


def picture(seed: int, mode: str, kind: str = "PNG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (8 + seed, 9, 4), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(out, kind)
    return out.getvalue()


@pytest.fixture
def web() -> Iterator[str]:
    answers = {"/data/people.csv": servers.content(CSV), "/data/endless.csv": servers.without_end}
    with servers.web_server(answers) as address:
        yield f"{address}data/"


@pytest.fixture
def settings(tmp_path: Path, web: str) -> Settings:
    prefixes = ("s3://open/", "s3://absent/", f"file://{tmp_path}/data/", web)
    return Settings(home=tmp_path / "home", data_prefixes=prefixes, max_upload_mb=LIMIT / 2**20)


Fetch = Callable[..., dict[str, Any]]


@pytest.fixture
def fetched(client: TestClient) -> Fetch:
    def fetched(address: str, **more: str) -> dict[str, Any]:
        answer = client.post("/v1/datasets", json={"address": address, **more})
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()
        return found

    return fetched


@pytest.fixture
def refused(client: TestClient, settings: Settings, caplog: pytest.LogCaptureFixture) -> Callable[..., str]:
    """The message of a refusal, after which nothing is left."""

    def refused(address: str, status: int = 422) -> str:
        with caplog.at_level(logging.DEBUG):
            answer = client.post("/v1/datasets", json={"address": address})
        assert answer.status_code == status, answer.text
        (issue,) = answer.json()["errors"]
        assert issue["field"] == "address"
        assert SECRET not in answer.text
        assert "secret" not in answer.text
        assert SECRET not in caplog.text
        assert not settings.datasets_dir.exists() or list(settings.datasets_dir.iterdir()) == []
        return json.dumps([issue["message"], issue["allowed"]])

    return refused


def test_a_file_by_address_is_the_data_set_that_its_upload_is(client: TestClient, fetched: Fetch) -> None:
    made = fetched("s3://open/people.csv", name="people")
    assert made["source"] == {"file": None, "address": "s3://open/people.csv", "database": None, "query": None}
    assert (made["name"], made["rows"], made["size"], made["unchanged"]) == ("people", ROWS, len(CSV), False)
    assert made["sha256"].startswith(made["id"])
    again = client.post("/v1/datasets", files={"file": ("people.csv", CSV)}, data={"name": "people"})
    assert (again.status_code, again.json()["id"], again.json()["unchanged"]) == (200, made["id"], True)
    body = SMALL | {"data": {"dataset": made["id"], "target": "class"}}
    assert client.post("/v1/studies", json=body).status_code == 201
    assert fetched("s3://open/packed.csv.gz")["name"] == "packed.csv.gz"
    by_name = fetched("s3://open/people.parquet")
    assert (by_name["name"], by_name["format"]) == ("people.parquet", "parquet")
    listed = {each["id"]: each["source"]["address"] for each in client.get("/v1/datasets").json()}
    assert listed[by_name["id"]] == "s3://open/people.parquet"


@pytest.mark.parametrize("address", ["s3://open/sales/", "s3://open/sales"])
def test_a_folder_of_parquet_files_is_one_table(
    client: TestClient, fetched: Fetch, settings: Settings, address: str
) -> None:
    made = fetched(address)
    assert (made["format"], made["rows"], made["name"]) == ("parquet", 80, "sales.parquet")
    columns = {column["name"]: (column["kind"], column["missing"]) for column in made["columns"]}
    assert columns == {
        "a": ("numeric", 0),
        "y": ("numeric", 0),
        "old": ("numeric", 40),
        "new": ("categorical", 40),
        "year": ("numeric", 0),
    }
    table = pd.read_parquet(settings.datasets_dir / f"{made['id']}.parquet")
    assert table["a"].tolist() == [*range(40), *np.arange(40) / 4]
    assert table["year"].tolist() == [2023] * 40 + [2024] * 40
    answer = client.post("/v1/datasets", json={"address": address})
    assert (answer.status_code, answer.json()["id"]) == (200, made["id"])


def test_a_folder_of_images_is_a_data_set_of_images(client: TestClient, fetched: Fetch, settings: Settings) -> None:
    made = fetched("s3://open/images/", name="animals")
    assert (made["format"], made["rows"]) == ("zip", 4)
    with zipfile.ZipFile(settings.datasets_dir / f"{made['id']}.zip") as archive:
        assert archive.namelist() == ["cat/1.png", "cat/2.webp", "dog/1.png", "dog/2.png"]
    again = client.post("/v1/datasets", json={"address": "s3://open/images", "name": "animals"}).json()
    assert (again["id"], again["unchanged"]) == (made["id"], True)


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("s3://closed/people.csv", "REGSEARCH_DATA_PREFIXES"),
        ("s3://open/../closed/people.csv", "can be read in several ways"),
        ("s3://open/nobody.csv", "has nothing"),
        ("s3://absent/people.csv", "has nothing"),
        ("s3://open/nothing/", "without Parquet files, arrays and images"),
        ("s3://open/words/", "without Parquet files, arrays and images"),
        ("s3://open/words/readme.txt", "has the ending 'txt'"),
        ("s3://open/delta/", "table with a log"),
        ("s3://open/unfit/", "don't make one table"),
        ("s3://open/nothing.parquet", "cannot be read as parquet"),
    ],
)
def test_what_is_no_data_set_in_a_store_is_refused(refused: Callable[..., str], address: str, told: str) -> None:
    assert told in refused(address)


@pytest.mark.parametrize("address", ["s3://open/large.csv", "s3://open/large/"])
def test_what_is_larger_than_an_upload_may_be_is_refused(refused: Callable[..., str], address: str) -> None:
    assert f"is larger than {LIMIT} bytes" in refused(address, 413)


def test_a_store_that_does_not_know_the_service_or_is_away(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    assert "NoCredentials" in refused("s3://open/people.csv")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", SECRET)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    assert "can't be read with the service's credentials" in refused("s3://open/people.csv")


def test_a_web_server_and_a_directory(fetched: Fetch, tmp_path: Path, web: str) -> None:
    made = fetched(f"{web}people.csv?signature={SECRET}", name="signed")
    assert made["source"]["address"] == f"{web}people.csv?…"
    assert SECRET not in json.dumps(made)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/others.csv").write_bytes(CSV)
    assert fetched(f"file://{tmp_path}/data/others.csv")["id"] == made["id"]


def test_a_file_that_never_ends_leaves_nothing(refused: Callable[..., str], web: str) -> None:
    assert f"is larger than {LIMIT} bytes" in refused(f"{web}endless.csv", 413)


def test_what_takes_too_long_is_given_up(
    refused: Callable[..., str], settings: Settings, web: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "_SECONDS", 0.01)
    monkeypatch.setattr(sources, "_BYTES_PER_SECOND", math.inf)
    assert "could not be read within 0.01 s" in refused(f"{web}people.csv")


def test_a_request_is_for_one_thing(client: TestClient) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({}, "body"),
        ({"name": "x"}, "body"),
        ({"address": "s3://open/people.csv", "database": "sales", "query": "select 1"}, "body"),
        ({"adress": "s3://open/people.csv"}, "adress"),
        ({"address": 3}, "address"),
        ({"address": "s3://open/people.csv", "name": "x" * 201}, "name"),
    ]
    for body, field in wrong:
        answer = client.post("/v1/datasets", json=body)
        assert answer.status_code == 422, body
        assert answer.json()["errors"][0]["field"] == field
    for content, kind in ((b"{}", "text/plain"), (b"address=s3://open/people.csv", "application/x-www-form-urlencoded")):
        answer = client.post("/v1/datasets", content=content, headers={"content-type": kind})
        assert answer.status_code == 415
    big = client.post("/v1/datasets", content=b"{" + b" " * 2**20 + b"}", headers={"content-type": "application/json"})
    assert big.status_code == 413


def test_the_description_has_both_bodies(client: TestClient) -> None:
    route = client.get("/openapi.json").json()["paths"]["/v1/datasets"]["post"]
    assert set(route["requestBody"]["content"]) == {"multipart/form-data", "application/json"}
    assert set(route["requestBody"]["content"]["application/json"]["schema"]["properties"]) == {
        "address",
        "database",
        "query",
        "name",
    }
