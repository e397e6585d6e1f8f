"""Data sets: reading, storing, splitting, preprocessing."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import datasets as bundled
from sklearn.preprocessing import StandardScaler

from service.datasets import BUILTIN, Column, held, infer_task, inspect, save_upload
from service.datasets.uploads import file_format
from service.errors import InvalidInput, TooLarge, TrialError
from service.spec import ValidationSpec
from workers.data import DataSource, RawTable, Split, load_table, make_split, prepare
from workers.data.locked import test_part as locked_part


def frame(rows: int = 200, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    made = pd.DataFrame(
        {
            "age": rng.integers(18, 90, rows).astype(float),
            "income": rng.lognormal(size=rows),
            "job": rng.choice(["a", "b", "c"], rows),
            "member": rng.random(rows) < 0.5,
            "class": rng.choice(["no", "yes"], rows, p=[0.8, 0.2]),
        }
    )
    made.loc[::9, "age"] = np.nan
    made.loc[::7, "job"] = None
    return made


def table(tmp_path: Path, made: pd.DataFrame | None = None, **source: Any) -> RawTable:
    path = tmp_path / "data.csv"
    (frame() if made is None else made).to_csv(path, index=False)
    given: dict[str, Any] = {"task": "classification", "target": "class", **source}
    return load_table(DataSource(path=path, format="csv", **given))


def split(made: RawTable, seed: int = 0, **validation: Any) -> Split:
    return make_split(made, ValidationSpec(**validation), seed)


@pytest.mark.parametrize("name", BUILTIN)
def test_facts_of_built_in_sets_are_true(name: str) -> None:
    real = getattr(bundled, f"load_{name}")()
    x, y = real.data, real.target
    facts = BUILTIN[name]
    assert (facts.rows, facts.shape) == (len(x), x.shape[1:])
    for column, values in zip(facts.columns, [*x.T, y], strict=True):
        assert column.kind == "numeric"
        assert (column.missing, column.distinct) == (0, len(np.unique(values)))
        assert column.whole == bool(np.all(values == np.floor(values)))
    target = facts.column("target")
    assert target is not None
    assert infer_task(target, facts.rows) == facts.task == ("regression" if name == "diabetes" else "classification")
    assert facts.classes == tuple(map(str, getattr(real, "target_names", ())))
    loaded = load_table(DataSource(task=facts.task, name=name))
    assert tuple(loaded.features.columns) == facts.features
    assert loaded.labels == facts.classes


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_tables_are_described(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"data.{ending}"
    made = frame()
    if ending == "csv":
        made.to_csv(path, index=False)
    else:
        made.to_parquet(path)
    info = inspect(path, ending)
    assert info.rows == 200
    assert {column.name: column.kind for column in info.columns} == {
        "age": "numeric",
        "income": "numeric",
        "job": "categorical",
        "member": "categorical",
        "class": "categorical",
    }
    age, job = info.column("age"), info.column("job")
    assert age is not None
    assert job is not None
    assert (age.missing, age.whole, job.missing, job.distinct) == (23, True, 29, 3)


def test_arrays_are_described(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, X=np.zeros((30, 4, 4)), y=np.arange(30) % 3)
    info = inspect(path, "npz")
    assert (info.rows, info.shape) == (30, (4, 4))
    loaded = load_table(DataSource(task="classification", path=path, format="npz"))
    assert loaded.features.shape == (30, 16)


BROKEN: dict[str, tuple[str, bytes, str]] = {
    "empty": ("csv", b"", "cannot be read as csv"),
    "no rows": ("csv", b"a,b\n", "has no rows"),
    "one column": ("csv", b"a\n1\n2\n", "at least two columns"),
    "ragged": ("csv", b"a,b\n1,2\n1,2,3,4\n", "cannot be read as csv"),
    "twice": ("csv", b"a,b,a\n1,2,3\n", "several columns with the same name"),
    "not parquet": ("parquet", b"hello", "cannot be read as parquet"),
    "not npz": ("npz", b"hello", "cannot be read as npz"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_are_told(tmp_path: Path, case: str) -> None:
    ending, content, message = BROKEN[case]
    path = tmp_path / f"data.{ending}"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=message) as caught:
        inspect(path, ending)
    assert caught.value.issues[0].field == "file"


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.zeros(3)}, "needs the arrays x and y"),
        ({"x": np.zeros((3, 2)), "y": np.zeros(2)}, "do not fit"),
        ({"x": np.array([["a"], ["b"]]), "y": np.zeros(2)}, "not numbers"),
        ({"x": np.array([[object()]]), "y": np.zeros(1)}, "cannot be read as npz"),
    ],
)
def test_bad_arrays_are_told_and_pickles_never_loaded(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, **arrays)
    with pytest.raises(InvalidInput, match=message):
        inspect(path, "npz")


def test_tasks_are_inferred() -> None:
    def column(kind: Any, distinct: int, whole: bool) -> Column:
        return Column("t", kind, 0, distinct, whole)

    assert infer_task(column("categorical", 900, False), 1000) == "classification"
    assert infer_task(column("numeric", 2, True), 1000) == "classification"
    assert infer_task(column("numeric", 2, False), 1000) == "regression"
    assert infer_task(column("numeric", 300, True), 1000) == "regression"
    assert infer_task(column("numeric", 15, True), 150) == "regression"


def test_uploads_are_named_by_content_and_limited(tmp_path: Path) -> None:
    stored = save_upload(io.BytesIO(b"a,b\n1,2\n"), "../../etc/evil.CSV", tmp_path / "store", 100)
    assert stored.path == tmp_path / "store" / f"{stored.id}.csv"
    assert save_upload(io.BytesIO(b"a,b\n1,2\n"), "other.csv", tmp_path / "store", 100).id == stored.id
    with pytest.raises(TooLarge, match="larger than 5 bytes"):
        save_upload(io.BytesIO(b"a,b\n1,2\n"), "big.csv", tmp_path / "store", 5)
    assert [path.name for path in (tmp_path / "store").iterdir()] == [stored.path.name]
    with pytest.raises(InvalidInput, match="ending 'pkl'"):
        file_format("data.pkl", "file")


def test_paths_stay_under_the_operators_directories(tmp_path: Path) -> None:
    inside, outside = tmp_path / "data", tmp_path / "secret.csv"
    inside.mkdir()
    outside.write_text("a,b\n3,4\n")
    (inside / "link.csv").symlink_to(outside)
    good = inside / "good.csv"
    good.write_text("a,b\n1,2\n")
    pipe = inside / "pipe.csv"
    os.mkfifo(pipe)
    with held(str(good), [inside]) as path:
        good.rename(inside / "elsewhere.csv")
        good.symlink_to(outside)  # between the check and the reading
        assert path.read_text() == "a,b\n1,2\n"
        assert path.resolve() == inside.resolve() / "elsewhere.csv"
    for bad in (outside, inside / "link.csv", inside / "../secret.csv", inside / "missing.csv", pipe, good):
        with pytest.raises(InvalidInput, match=r"data\.path") as caught, held(str(bad), [inside]):
            pass
        assert caught.value.issues[0].value == str(bad)


def test_splits_are_fixed_stratified_and_disjoint(tmp_path: Path) -> None:
    made = table(tmp_path)
    first = split(made)
    (train, valid), test = first.folds[0], first.test
    assert sorted([*train, *valid, *test]) == list(range(200))
    assert (len(test), len(valid)) == (40, 40)
    share = made.target.mean()
    for part in (train, valid, test):
        assert made.target[part].mean() == pytest.approx(share, abs=0.03)
    again = split(made)
    np.testing.assert_array_equal(again.test, test)
    assert not np.array_equal(split(made, seed=1).test, test)


def test_folds_cover_the_development_part_once(tmp_path: Path) -> None:
    made = table(tmp_path)
    parts = split(made, method="kfold", folds=4)
    np.testing.assert_array_equal(parts.test, split(made).test)
    validated = np.concatenate([valid for _, valid in parts.folds])
    assert sorted([*validated, *parts.test]) == list(range(200))
    for train, valid in parts.folds:
        assert not set(train) & set(valid)


def test_copies_of_a_row_stay_on_one_side(tmp_path: Path) -> None:
    made = frame(60)
    doubled = pd.concat([made, made.iloc[:30], made.iloc[:10]], ignore_index=True)
    raw = table(tmp_path, doubled)
    parts = split(raw)
    assert parts.duplicates == 40
    side = np.zeros(raw.rows, dtype=int)
    side[parts.folds[0][1]], side[parts.test] = 1, 2
    for row in range(30):
        copies = [row, 60 + row, *([90 + row] if row < 10 else [])]
        assert len(set(side[copies])) == 1


def test_rare_classes_do_not_stop_a_split(tmp_path: Path) -> None:
    made = frame()
    made.loc[3, "class"] = "once"
    raw = table(tmp_path, made)
    assert raw.labels == ("no", "once", "yes")
    assert len(split(raw, method="kfold").folds) == 5


def test_rows_without_a_target_are_dropped(tmp_path: Path) -> None:
    made = frame()
    made.loc[:4, "class"] = None
    assert table(tmp_path, made).rows == 195


def test_one_class_is_an_error_of_the_data(tmp_path: Path) -> None:
    made = frame()
    made["class"] = "yes"
    with pytest.raises(TrialError, match="only one class"):
        table(tmp_path, made)


def test_preprocessing_is_scikit_learns_on_the_training_rows(tmp_path: Path) -> None:
    made = table(tmp_path)
    parts = split(made)
    fold = prepare(made, parts, 0)
    train, valid = parts.folds[0]
    age = made.features["age"].to_numpy(dtype=float)
    filled = np.where(np.isnan(age), np.nanmedian(age[train]), age)[:, None]
    scaler = StandardScaler().fit(filled[train])
    np.testing.assert_allclose(fold.x_train[:, 0], scaler.transform(filled[train])[:, 0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(fold.x_valid[:, 0], scaler.transform(filled[valid])[:, 0], rtol=1e-5, atol=1e-6)
    # two numbers, job with a level for missing, member
    assert fold.x_train.shape[1] == 2 + 4 + 2
    np.testing.assert_allclose(fold.x_train[:, 2:6].sum(1), 1.0)
    assert fold.x_train.dtype == np.float32
    assert fold.y_train.dtype == np.int64


def test_nothing_of_test_or_validation_rows_reaches_training(tmp_path: Path) -> None:
    made = table(tmp_path)
    parts = split(made)
    before = prepare(made, parts, 0)
    _, valid = parts.folds[0]
    spoiled = made.features.copy()
    others = np.concatenate([valid, parts.test])
    spoiled.loc[others, "income"] = 1e6
    spoiled.loc[others, "job"] = "unheard of"
    changed = RawTable(spoiled, made.target, made.task, made.labels, made.categorical)
    after = prepare(changed, parts, 0)
    np.testing.assert_array_equal(after.x_train, before.x_train)
    assert np.isfinite(after.x_valid).all()
    x, y = locked_part(changed, parts, after)
    assert len(x) == len(y) == len(parts.test)
    assert np.isfinite(x).all()


def test_regression_targets_are_standardized_by_training_rows() -> None:
    raw = load_table(DataSource(task="regression", name="diabetes"))
    parts = split(raw)
    fold = prepare(raw, parts, 0)
    train = parts.folds[0][0]
    assert fold.target.mean == pytest.approx(raw.target[train].mean())
    assert fold.target.scale == pytest.approx(raw.target[train].std())
    assert fold.y_train.mean() == pytest.approx(0, abs=1e-6)
    quintiles = np.quantile(raw.target, [0.2, 0.8])
    for part in (train, *parts.folds[0][1:], parts.test):
        assert np.mean(raw.target[part] < quintiles[0]) == pytest.approx(0.2, abs=0.03)


def test_columns_can_be_dropped_and_declared_categories(tmp_path: Path) -> None:
    raw = table(tmp_path, drop=("income",), categorical=("age",))
    assert list(raw.features.columns) == ["age", "job", "member"]
    assert raw.categorical == ("age", "job", "member")
    fold = prepare(raw, split(raw), 0)
    assert set(np.unique(fold.x_train)) == {0.0, 1.0}


def test_constant_and_empty_columns_do_no_harm(tmp_path: Path) -> None:
    made = frame()
    made["constant"] = 1.0
    made["empty"] = np.nan
    raw = table(tmp_path, made)
    fold = prepare(raw, split(raw), 0)
    assert np.isfinite(fold.x_train).all()
