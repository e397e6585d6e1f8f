"""Preprocessing held against scikit-learn's own transform, through JSON, and on awkward columns."""

from __future__ import annotations

import cProfile
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from pstats import Stats
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MinMaxScaler,
    OneHotEncoder,
    QuantileTransformer,
    StandardScaler,
)

from service.errors import TrialError
from service.spec.parts import Scaling
from tests.unit.data.fitted import names_of
from workers.data import (
    DataSource,
    Division,
    PrepareOptions,
    RawTable,
    TargetScale,
    load_table,
    prepare,
    prepare_all,
    split_rows,
)
from workers.data.fitting import fit_table
from workers.plain import preprocessing
from workers.plain.preprocessing import CannotPredict, features, width_of
from workers.plain.scaling import normal_quantile

NUMERIC = ("age", "income", "ties", "constant")
WORDS = ("job", "city", "flag")


def frame(rows: int = 400, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    made = pd.DataFrame(
        {
            "age": rng.integers(18, 90, rows).astype(float),
            "job": rng.choice(["a", "b", "c", "Ä"], rows),
            "income": rng.lognormal(3, 2, rows) * rng.choice([-1, 1], rows),
            "ties": rng.choice([0.0, 0.0, 0.0, 1.0, 5.0], rows),
            "city": [f"c{int(value)}" for value in rng.exponential(8, rows)],
            "constant": 4.0,
            "flag": rng.random(rows) < 0.5,
        }
    )
    made.loc[rng.random(rows) < 0.2, "age"] = np.nan
    made.loc[rng.random(rows) < 0.2, "job"] = None
    return made


class Robust(BaseEstimator, TransformerMixin):  # type: ignore[misc]
    """Median and quartiles, and the smooth clip, as Holzmüller et al. 2024 describe them."""

    def fit(self, x: Any, y: Any = None) -> Robust:
        x = np.asarray(x)
        low, self.median_, high = np.quantile(x, [0.25, 0.5, 0.75], axis=0)
        wide = np.where(x.max(0) > x.min(0), x.max(0) - x.min(0), 2.0)
        self.factor_ = np.where(high > low, 1.0 / np.where(high > low, high - low, 1.0), 2.0 / wide)
        return self

    def transform(self, x: Any) -> Any:
        z = (np.asarray(x) - self.median_) * self.factor_
        return z / np.sqrt(1.0 + (z / 3.0) ** 2)


def scaling(kind: str, rows: int) -> list[Any]:
    quantiles = QuantileTransformer(
        n_quantiles=max(10, rows // 30), output_distribution="normal", subsample=10**9, random_state=0
    )
    log = FunctionTransformer(lambda x: np.sign(x) * np.log1p(np.abs(x)))
    steps: dict[str, list[Any]] = {
        "standard": [StandardScaler()],
        "robust": [Robust()],
        "minmax": [MinMaxScaler()],
        "log": [log, StandardScaler()],
        "quantile": [quantiles, StandardScaler()],
        "none": [],
    }
    return steps[kind]


def reference(options: PrepareOptions, rows: int) -> ColumnTransformer:
    """What the options say, put together from scikit-learn's own parts."""
    numbers = make_pipeline(SimpleImputer(strategy=options.impute), *scaling(options.scaling, rows))
    flags = [("f", MissingIndicator(features="missing-only", error_on_new=False), list(NUMERIC))]
    strategy = "constant" if options.impute_categories == "missing" else "most_frequent"
    fill = SimpleImputer(strategy=strategy, fill_value="missing")
    encode = OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=options.max_levels, sparse_output=False)
    return ColumnTransformer(
        [
            ("n", numbers, list(NUMERIC)),
            *(flags if options.flag_missing else []),
            ("w", make_pipeline(fill, encode), list(WORDS)),
        ]
    )


def as_text(made: pd.DataFrame) -> pd.DataFrame:
    texts = {name: made[name].map(str).where(made[name].notna(), np.nan).astype(object) for name in WORDS}
    return made.assign(**texts)


OPTIONS = [
    *(PrepareOptions(scaling=kind) for kind in get_args(Scaling)),
    *(PrepareOptions(impute=kind, flag_missing=True) for kind in ("mean", "median", "most_frequent")),
    PrepareOptions(max_levels=6),
    PrepareOptions(impute_categories="most_frequent"),
    PrepareOptions(max_levels=1000, flag_missing=True),
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_it_is_scikit_learns_transform_also_after_json(options: PrepareOptions) -> None:
    train, other = frame(600, seed=1), frame(300, seed=2)
    other.loc[:3, "job"] = "never seen"
    other.loc[4:5, "city"] = None
    other.loc[6, "income"] = 1e9
    expected = reference(options, 600).fit(as_text(train))
    fitted = fit_table(train, WORDS, options)
    again = json.loads(json.dumps(fitted))
    for rows in (train, other):
        wanted = expected.transform(as_text(rows))
        np.testing.assert_allclose(features(rows, fitted), wanted, rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(features(rows, again), features(rows, fitted))
    assert len(names_of(fitted)) == len(set(names_of(fitted))) == width_of(fitted) == wanted.shape[1]
    assert features(other, fitted).flags.c_contiguous


def test_one_hot_columns_are_named_by_what_they_mean() -> None:
    made = pd.DataFrame({"n": [1.0, np.nan, 3.0], "w": ["a", "b", None]})
    fitted = fit_table(made, ("w",), PrepareOptions(flag_missing=True, max_levels=50))
    assert names_of(fitted) == ("n", "n is missing", "w = a", "w = b", "w = missing")
    assert features(made, fitted)[:, 1:].tolist() == [[0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]]


@pytest.mark.parametrize(("most", "expected"), [(50, ["a", "c", "", ""]), (2, ["a", "rare", "rare", "rare"])])
def test_levels_that_training_never_saw_are_zeros_or_the_rare_ones(most: int, expected: list[str]) -> None:
    train = pd.DataFrame({"x": np.arange(6.0), "w": ["a", "a", "a", "b", "b", "c"]})
    fitted = fit_table(train, ("w",), PrepareOptions(max_levels=most))
    codes = features(pd.DataFrame({"x": [0.0] * 4, "w": ["a", "c", "z", None]}), fitted)[:, 1:]
    columns = ["a", "b", "c"] if most == 50 else ["a", "rare"]
    assert codes.tolist() == [[float(name == column) for column in columns] for name in expected]


def test_whole_numbers_are_one_category_however_they_were_read() -> None:
    fitted = fit_table(pd.DataFrame({"x": [1.0, 2.0, 3.0], "k": [1.0, 2.0, np.nan]}), ("k",), PrepareOptions())
    np.testing.assert_array_equal(
        features(pd.DataFrame({"x": [1.0, 1.0], "k": [1, 2]}), fitted),
        features(pd.DataFrame({"x": [1.0, 1.0], "k": ["1", "2"]}), fitted),
    )


def test_awkward_columns_stay_finite() -> None:
    made = pd.DataFrame(
        {
            "huge": [1e300, 1.0, 2.0, 3.0],
            "infinite": [np.inf, -np.inf, 1.0, 2.0],
            "empty": [np.nan] * 4,
            "void": [None] * 4,
            "constant": [7.0] * 4,
            "word": ["a"] * 4,
        }
    )
    for scaler in ("standard", "minmax", "log", "quantile", "none"):
        fitted = fit_table(made, ("void", "word"), PrepareOptions(scaling=scaler, impute_categories="most_frequent"))
        far = made.assign(constant=3e38, huge=-3e38)
        assert np.isfinite(features(made, fitted)).all()
        assert np.isfinite(features(far, fitted)).all()


def test_frames_without_numbers_or_without_words() -> None:
    made = frame(50)
    assert features(made, fit_table(made[list(WORDS)], WORDS, PrepareOptions())).shape[0] == 50
    assert features(made, fit_table(made[list(NUMERIC)], (), PrepareOptions(flag_missing=True))).shape == (50, 5)


def test_new_data_may_lack_no_column_and_hold_others() -> None:
    made = frame(50)
    fitted = fit_table(made, WORDS, PrepareOptions())
    assert (
        features(made.assign(more=1)[["more", *reversed(made.columns)]], fitted).tolist() == features(made, fitted).tolist()
    )
    with pytest.raises(CannotPredict, match="no column 'age', 'city'"):
        features(made.drop(columns=["age", "city"]), fitted)
    for wrong in ({"version": 99}, {"kind": "graph"}):
        with pytest.raises(CannotPredict, match="known is version 1"):
            features(made, {**fitted, **wrong})


def test_normal_quantiles_are_scipys() -> None:
    p = np.concatenate([np.linspace(1e-7, 1 - 1e-7, 20_001), np.geomspace(1e-7, 0.5, 1000)])
    np.testing.assert_allclose(normal_quantile(torch.from_numpy(p)), norm.ppf(p), rtol=1e-9, atol=1e-12)


def test_saved_preprocessing_needs_neither_scikit_learn_nor_scipy(tmp_path: Path) -> None:
    made = frame(200)
    fitted = fit_table(made, WORDS, PrepareOptions(scaling="quantile"))
    made.to_parquet(tmp_path / "new.parquet")
    (tmp_path / "fitted.json").write_text(json.dumps(fitted))
    shutil.copytree(Path(str(preprocessing.__file__)).parent, tmp_path / "plain")
    code = (
        "import json, sys, numpy as np, pandas as pd\n"
        "from plain.preprocessing import features\n"
        "np.save('out.npy', features(pd.read_parquet('new.parquet'), json.load(open('fitted.json'))))\n"
        "assert not {'sklearn', 'scipy', 'service', 'workers'} & set(sys.modules), sys.modules\n"
    )
    environment = {"PYTHONPATH": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=environment)
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), features(made, fitted))


@pytest.mark.parametrize("options", [PrepareOptions(flag_missing=True), PrepareOptions(scaling="quantile", max_levels=5)])
def test_other_rows_never_move_the_training_rows(options: PrepareOptions) -> None:
    made, rows = frame(300), 300
    target = np.random.default_rng(0).normal(size=rows)
    table = RawTable(made, target, "regression", (), WORDS, row_hashes=np.arange(rows, dtype=np.uint64))
    split = split_rows(table, Division(0))
    before = prepare(table, split, 0, options)
    others = np.concatenate([split.folds[0][1], split.test])
    spoiled, spoiled_target = made.copy(), target.copy()
    spoiled.loc[others, "income"] = -1e12
    spoiled.loc[others, ["age", "job"]] = None
    spoiled.loc[others, "city"] = "elsewhere"
    spoiled_target[others] = 1e6
    after = prepare(replace(table, features=spoiled, target=spoiled_target), split, 0, options)
    np.testing.assert_array_equal(after.x_train, before.x_train)
    np.testing.assert_array_equal(after.y_train, before.y_train)
    assert (after.target, after.preprocessor) == (before.target, before.preprocessor)


def test_targets_go_back_to_their_own_unit() -> None:
    values = np.random.default_rng(0).normal(50, 9, 100)
    scale = TargetScale(float(values.mean()), float(values.std()))
    np.testing.assert_allclose(scale.restore((values - scale.mean) / scale.scale), values)


def test_columns_can_be_declared_groups_and_times(tmp_path: Path) -> None:
    made = pd.DataFrame(
        {
            "x": ["1.5", "x", "2", "3"] * 10,
            "who": ["a", "b", None, "c"] * 10,
            "when": pd.date_range("2020-01-01", periods=40).strftime("%Y-%m-%d"),
            "y": np.linspace(0, 1, 40),
        }
    )
    made.loc[3, "when"] = None
    made.loc[5, "y"] = np.inf
    path = tmp_path / "data.csv"
    made.to_csv(path, index=False)
    source = DataSource("regression", path=path, target="y", groups="who", time="when")
    table = load_table(source)
    assert list(table.features.columns) == ["x"]
    assert table.categorical == ("x",)
    assert table.rows == 39
    assert table.groups is not None
    assert table.times is not None
    assert table.groups[:5].tolist() == [0, 1, -1, 2, 0]
    assert table.times[3] == -np.inf
    assert (np.diff(np.delete(table.times, 3)) > 0).all()
    fitted = fit_table(table.features, table.categorical, PrepareOptions())
    assert np.isfinite(features(table.features, fitted)).all()
    made.assign(when="soon").to_csv(path, index=False)
    with pytest.raises(TrialError, match="ISO 8601"):
        load_table(source)
    made.assign(y="much").to_csv(path, index=False)
    with pytest.raises(TrialError, match="must be numbers"):
        load_table(source)


def test_a_large_table_is_prepared_without_a_call_per_cell() -> None:
    rng = np.random.default_rng(0)
    rows = 50_000
    made = pd.DataFrame(rng.normal(size=(rows, 80)).astype(np.float32)).rename(columns=str)
    for index in range(20):
        made[f"w{index}"] = rng.choice([f"level {level}" for level in range(30)], rows)
    words = tuple(f"w{index}" for index in range(20))
    table = RawTable(made, rng.normal(size=rows), "regression", (), words, row_hashes=np.arange(rows, dtype=np.uint64))
    profile = cProfile.Profile()
    fold = profile.runcall(prepare, table, split_rows(table, Division(0)), 0)
    assert fold.x_train.shape == (30_000, 80 + 600)
    calls = Stats(profile).total_calls  # type: ignore[attr-defined]
    assert calls < 5 * rows  # of 100 cells each


def test_folds_that_saw_other_levels_have_equally_many_features() -> None:
    rng = np.random.default_rng(0)
    made = pd.DataFrame({"n": rng.normal(size=60), "city": [f"c{int(value)}" for value in rng.exponential(8, 60)]})
    made.loc[7, "n"] = np.nan
    table = RawTable(
        made, rng.integers(0, 2, 60), "classification", ("a", "b"), ("city",), row_hashes=np.arange(60, dtype=np.uint64)
    )
    split = split_rows(table, Division(0, folds=5))
    options = PrepareOptions(flag_missing=True)
    folds = prepare_all(table, split, options)
    own = [prepare(table, split, index, options) for index in range(5)]
    assert len({fold.x_train.shape[1] for fold in own}) > 1
    (width,) = {fold.x_train.shape[1] for fold in folds}
    for fold, alone in zip(folds, own, strict=True):
        names = names_of(fold.preprocessor)
        assert len(set(names)) == len(names) == width
        places = [names.index(name) for name in names_of(alone.preprocessor)]
        np.testing.assert_array_equal(fold.x_valid[:, places], alone.x_valid)
        spare = [place for place, name in enumerate(names) if "unused" in name]
        assert not fold.x_train[:, spare].any()
        assert not fold.x_valid[:, spare].any()
        again, rows = json.loads(json.dumps(fold.preprocessor)), made.iloc[split.folds[0][0]]
        np.testing.assert_array_equal(features(rows, again), features(rows, fold.preprocessor))
