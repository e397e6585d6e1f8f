"""From a raw table and a split to the arrays that a lane trains on; everything is fitted on a fold's training rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from service.errors import TrialError
from workers.data.fitting import Fitted, PrepareOptions, alike, fit_array, fit_table
from workers.data.records import fit_records
from workers.data.split import Split
from workers.data.table import RawTable
from workers.plain import preprocessing

_DEFAULTS = PrepareOptions()


@dataclass(frozen=True)
class TargetScale:
    """The training target's mean and standard deviation: z = (y − mean) / scale. (0, 1) for classes and labels.

    Of several targets both are (t,).
    """

    mean: float | tuple[float, ...] = 0.0
    scale: float | tuple[float, ...] = 1.0

    @property
    def unit(self) -> float:
        """By what errors of standardized numbers are multiplied in scores: those of several targets are not."""
        return 1.0 if isinstance(self.scale, tuple) else self.scale

    def restore(self, z: NDArray[Any]) -> NDArray[np.float64]:
        """Standardized numbers in the target's unit."""
        return np.asarray(z.astype(np.float64) * np.asarray(self.scale) + np.asarray(self.mean))

    def standardize(self, y: NDArray[Any]) -> NDArray[np.float32]:
        """Numbers (rows,), or (rows, t), in the target's unit as standardized ones."""
        z: NDArray[np.float32] = ((y - np.asarray(self.mean)) / np.asarray(self.scale)).astype(np.float32)
        return z

    def of(self, target: int) -> TargetScale:
        """That of one of several targets."""
        assert isinstance(self.mean, tuple), "there are several"
        assert isinstance(self.scale, tuple), "there are several"
        return TargetScale(self.mean[target], self.scale[target])


@dataclass(frozen=True)
class Lazy:
    """Features of the ``rows`` (r,) of a table that is not in memory; `workers.stack.examples` makes them when needed."""

    table: RawTable
    rows: NDArray[np.int64]
    fitted: Fitted


Features: TypeAlias = Any
"""`NDArray[np.float32]` (rows, ...), or `Lazy` of a table that is read by rows."""


@dataclass(frozen=True)
class Fold:
    """Data that a lane trains and validates on: x float32 (rows, d), y float32 (standardized) or int64 (rows,), contiguous;
    of several targets (rows, t).

    Images are (rows, c, h, w), series (rows, t, c) with padding NaN. ``preprocessor`` is the document of fitted
    preprocessing, for `workers.data.locked` and for new data.
    """

    x_train: Features
    y_train: NDArray[Any]
    x_valid: Features
    y_valid: NDArray[Any]
    target: TargetScale
    preprocessor: Fitted
    weights: NDArray[np.float32] | None = None
    """(rows,) of the training rows, with the mean 1."""


def prepare(table: RawTable, split: Split, fold: int, options: PrepareOptions = _DEFAULTS) -> Fold:
    """Fit the preprocessing on one fold's training rows and apply it to both of its parts."""
    return _fold(table, split.folds[fold], _fitted(table, split.folds[fold][0], options))


def prepare_all(table: RawTable, split: Split, options: PrepareOptions = _DEFAULTS) -> list[Fold]:
    """All folds, each fitted on its own training rows, with equally many features in all of them."""
    fitted = [_fitted(table, train, options) for train, _ in split.folds]
    each = fitted if table.arrays is not None else alike(fitted)
    return [_fold(table, rows, own) for rows, own in zip(split.folds, each, strict=True)]


def _fitted(table: RawTable, train: NDArray[np.int64], options: PrepareOptions) -> Fitted:
    if table.arrays is not None:
        fitted = fit_array(table.arrays, train, table.lengths, table.layout, table.channels)
    elif table.records is not None:
        fitted = fit_records(table.records, train, options, table.readings)
    else:
        fitted = fit_table(table.features.iloc[train], table.categorical, options, table.readings)
    return fitted if table.image is None else {**fitted, "image": dict(table.image)}


def prepare_alike(table: RawTable, split: Split, fitted: Fitted, target: TargetScale | None) -> list[Fold]:
    """All folds, with preprocessing that was fitted earlier on other rows; so is ``target``, unless it is None."""
    return [_fold(table, rows, fitted, target) for rows in split.folds]


def _fold(
    table: RawTable,
    rows: tuple[NDArray[np.int64], NDArray[np.int64]],
    fitted: Fitted,
    target: TargetScale | None = None,
) -> Fold:
    train, valid = rows
    scale = target or _target_scale(table, train)
    return Fold(
        x_train=features(table, train, fitted),
        y_train=targets(table, train, scale),
        x_valid=features(table, valid, fitted),
        y_valid=targets(table, valid, scale),
        target=scale,
        preprocessor=fitted,
        weights=_weights(table, train),
    )


def _weights(table: RawTable, train: NDArray[np.int64]) -> NDArray[np.float32] | None:
    if table.weights is None:
        return None
    own = table.weights[train]
    if not own.any():
        raise TrialError("all training rows have the weight 0")
    weights: NDArray[np.float32] = (own / own.mean()).astype(np.float32)
    return weights


def features(table: RawTable, rows: NDArray[np.int64], fitted: Fitted) -> Features:
    """Preprocessed features (rows, …) of the given rows."""
    if table.by_rows:
        return Lazy(table, rows, fitted)
    if table.arrays is None:
        return preprocessing.features(table.features.iloc[rows], fitted)
    lengths = {} if table.lengths is None else {"lengths": table.lengths[rows]}
    return preprocessing.features({"x": table.arrays[rows], **lengths}, fitted)


def targets(table: RawTable, rows: NDArray[np.int64], scale: TargetScale) -> NDArray[Any]:
    """Class indices, labels, or standardized numbers, (rows,) or (rows, t) of the given rows."""
    chosen = table.target[rows]
    return scale.standardize(chosen) if table.task == "regression" else chosen


def _target_scale(table: RawTable, train: NDArray[np.int64]) -> TargetScale:
    if table.task != "regression":
        return TargetScale()
    chosen = table.target[train]
    if chosen.ndim == 2:
        deviations = chosen.std(0)
        return TargetScale(tuple(chosen.mean(0).tolist()), tuple(np.where(deviations > 0, deviations, 1.0).tolist()))
    deviation = float(chosen.std())
    return TargetScale(float(chosen.mean()), deviation if deviation > 0 else 1.0)
