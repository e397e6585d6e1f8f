"""Data sets that a worker reads row by row: folders of arrays and of Parquet files by address, searched to their answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient

from service.datasets.arrays import load_arrays
from service.settings import Settings
from service.store import Store
from tests.api.test_arrays import UntilFinished
from workers.worker import Worker

ROWS = 60


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", data_prefixes=(f"file://{tmp_path}/data/",))


def arrays(folder: Path, **more: Any) -> None:
    """Images of two classes that differ in their brightness."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    y = np.arange(ROWS) % 2
    x = rng.integers(0, 100, (ROWS, 6, 6, 3), dtype=np.uint8) + (100 * y).astype(np.uint8)[:, None, None, None]
    for name, array in {"X": x, "y": y, **more}.items():
        np.save(folder / f"{name}.npy", array)


def fetched(client: TestClient, address: str) -> dict[str, Any]:
    answer = client.post("/v1/datasets", json={"address": address})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def values(client: TestClient, study: int) -> list[Any]:
    found = client.get(f"/v1/studies/{study}/trials").json()["trials"]
    return [(trial["state"], trial["value"], trial["params"]) for trial in found]


def searched(client: TestClient, store: Store, settings: Settings, spec: dict[str, Any]) -> int:
    answer = client.post("/v1/studies", json=spec)
    assert answer.status_code == 201, answer.text
    Worker(store, settings, "cpu", UntilFinished(store)).run()
    study = int(answer.json()["id"])
    about = client.get(f"/v1/studies/{study}").json()
    assert about["state"] == "finished", about["reason"]
    return study


@pytest.mark.parametrize("kind", ["arrays", "table"])
def test_a_study_by_rows_comes_to_the_same_as_in_memory(
    client: TestClient, store: Store, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    folder = tmp_path / "data" / kind
    data: dict[str, Any] = {}
    model: dict[str, Any] = {"widths": [4]}
    if kind == "arrays":
        arrays(folder)
        model = {"family": "cnn", "width": 4, "depth": 1}
    else:
        data = {"target": "y"}
        rng = np.random.default_rng(1)
        for part in range(3):
            (folder / f"year={2020 + part}").mkdir(parents=True)
            table = pd.DataFrame({"a": rng.normal(size=40), "b": rng.choice(["p", "q"], 40)})
            table.assign(y=np.where(table["a"] > 0, "yes", "no")).to_parquet(folder / f"year={2020 + part}/a.parquet")
    dataset = fetched(client, f"file://{folder}")
    assert dataset["rows"] == (ROWS if kind == "arrays" else 120)
    spec = {
        "data": {"dataset": dataset["id"], **data},
        "model": model,
        "space": {"preset": "minimal", "lr": [0.01, 0.1], "dropout": [0.1, 0.3]},
        "validation": {"method": "kfold", "folds": 2},
        "budget": {"trials": 2, "epochs": 2, "seeds": 2, "finalists": 1},
    }
    whole = searched(client, store, settings, spec)
    monkeypatch.setattr("workers.study_data.READ_BY_ROWS_BYTES", 0)
    by_rows = searched(client, store, settings, spec)
    assert values(client, whole) == values(client, by_rows)
    results = [client.get(f"/v1/studies/{study}/result").json() for study in (whole, by_rows)]
    assert results[0]["winner"]["test"] == results[1]["winner"]["test"]


def test_folders_of_arrays_are_stored_as_they_are_and_others_are_refused(
    client: TestClient, settings: Settings, tmp_path: Path
) -> None:
    folder = tmp_path / "data" / "pairs"
    arrays(folder)
    address = f"file://{folder}"
    first = fetched(client, address)
    assert (first["format"], first["rows"]) == ("npz", ROWS)
    stored = load_arrays(settings.datasets_dir / f"{first['id']}.npz", 0)
    np.testing.assert_array_equal(stored.x[np.arange(ROWS)], np.load(folder / "X.npy"))
    again = client.post("/v1/datasets", json={"address": address})
    assert (again.status_code, again.json()["id"]) == (200, first["id"])
    for path, told in (
        (folder / "X.npy", "one array without targets"),
        (tmp_path / "data" / "odd", "needs the arrays x and y"),
    ):
        if path.name == "odd":
            path.mkdir()
            np.save(path / "x.npy", np.zeros((3, 2)))
        answer = client.post("/v1/datasets", json={"address": f"file://{path}"})
        assert answer.status_code == 422
        assert told in answer.text
    np.save(folder / "y.npy", np.array([{}] * ROWS, dtype=object))
    assert "pickles are never loaded" in client.post("/v1/datasets", json={"address": address}).text
