"""What would take too much: files that unpack to far more, networks that no worker can hold, a disk without room."""

from __future__ import annotations

import errno
import gzip
import io
import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient

from service import apart
from service.api import inspection
from service.api.inspection import inspect_apart
from service.datasets import inspect, tables
from service.errors import InvalidInput, NotReady
from service.settings import Settings
from service.store import Store
from tests.api.test_routes import SMALL, submit, uploaded
from workers.planning.cores import memory_limits


def test_a_packed_file_may_not_unpack_to_far_more(client: TestClient, settings: Settings) -> None:
    rows = b"a,y\n" + b"1.00000,2\n" * 7_500_000
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=9) as file:
        file.write(rows)
    path = settings.data_roots[0] / "rows.csv.gz"
    path.write_bytes(packed.getvalue())
    assert len(rows) > 100 * path.stat().st_size
    with pytest.raises(InvalidInput, match="unpacks to more than"):
        inspect(path, "csv")


def test_parquet_with_more_rows_than_any_study_could_use_is_refused_unread(tmp_path: Path) -> None:
    nothing = pa.array(np.zeros(25_000_000, dtype=np.int8))
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"a": nothing, "y": nothing}), path, compression="zstd")
    assert path.stat().st_size < 1 << 20
    with pytest.raises(InvalidInput, match="has 25000000 rows"):
        inspect(path, "parquet")


def test_long_cells_and_lines_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pd.DataFrame({"a": ["x" * (tables.MAX_CELL + 1)] * 30, "y": range(30)}).to_parquet(path)
    with pytest.raises(InvalidInput, match="a text of more than 100000 letters"):
        inspect(path, "parquet")
    path = tmp_path / "rows.csv"
    path.write_text("a,y\n" + "x" * (tables.MAX_CELL + 1) + ",1\n")
    with pytest.raises(InvalidInput, match="field larger than field limit"):
        inspect(path, "csv")
    path.write_text("x" * (17 << 20) + ",y\n1,2\n")
    with pytest.raises(InvalidInput, match="has a line of more than"):
        inspect(path, "csv")
    path.write_text(",".join(f"c{number}" for number in range(20_001)) + "\n")
    with pytest.raises(InvalidInput, match="has 20001 columns"):
        inspect(path, "csv")


def test_a_reader_that_takes_too_much_memory_ends_and_the_service_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dictionary of one long text, of which the file stores the place only, becomes as many texts as rows."""
    path = tmp_path / "rows.parquet"
    text = pa.array(["x" * 90_000]).dictionary_encode()
    rows = 200_000
    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, dtype=np.int32)), text.dictionary)
    pq.write_table(pa.table({"a": column, "y": np.arange(rows) % 2}), path)
    assert path.stat().st_size < 2 << 20
    monkeypatch.setattr(inspection, "_MEGABYTES", 500)
    start = time.monotonic()
    try:
        described = inspect_apart(path, "parquet")
    except InvalidInput as error:
        assert "memory" in str(error)  # noqa: PT017  # either is right: pyarrow may keep the dictionary
    else:
        assert described.rows == rows
    assert time.monotonic() - start < 100


def test_files_in_reading_leave_threads_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("a,y\n1,2\n3,4\n")
    go_on = threading.Event()
    real = apart.subprocess.run  # type: ignore[attr-defined]

    def slow(*arguments: Any, **options: Any) -> Any:
        go_on.wait(60)
        return real(*arguments, **options)

    monkeypatch.setattr(apart.subprocess, "run", slow)  # type: ignore[attr-defined]
    found: list[object] = []

    def read() -> None:
        try:
            found.append(inspect_apart(path, "csv").rows)
        except NotReady as error:
            found.append(str(error))

    threads = [threading.Thread(target=read) for _ in range(14)]
    for thread in threads:
        thread.start()
    while len(found) < 4:  # those for which there is no place are refused at once
        time.sleep(0.01)
    assert all("too many files" in str(each) for each in found)
    go_on.set()
    for thread in threads:
        thread.join()
    assert [each for each in found if each == 2] == [2] * 10


def test_a_network_that_no_worker_can_hold_is_refused_at_submit(client: TestClient, store: Store) -> None:
    huge = {"model": {"widths": [16384] * 64}}
    submit(client, **huge)  # no worker is there yet that could tell
    store.workers.register(name="w", host="h", pid=1, device="cpu", memory=8 * 2**30)
    answer = client.post("/v1/studies", json=SMALL | huge)
    assert answer.status_code == 422
    (issue,) = answer.json()["errors"]
    assert issue["field"] == "model.widths"
    assert "needs at least 189.0 GiB with its data" in issue["message"]
    assert "8.0 GiB" in issue["allowed"]
    answer = client.post("/v1/studies", json=SMALL | {"model": {"width": {"low": 16_000, "high": 16_384}, "depth": 16}})
    assert answer.status_code == 422, answer.text
    submit(client, model={"width": {"low": 16, "high": 16_384}, "depth": 16})
    store.workers.register(name="big", host="h", pid=2, device="cuda:0", memory=400 * 2**30)
    submit(client, **huge)


def test_data_that_no_worker_can_hold_is_refused_at_submit(client: TestClient, store: Store) -> None:
    data = uploaded(client, "a,b,y\n" + "".join(f"{row},{row % 7},{row % 3}\n" for row in range(500)))
    store.workers.register(name="small", host="h", pid=1, device="cpu", memory=10_000)
    answer = client.post("/v1/studies", json=SMALL | {"data": {"dataset": data["id"], "target": "y"}})
    (issue,) = answer.json()["errors"]
    assert (issue["field"], issue["value"]) == ("data", 5 * 500 * 2 * 4)


def test_memory_limits_of_control_groups_are_found(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/memory.max").write_text("4096\n")
    (tmp_path / "a/b/memory.max").write_text("max\n")
    assert list(memory_limits(tmp_path, "0::/a/b\n")) == [4096]
    (tmp_path / "memory/c").mkdir(parents=True)
    (tmp_path / "memory/c/memory.limit_in_bytes").write_text("8192\n")
    assert list(memory_limits(tmp_path, "5:cpu,cpuacct:/x\n4:memory:/c\n")) == [8192]


def test_it_is_not_ready_on_a_disk_without_room(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    assert client.get("/readyz").status_code == 200

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr("service.api.operations.os.fsync", full)
        answer = client.get("/readyz")
    assert answer.status_code == 503
    assert "No space left on device" in answer.json()["detail"]
    assert client.get("/readyz").status_code == 200


def test_a_database_file_that_was_moved_away_is_not_made_anew(
    client: TestClient, store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = submit(client)
    file = Path(settings.database_url.removeprefix("sqlite:///"))
    for ending in ("", "-wal", "-shm"):
        part = Path(f"{file}{ending}")
        if part.exists():
            part.rename(f"{file}{ending}.away")
    assert client.get("/readyz").status_code == 503
    assert not file.exists()
    for ending in ("", "-wal", "-shm"):
        part = Path(f"{file}{ending}.away")
        if part.exists():
            part.rename(f"{file}{ending}")
    assert client.get("/readyz").status_code == 200
    assert client.get(f"/v1/studies/{study['id']}").json()["name"] == study["name"]


def test_many_choices_are_refused(client: TestClient) -> None:
    answer = client.post("/v1/studies", json=SMALL | {"space": {"batch_size": list(range(1, 40_001))}})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "space.batch_size.choices"
    assert len(answer.content) < 20_000
