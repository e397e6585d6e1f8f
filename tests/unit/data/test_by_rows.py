"""Data that are read row by row: all that is made of them is the same as of data in memory, to the last bit."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from service.datasets import Mapped, Place, inspect, load_arrays
from service.errors import InvalidInput
from service.spec import Recipe
from workers.data import DataSource, Division, PrepareOptions, RawTable, load_table, prepare_all, split_rows
from workers.data.locked import test_part as locked_part
from workers.stack.device_data import DeviceData, examples
from workers.stack.stack import Stack, StackKey

CPU, USUAL = torch.device("cpu"), PrepareOptions()


def both(source: DataSource, folder: Path, options: PrepareOptions) -> tuple[list[RawTable], list[DeviceData]]:
    """In memory, and by rows; with three folds."""
    tables = [load_table(replace(source, scratch=folder, most=most)) for most in (math.inf, 0)]
    found = []
    for table in tables:
        folds = prepare_all(table, split_rows(table, Division(3, folds=3)), options)
        found.append(DeviceData.of(folds, task=table.task, outputs=table.outputs, device=CPU))
    return tables, found


def same(source: DataSource, folder: Path, options: PrepareOptions = USUAL) -> list[DeviceData]:
    """Check that both ways come to the same examples, test rows and hash."""
    (whole, by_rows), found = both(source, folder, options)
    assert not whole.by_rows
    assert by_rows.by_rows
    assert whole.data_hash() == by_rows.data_hash()
    assert whole.categorical == by_rows.categorical
    rows = torch.arange(len(found[0].y)).flip(0).view(2, -1)
    torch.testing.assert_close(found[1].x[rows], found[0].x[rows], rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(found[1].x[1:5], found[0].x[1:5], rtol=0, atol=0, equal_nan=True)
    assert found[0].categories == found[1].categories
    splits = [split_rows(table, Division(3, folds=3)) for table in (whole, by_rows)]
    parts = []
    for table, split in zip((whole, by_rows), splits, strict=True):
        fold = prepare_all(table, split, options)[1]
        features, _ = locked_part(table, split, fold)
        parts.append(examples([features], CPU)[:])
    torch.testing.assert_close(parts[0], parts[1], rtol=0, atol=0, equal_nan=True)
    return found


def saved(folder: Path, rows: int = 90, shape: tuple[int, ...] = (6, 5, 3), **more: Any) -> Path:
    rng = np.random.default_rng(1)
    x = rng.integers(0, 255, (rows, *shape), dtype=np.uint8)
    np.savez(folder / "a.npz", x=x, y=np.arange(rows) % 3, **more)
    return folder / "a.npz"


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 3), (3, 6, 5)])
def test_images_and_their_training_are_the_same_by_rows(tmp_path: Path, shape: tuple[int, ...]) -> None:
    source = DataSource("classification", path=saved(tmp_path, shape=shape), format="npz", layout="image")
    found = same(source, tmp_path)
    recipe = Recipe({"family": "cnn", "width": 4, "depth": 1, "batch_size": 16, "normalization": "batch", "lr": 0.01})
    losses = []
    for data in found:
        stack = Stack(StackKey.of(recipe, data.inputs, data.outputs), data)
        stack.resize([], 3)
        for lane in range(3):
            stack.load(lane, recipe, seed=lane, fold=lane)
        for _ in range(2):
            trained = stack.train_epoch(np.full((3, stack.updates), 0.01, dtype=np.float32))
        losses.append((trained, stack.evaluate()))
    torch.testing.assert_close(losses[0], losses[1], rtol=0, atol=0)


def test_series_keep_their_lengths_and_rows_of_numbers_their_preprocessing(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(3.0, 2.0, (80, 7, 2)).astype(np.float32)
    x[5, 2, 1], x[6] = np.nan, np.inf
    np.savez(tmp_path / "series.npz", x=x, y=np.arange(80) % 2, len=np.arange(80) % 7 + 1)
    series = DataSource("classification", path=tmp_path / "series.npz", format="npz", layout="sequence")
    same(series, tmp_path)
    for scaling in ("quantile", "robust"):
        same(replace(series, layout="flat"), tmp_path, PrepareOptions(scaling=scaling, flag_missing=True))


def test_a_parquet_file_is_read_by_rows_as_it_is_read_as_a_whole(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    rows = 5000
    frame = pd.DataFrame(
        {
            "whole": rng.integers(0, 9, rows),
            "gaps": pd.Series(rng.integers(0, 9, rows), dtype="Int64").mask(np.arange(rows) == 4321),
            "real": np.where(rng.random(rows) < 0.1, np.nan, rng.normal(size=rows)),
            "job": pd.Series(rng.choice(["nurse", "cook", "pilot", ""], rows, p=[0.6, 0.3, 0.05, 0.05])).replace("", None),
            "flag": pd.Series(rng.random(rows) < 0.5, dtype="boolean").mask(np.arange(rows) == 4000),
            "price": [f"{value:.2f} EUR" for value in rng.random(rows) * 100],
            "born": [f"2001-{1 + row % 12:02}-{1 + row % 28:02}" for row in range(rows)],
            "place": rng.integers(0, 40, rows),
            "patient": rng.integers(0, 2000, rows),
            "useless": "x",
            "ill": rng.choice(["yes", "no"], rows),
        }
    )
    frame.to_parquet(tmp_path / "a.parquet", row_group_size=700)
    source = DataSource(
        "classification",
        path=tmp_path / "a.parquet",
        format="parquet",
        target="ill",
        categorical=("place",),
        drop=("useless",),
        groups="patient",
    )
    (data, _) = same(source, tmp_path, PrepareOptions(flag_missing=True, max_levels=10, impute_categories="most_frequent"))
    assert data.categories
    assert not [*tmp_path.glob("tmp*")]


def test_rows_of_several_arrays_are_taken_in_any_order(tmp_path: Path) -> None:
    x = np.arange(40, dtype=np.float32).reshape(10, 2, 2)
    np.savez(tmp_path / "a.npz", x_train=x[:6], y_train=range(6), x_test=x[6:], y_test=range(4))
    found = load_arrays(tmp_path / "a.npz", 0).x
    assert isinstance(found, Mapped)
    rows = np.array([9, 0, 6, 5, 5])
    np.testing.assert_array_equal(found[rows], x[rows])
    np.testing.assert_array_equal(found.select(rows)[np.array([4, 0])], x[[5, 9]])
    np.testing.assert_array_equal(found[3:8], x[3:8])
    with pytest.raises(IndexError, match="10"):
        found[np.array([10])]
    np.save(tmp_path / "whole.npy", np.arange(6, dtype=np.int16).reshape(3, 2))
    place = Place(tmp_path / "whole.npy", 128, (3, 2), np.dtype(np.int16))
    assert Mapped([place])[np.array([2])].dtype == np.float32


def test_compressed_arrays_and_columns_first_are_read_into_memory(tmp_path: Path) -> None:
    x, y = np.arange(24.0).reshape(4, 6), np.arange(4)
    np.savez_compressed(tmp_path / "packed.npz", x=x, y=y)
    np.savez(tmp_path / "turned.npz", x=np.asfortranarray(x), y=y)
    for name in ("packed", "turned"):
        found = load_arrays(tmp_path / f"{name}.npz", 0).x
        assert isinstance(found, np.ndarray)
        np.testing.assert_array_equal(found, x)


def test_a_file_without_compression_may_be_larger_than_what_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.datasets.arrays.MAX_UNPACKED_BYTES", 1000)
    path = saved(tmp_path)
    assert inspect(path, "npz").rows == 90
    with np.load(path) as arrays:
        np.savez_compressed(tmp_path / "b.npz", **arrays)
    with pytest.raises(InvalidInput, match="unpacks to"):
        inspect(tmp_path / "b.npz", "npz")
