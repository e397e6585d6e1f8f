"""Fetching what is at an address: web servers that redirect, break off, lie and never end, and directories with links."""

from __future__ import annotations

import io
import json
import os
import ssl
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
import trustme

from service.addresses import allowed_address
from service.datasets.fetching import fetch
from service.errors import InvalidInput, TooLarge
from tests import servers

LIMIT = 200_000
CSV = b"age,job,class\n" + b"30,a,yes\n40,b,no\n" * 150


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory that is allowed, with one beside it that is not."""
    (tmp_path / "data").mkdir()
    (tmp_path / "private").mkdir()
    (tmp_path / "private/people.csv").write_bytes(CSV)
    return tmp_path / "data"


@pytest.fixture
def web() -> Iterator[str]:
    with servers.web_server({"/people.csv": servers.content(CSV)}) as elsewhere:
        answers = {
            "/data/people.csv": servers.content(CSV),
            "/private/people.csv": servers.content(CSV),
            "/data/moved.csv": servers.leading_to("/data/people.csv?token=secret"),
            "/data/escaped.csv": servers.leading_to("/private/people.csv?token=secret"),
            "/data/dotted.csv": servers.leading_to("/data/x/%2e%2e/%2e%2e/private/people.csv"),
            "/data/foreign.csv": servers.leading_to(f"{elsewhere}people.csv"),
            "/data/metadata.csv": servers.leading_to("http://user:secret@169.254.169.254/latest/meta-data"),
            "/data/file.csv": servers.leading_to("file:///etc/passwd"),
            "/data/circle.csv": servers.leading_to("/data/circle.csv"),
            "/data/endless.csv": servers.without_end,
            "/data/declared.csv": servers.content(b"", **{"content-length": str(10**12)}),
            "/data/short.csv": servers.content(CSV, **{"content-length": str(len(CSV) + 9)}, connection="close"),
            "/data/long.csv": servers.content(CSV + b"9,9,9\n" * 9, **{"content-length": str(len(CSV))}, connection="close"),
            "/data/broken.csv": servers.breaking_off(CSV, 900),
            "/data/resumed.csv": servers.breaking_off(CSV, 900, '"v1"'),
            "/data/weak.csv": servers.breaking_off(CSV, 900, 'W/"v1"'),
            "/data/changing.csv": servers.changing(CSV),
            "/data/forbidden.csv": servers.status(403),
            "/data/failing.csv": servers.status(500),
        }
        with servers.web_server(answers) as address:
            yield f"{address}data/"


Fetch = Callable[..., Path]


@pytest.fixture
def fetched(tmp_path: Path, folder: Path, web: str) -> Fetch:
    """The file that what is at an address becomes."""

    def fetched(address: str, *prefixes: str, format_: str = "csv") -> Path:
        allowed = prefixes or (f"file://{folder}/", web, "gs://open/")
        (tmp_path / "scratch").mkdir()
        target = tmp_path / "fetched"
        try:
            found = fetch(allowed_address(address, allowed), allowed, target, tmp_path / "scratch", LIMIT)
        finally:
            (tmp_path / "scratch").rename(tmp_path / f"scratch{len(list(tmp_path.iterdir()))}")
        assert found == format_
        return target

    return fetched


@pytest.fixture
def refused(fetched: Fetch) -> Callable[..., str]:
    """The message of a refusal."""

    def refused(address: str, kind: type[InvalidInput] = InvalidInput) -> str:
        with pytest.raises(InvalidInput) as caught:
            fetched(address)
        assert type(caught.value) is kind
        (issue,) = caught.value.issues
        assert issue.field == "address"
        told = json.dumps([issue.message, issue.value, issue.allowed])
        assert "secret" not in told
        return told

    return refused


def test_a_web_server_may_lead_on_and_break_off(fetched: Fetch, web: str) -> None:
    for name in ("people", "moved", "resumed", "long", "people.csv?signature=a"):
        assert fetched(f"{web}{name}" if "." in name else f"{web}{name}.csv").read_bytes() == CSV


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("escaped", "leads to another address, which begins with no prefix"),
        ("dotted", "leads to another address, which has a path that can be read in several ways"),
        ("foreign", "leads to another address, which begins with no prefix"),
        ("metadata", "leads to another address, which has a host that can't be read in one way"),
        ("file", "leads to another address, which begins with no prefix"),
        ("circle", "leads on more than 5 times"),
        ("short", "broke off"),
        ("broken", "broke off"),
        ("weak", "broke off"),
        ("changing", "has changed meanwhile"),
        ("forbidden", "the server answers 403"),
        ("failing", "the server answers 500"),
        ("absent", "the server answers 404"),
        ("", "has the ending ''"),
        ("../private/people.csv?", "can be read in several ways"),
    ],
)
def test_a_web_server_that_leads_astray_or_fails(refused: Callable[..., str], web: str, name: str, told: str) -> None:
    assert told in refused(f"{web}{name}.csv" if name.isalpha() else f"{web}{name}")


@pytest.mark.parametrize("name", ["endless", "declared"])
def test_a_web_server_that_never_ends_is_left(refused: Callable[..., str], web: str, name: str) -> None:
    assert f"is larger than {LIMIT} bytes" in refused(f"{web}{name}.csv", TooLarge)


def test_certificates_are_checked(fetched: Fetch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with servers.web_server({"/people.csv": servers.content(CSV)}, context) as address:
        with pytest.raises(InvalidInput, match="no valid certificate"):
            fetched(f"{address}people.csv", address)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        assert fetched(f"{address}people.csv", address).read_bytes() == CSV


def test_directories_of_the_machine(fetched: Fetch, folder: Path) -> None:
    (folder / "people.csv").write_bytes(CSV)
    assert fetched(f"file://{folder}/people.csv").read_bytes() == CSV
    for year in (2023, 2024):
        (folder / f"sales/year={year}").mkdir(parents=True)
        (folder / f"sales/year={year}/x.parquet").write_bytes(table(year - 2023))
    found = pd.read_parquet(fetched(f"file://{folder}/sales", format_="parquet"))
    assert found["year"].tolist() == [2023] * 3 + [2024] * 3
    assert found["a"].tolist() == [0.0, 1.0, 2.0, 0.0, 0.25, 0.5]
    assert found["c"].tolist() == ["x", "y", "x"] * 2


def table(part: int) -> bytes:
    """A part of a table; a later one has wider numbers, and text that is stored otherwise."""
    out = io.BytesIO()
    words = ["x", "y", "x"]
    numbers = [0, 1, 2] if part == 0 else [0.0, 0.25, 0.5]
    found = {"a": numbers, "c": pd.Categorical(words) if part == 0 else words, "y": [0, 1, 0]}
    pd.DataFrame(found).to_parquet(out, index=False)
    return out.getvalue()


def test_links_out_of_a_directory_lead_nowhere(refused: Callable[..., str], folder: Path) -> None:
    (folder / "link.csv").symlink_to(folder.parent / "private/people.csv")
    (folder / "inside").symlink_to(folder.parent / "private")
    (folder / "parts").mkdir()
    (folder.parent / "private/a.parquet").write_bytes(table(0))
    (folder / "parts/a.parquet").symlink_to(folder.parent / "private/a.parquet")
    os.mkfifo(folder / "pipe.csv")
    names = ("link.csv", "inside/people.csv", "inside", "inside/", "absent.csv", "pipe.csv", "parts/")
    told = {name: refused(f"file://{folder}/{name}") for name in names}
    assert all("is no file that may be read" in told[name] for name in names if not name.startswith("inside"))
    assert "REGSEARCH_DATA_PREFIXES" in refused(f"file://{folder.parent}/private/people.csv")


def test_without_the_package_of_a_store_it_is_told_what_to_install(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fsspec.core", None)  # as where it is not installed
    assert "pip install gcsfs" in refused("gs://open/people.csv")
