"""Preprocessing: imputation, scaling, encoding, fitted on a fold's training rows and on nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from workers.data.split import Split
from workers.data.table import RawTable

MAX_LEVELS = 50
"""Levels of a category that get a column of their own; rarer ones share one."""


@dataclass(frozen=True)
class TargetScale:
    """The training target's mean and standard deviation: z = (y − mean) / scale. (0, 1) for classes."""

    mean: float = 0.0
    scale: float = 1.0


@dataclass(frozen=True)
class Fold:
    """What a lane trains and validates on: x float32 (rows, d), y float32 (standardized) or int64 (rows,).

    ``transformer`` is the fitted preprocessing, for `workers.data.locked` and for new data.
    """

    x_train: NDArray[np.float32]
    y_train: NDArray[Any]
    x_valid: NDArray[np.float32]
    y_valid: NDArray[Any]
    target: TargetScale
    transformer: ColumnTransformer


def prepare(table: RawTable, split: Split, fold: int) -> Fold:
    """Fit the preprocessing on one fold's training rows and apply it to both of its parts."""
    train, valid = split.folds[fold]
    transformer = _transformer(table)
    x_train = transformer.fit_transform(_frame(table, train))
    scale = _target_scale(table, train)
    return Fold(
        x_train=np.ascontiguousarray(x_train, dtype=np.float32),
        y_train=targets(table, train, scale),
        x_valid=features(table, valid, transformer),
        y_valid=targets(table, valid, scale),
        target=scale,
        transformer=transformer,
    )


def features(table: RawTable, rows: NDArray[np.int64], transformer: ColumnTransformer) -> NDArray[np.float32]:
    """Preprocessed features (rows, d) of the named rows."""
    return np.ascontiguousarray(transformer.transform(_frame(table, rows)), dtype=np.float32)


def targets(table: RawTable, rows: NDArray[np.int64], scale: TargetScale) -> NDArray[Any]:
    """Class indices, or standardized numbers, of the named rows."""
    chosen = table.target[rows]
    if table.task == "classification":
        return chosen
    return ((chosen - scale.mean) / scale.scale).astype(np.float32)


def _target_scale(table: RawTable, train: NDArray[np.int64]) -> TargetScale:
    if table.task == "classification":
        return TargetScale()
    deviation = float(table.target[train].std())
    return TargetScale(float(table.target[train].mean()), deviation if deviation > 0 else 1.0)


def _transformer(table: RawTable) -> ColumnTransformer:
    numeric = [name for name in table.features.columns if name not in table.categorical]
    numbers = make_pipeline(SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler())
    words = make_pipeline(
        SimpleImputer(strategy="constant", fill_value="missing"),
        OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=MAX_LEVELS, sparse_output=False),
    )
    return ColumnTransformer([("numeric", numbers, numeric), ("categorical", words, list(table.categorical))])


def _frame(table: RawTable, rows: NDArray[np.int64]) -> pd.DataFrame:
    """The named rows, categories as plain strings and infinite numbers as missing ones."""
    frame = table.features.iloc[rows].copy()
    for name in frame.columns:
        if name in table.categorical:
            column = frame[name].astype(object)
            frame[name] = column.where(column.isna(), column.map(str)).where(column.notna(), "missing")
    numeric = [name for name in frame.columns if name not in table.categorical]
    frame[numeric] = frame[numeric].astype(np.float64).replace([np.inf, -np.inf], np.nan)
    return frame
