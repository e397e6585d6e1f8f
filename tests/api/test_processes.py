"""The API as its own process: how soon, how small, how quick, what it refuses to read, and the commands that talk to it."""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from rich.console import Console

from service.cli import doctor
from service.cli.supervisor import free_port
from service.cli.watch import watch
from service.client.connection import HttpClient, Refused
from service.settings import Settings
from tests.api.conftest import Serving

SPEC = {"data": {"dataset": "diabetes"}, "budget": {"trials": 10, "epochs": 5}}
MIB = 2**20
ROWS = "".join(f"{i},{i % 7},{'xy'[i % 2]}\n" for i in range(2000))


def test_it_stays_small_whatever_it_is_given(serving: Serving, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("a,b,c\n" + ROWS * 100)
    assert table.stat().st_size > MIB
    uploaded = serving.client.upload(table, "a table")
    study = serving.client.post("/v1/studies", {"data": {"dataset": uploaded["id"], "target": "c"}})
    for path in ("/dashboard", "/api/studies", f"/api/studies/{study['id']}?after=0", "/openapi.json", "/metrics"):
        assert httpx.get(serving.url + path).status_code == 200
    process = psutil.Process(serving.process.pid)
    assert process.memory_info().rss < 200 * MIB
    libraries = ("/torch/", "/sklearn/", "/pandas/", "/pyarrow/")
    assert not [each.path for each in process.memory_maps() if any(library in each.path for library in libraries)]


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "chunked"])
def test_an_upload_above_the_limit_is_refused_without_being_stored(serving: Serving, declared: bool) -> None:
    """Ten times the limit is announced, or just sent; the refusal comes when the limit is reached."""
    files_before = sorted(serving.home.rglob("*.csv"))
    form = b'--q\r\ncontent-disposition: form-data; name="file"; filename="a.csv"\r\n\r\n'
    length = {"content-length": str(len(form) + 20 * MIB)} if declared else {}

    def body() -> Iterator[bytes]:
        yield form
        for _ in range(20 * 16):
            yield b"x" * (MIB // 16)

    headers = {"content-type": "multipart/form-data; boundary=q", **length}
    try:
        answer = httpx.post(f"{serving.url}/v1/datasets", content=body(), headers=headers, timeout=30)
    except httpx.TransportError:
        # The connection was closed while the client still wrote, which is as good; the log has the answer.
        pass
    else:
        assert answer.status_code == 413
    assert serving.line(path="/v1/datasets", status=413)["method"] == "POST"
    assert sorted(serving.home.rglob("*.csv")) == files_before
    assert httpx.get(f"{serving.url}/healthz").status_code == 200


def test_its_log_is_json_with_one_line_per_request(serving: Serving) -> None:
    answer = httpx.get(f"{serving.url}/v1/studies/4711%0Aforged")
    line = serving.line(request_id=answer.headers["x-request-id"])
    assert [each for each in serving.lines() if each.get("request_id") == line["request_id"]] == [line]
    assert (line["status"], line["path"], line["level"]) == (422, "/v1/studies/4711\nforged", "info")
    assert not any("color_message" in each for each in serving.lines())


def test_a_second_one_on_the_port_says_so(serving: Serving, tmp_path: Path) -> None:
    for command in ("serve", "up"):
        done = serving.run(command, "--home", str(tmp_path))
        assert done.returncode == 1
        assert "can't be used" in done.stderr
        assert "--port" in done.stderr
        assert "Traceback" not in done.stderr


def test_doctor_tells_a_port_of_ours_from_one_that_is_taken(serving: Serving, tmp_path: Path) -> None:
    ours = Settings(home=serving.home, port=int(serving.url.rsplit(":", 1)[1]))
    said = io.StringIO()
    assert doctor.examine(ours, Console(file=said, width=200), devices=lambda: ["cpu"])
    assert "in use by a service that is ready" in said.getvalue()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = Settings(home=tmp_path, port=other.getsockname()[1])
        assert not doctor.examine(taken, Console(file=said, width=200), devices=lambda: ["cpu"], answer_seconds=0.2)
    assert "can't be used" in said.getvalue()


def test_doctor_looks_at_the_databases_that_the_operator_names(tmp_path: Path) -> None:
    (tmp_path / "sales.db").touch()
    databases = {
        "sales": f"sqlite:///{tmp_path}/sales.db",
        "gone": "postgresql://me:s3cr3t@127.0.0.1:1/x",
        "odd": "x:s3cr3t",
    }
    settings = Settings.model_validate({"home": tmp_path, "port": free_port(), "databases": databases})
    said = io.StringIO()
    assert not doctor.examine(settings, Console(file=said, width=200), devices=lambda: ["cpu"])
    for told in (
        "ok       data      sales is reachable",
        "trouble  data      gone can't be reached",
        "REGSEARCH_DATABASES.odd",
    ):
        assert told in said.getvalue()
    assert "s3cr3t" not in said.getvalue()


def test_a_service_that_is_restarted_is_still_watched(tmp_path: Path) -> None:
    port = free_port()
    first = Serving(tmp_path / "home", port)
    study = first.client.post("/v1/studies", SPEC)
    watcher = HttpClient(first.url)
    found: list[dict[str, Any]] = []
    polls = threading.Event()
    console = Console(file=io.StringIO())
    thread = threading.Thread(target=lambda: found.append(watch(watcher, study["id"], console, alive=polls.set)))
    thread.start()
    assert polls.wait(20)
    first.stop()
    time.sleep(0.5)
    second = Serving(tmp_path / "home", port)
    second.client.post(f"/v1/studies/{study['id']}/cancel")
    thread.join(20)
    watcher.close()
    second.stop()
    assert [each["state"] for each in found] == ["cancelled"]


def test_watching_what_is_not_there_ends_at_once(serving: Serving) -> None:
    with pytest.raises(Refused, match="does not exist"):
        watch(serving.client, 999_999, Console(file=io.StringIO()))


def test_a_client_that_never_finishes_does_not_keep_it_alive(tmp_path: Path) -> None:
    running = Serving(tmp_path / "home", free_port())
    with socket.create_connection(("127.0.0.1", int(running.url.rsplit(":", 1)[1]))) as idle:
        idle.sendall(b"POST /v1/studies HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{")
        time.sleep(0.3)
        running.stop()  # raises where it does not end
