"""Large files that are given by their path: read row by row from what nobody else can change."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from service.api.inspection import Inspections
from service.api.submission import check
from service.datasets import Mapped
from service.errors import InvalidInput, TrialError
from service.settings import Settings
from service.spec import StudySpec
from service.store import Store, open_store
from service.store.records import StudyRecord
from workers.data import RawTable
from workers.study_data import StudyData

ROWS = 400


class Bench:
    """A service's database and directories."""

    def __init__(self, home: Path) -> None:
        self.settings = Settings(home=home / "home", data_roots=(home / "data",), cache=home / "cache")
        self.settings.home.mkdir()
        self.data = home / "data"
        self.data.mkdir()
        self.store: Store = open_store(self.settings.database_url, create=True)

    def submitted(self, path: Path, **data: Any) -> tuple[StudyRecord, StudySpec]:
        raw = StudySpec.model_validate({"data": {"path": str(path), **data}, "validation": {"method": "holdout"}})
        study_id = self.store.studies.submit(check(raw, self.store, self.settings, Inspections()).spec)
        record = self.store.studies.get(study_id)
        return record, StudySpec.model_validate(record.spec)

    def worker(self) -> StudyData:
        return StudyData(self.store, self.settings, torch.device("cpu"))

    def table(self, path: Path, **data: Any) -> RawTable:
        """As a worker reads it."""
        return self.worker().of(*self.submitted(path, **data)).table


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.store.close()


@pytest.fixture
def _all_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.study_data.READ_BY_ROWS_BYTES", 1000)


@pytest.mark.usefixtures("_all_are_large")
def test_arrays_are_mapped_from_a_copy_that_outlives_the_file(bench: Bench) -> None:
    x = np.random.default_rng(0).integers(0, 255, (ROWS, 6, 6), dtype=np.uint8)
    path = bench.data / "images.npz"
    np.savez(path, x=x, y=np.arange(ROWS) % 3)
    table = bench.table(path)
    assert table.records is not None
    path.write_bytes(b"")  # a map of the file itself would end the process
    found = table.records.matrix
    assert isinstance(found, Mapped)
    np.testing.assert_array_equal(found[np.arange(ROWS)], x.reshape(ROWS, -1))
    assert not [*(bench.settings.home / "datasets").iterdir()]


@pytest.mark.usefixtures("_all_are_large")
def test_a_parquet_file_becomes_a_matrix_that_outlives_it(bench: Bench) -> None:
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"a": rng.normal(size=ROWS), "b": rng.choice(["x", "y"], ROWS), "y": rng.choice([0, 1], ROWS)})
    path = bench.data / "rows.parquet"
    frame.to_parquet(path)
    table = bench.table(path, target="y")
    assert table.records is not None
    path.write_bytes(b"")
    matrix = np.asarray(table.records.matrix[np.arange(ROWS)])
    np.testing.assert_array_equal(matrix[:, 0], frame["a"])
    assert table.records.texts["b"][int(matrix[0, 1])] == frame["b"][0]
    assert not [*(bench.settings.home / "datasets").iterdir()]


def test_a_file_is_read_as_a_whole_below_the_limit(bench: Bench) -> None:
    path = bench.data / "small.npz"
    np.savez(path, x=np.arange(2.0 * ROWS).reshape(ROWS, 2), y=np.arange(ROWS) % 2)
    assert not bench.table(path).by_rows


def test_a_file_that_is_changed_while_it_is_read_fails_the_study(bench: Bench) -> None:
    path = bench.data / "rows.csv"
    pd.DataFrame({"a": range(ROWS), "y": np.arange(ROWS) % 2}).to_csv(path, index=False)
    record, spec = bench.submitted(path, target="y")

    def read() -> None:
        with bench.worker()._file(record, spec), path.open("a") as file:
            file.write("7,1\n")

    with pytest.raises(TrialError, match=f"data.path: {path} was changed while it was read"):
        read()


def test_a_folder_is_refused_with_what_to_do(bench: Bench) -> None:
    (bench.data / "parts").mkdir()
    with pytest.raises(InvalidInput, match="is a folder; one of Parquet files"):
        bench.submitted(bench.data / "parts")
    with pytest.raises(InvalidInput, match="is not a file under an allowed directory"):
        bench.submitted(bench.data.parent)
