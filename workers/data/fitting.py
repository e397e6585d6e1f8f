"""Fitting preprocessing with scikit-learn, on the given training rows and nothing else.

The fitted state becomes a document of plain values, which `workers.plain.preprocessing` applies; a test compares the two.
It passes through JSON unchanged, so that a saved model includes it without pickles.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MinMaxScaler,
    OneHotEncoder,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)

from service.datasets import Mapped
from service.spec import DataSpec
from service.spec.parts import Scaling
from workers.plain.columns import numbers, text_of
from workers.plain.preprocessing import VERSION, channels_last
from workers.plain.readings import Reading

Fitted = Mapping[str, Any]
"""A document of fitted preprocessing."""

Layout = Literal["flat", "sequence", "image"]

MISSING = "missing"
_QUANTILES = 1000
_ROWS_PER_QUANTILE = 30
_BLOCK_ROWS, _BLOCK_NUMBERS = 4096, 1 << 22


@dataclass(frozen=True)
class PrepareOptions:
    """How a table's columns become numbers. A category has at most ``max_levels`` codes; its rare levels share one."""

    scaling: Scaling = "standard"
    impute: Literal["median", "mean", "most_frequent"] = "median"
    flag_missing: bool = False
    impute_categories: Literal["missing", "most_frequent"] = "missing"
    max_levels: int = 50
    missing: tuple[str, ...] = ()
    """Words that stand for missing values, which the rows that it is fitted on no longer have."""

    @classmethod
    def of(cls, data: DataSpec) -> PrepareOptions:
        """The options in a study's spec."""
        scaling = data.scaling or "standard"
        return cls(scaling, data.impute, data.flag_missing, data.impute_categories, data.max_levels, data.missing)


def alike(folds: Sequence[Fitted]) -> list[Fitted]:
    """The folds' preprocessing of a table, padded to equally many outputs, so that their networks have one shape.

    Each still depends on its own rows only: a level that only another fold has seen gets a column of zeros.
    """
    sizes = [max(own) for own in zip(*(each["words"]["sizes"] for each in folds), strict=True)]
    flagged = sorted({index for each in folds for index in each["numbers"]["flagged"]})
    return [
        {**each, "numbers": {**each["numbers"], "flagged": flagged}, "words": {**each["words"], "sizes": sizes}}
        for each in folds
    ]


def fit_table(
    train: pd.DataFrame,
    categorical: tuple[str, ...],
    options: PrepareOptions,
    readings: Mapping[str, Reading] = MappingProxyType({}),
) -> Fitted:
    """Fit on the training rows of a table; ``readings`` tell how its columns came about."""
    numeric = tuple(str(name) for name in train.columns if name not in categorical)
    fitted = {"numbers": _fit_numbers(train, numeric, options), "words": _fit_words(train, categorical, options)}
    return {"kind": "table", "version": VERSION, "missing": list(options.missing), "readings": dict(readings), **fitted}


def _fit_numbers(train: pd.DataFrame, numeric: tuple[str, ...], options: PrepareOptions) -> dict[str, Any]:
    nothing: dict[str, Any] = {"kind": "none", "shift": [], "scale": [], "quantiles": None}
    if not numeric:
        return {"columns": [], "fill": [], "scaler": nothing, "flagged": []}
    x = numbers(train, numeric)
    impute = SimpleImputer(strategy=options.impute, keep_empty_features=True)
    steps = dict(make_pipeline(impute, *SCALERS[options.scaling](len(x))).fit(x).steps)
    scaler = {**nothing, "kind": options.scaling, "shift": [0.0] * len(numeric), "scale": [1.0] * len(numeric)}
    if "minmaxscaler" in steps:
        own = steps["minmaxscaler"]
        scaler |= {"shift": own.data_min_.tolist(), "scale": (1.0 / own.scale_).tolist()}
    elif "robustscaler" in steps:
        own = steps["robustscaler"]
        scaler |= {"shift": own.center_.tolist(), "scale": _spread(x, own).tolist()}
    elif "standardscaler" in steps:
        own = steps["standardscaler"]
        scaler |= {"shift": own.mean_.tolist(), "scale": own.scale_.tolist()}
    if "quantiletransformer" in steps:
        scaler["quantiles"] = steps["quantiletransformer"].quantiles_.tolist()
    flagged = MissingIndicator(features="missing-only").fit(x).features_.tolist() if options.flag_missing else []
    fill = steps["simpleimputer"].statistics_.tolist()
    return {"columns": list(numeric), "fill": fill, "scaler": scaler, "flagged": flagged}


def _quantile_scalers(rows: int) -> list[Any]:
    # Standardized again: otherwise a column of few distinct values lies at the ends of the normal quantiles, ±5.2.
    count = min(rows, max(10, min(_QUANTILES, rows // _ROWS_PER_QUANTILE)))
    ranks = QuantileTransformer(n_quantiles=count, output_distribution="normal", subsample=10**9, random_state=0)
    return [ranks, StandardScaler()]


SCALERS: Mapping[Scaling, Callable[[int], list[Any]]] = {
    "none": lambda rows: [],
    "standard": lambda rows: [StandardScaler()],
    "robust": lambda rows: [RobustScaler()],
    "minmax": lambda rows: [MinMaxScaler()],
    "log": lambda rows: [FunctionTransformer(_signed_log), StandardScaler()],
    "quantile": _quantile_scalers,
}
"""Scikit-learn's steps of each scaling, by the number of training rows."""


def _spread(x: NDArray[np.float64], fitted: RobustScaler) -> NDArray[np.float64]:
    """The interquartile range of each column; where that is 0, half of the range (a rare value counts); else 1."""
    known = np.where(np.isnan(x), fitted.center_, x)
    quarters = np.subtract(*np.quantile(known, [0.75, 0.25], axis=0))
    half = (known.max(axis=0) - known.min(axis=0)) / 2.0
    return np.where(quarters > 0, quarters, np.where(half > 0, half, 1.0))


def _signed_log(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.sign(x) * np.log1p(np.abs(x)), dtype=np.float64)


def _fit_words(train: pd.DataFrame, categorical: tuple[str, ...], options: PrepareOptions) -> dict[str, Any]:
    """The document of categorical columns: fill values, codes of the levels, code of rare levels, number of codes."""
    words: dict[str, Any] = {"columns": list(categorical), "fill": [], "levels": [], "shared": [], "sizes": []}
    if not categorical:
        return words
    # The encoder gets the rank of each text among all texts: on the texts themselves it takes ten times as long.
    columns = [_filled(train[name], options) for name in categorical]
    codes = np.stack([column.codes for column in columns], axis=1)
    fitted = OneHotEncoder(max_categories=options.max_levels).fit(codes)
    for column, known, rare in zip(columns, fitted.categories_, fitted.infrequent_categories_, strict=True):
        few = set() if rare is None else set(rare.tolist())
        frequent = [code for code in known.tolist() if code not in few]
        number = {code: index for index, code in enumerate(frequent)}
        words["fill"].append(column.fill)
        words["levels"].append({column.texts[code]: number.get(code, len(frequent)) for code in [*frequent, *sorted(few)]})
        words["shared"].append(len(frequent) if few else -1)
        words["sizes"].append(len(frequent) + bool(few))
    return words


@dataclass(frozen=True)
class _Filled:
    """A training column without gaps: `codes` (rows,) index the sorted `texts`; `fill` replaces missing values."""

    codes: NDArray[np.int64]
    texts: list[str]
    fill: str


def _filled(series: pd.Series[Any], options: PrepareOptions) -> _Filled:
    where, distinct = pd.factorize(series)  # −1 where missing; distinct values may have equal texts (1 and 1.0)
    values = [text_of(value) for value in distinct]
    texts = sorted({*values, MISSING})
    place = {text: index for index, text in enumerate(texts)}
    codes = np.array([place[text] for text in (*values, MISSING)], dtype=np.int64)[where]  # −1, missing, is the last one
    fill = MISSING
    if options.impute_categories == "most_frequent" and values:
        counts = np.bincount(codes[where >= 0], minlength=len(texts))
        fill = texts[int(counts.argmax())]
        codes[where < 0] = place[fill]
    return _Filled(codes, texts, fill)


def fit_array(
    x: NDArray[Any] | Mapped,
    rows: NDArray[np.int64],
    lengths: NDArray[np.int64] | None,
    layout: Layout,
    channels: str = "auto",
) -> Fitted:
    """Fit on the given rows of images (n, h, w), (n, h, w, c) or (n, c, h, w), or of series (n, t, c)."""
    scaler = StandardScaler()
    size = max(1, min(_BLOCK_ROWS, _BLOCK_NUMBERS // math.prod(x.shape[1:])))
    for start in range(0, len(rows), size):
        chosen = rows[start : start + size]
        block = channels_last(x[chosen], channels) if layout == "image" else x[chosen]
        count = block.shape[-1]
        if lengths is not None:
            block = block[np.arange(x.shape[1]) < lengths[chosen][:, None]]
        values = block.reshape(-1, count).astype(np.float64)
        with np.errstate(invalid="ignore"):  # the mean of a channel without values
            scaler.partial_fit(np.where(np.isfinite(values), values, np.nan))
    known = np.isfinite(scaler.mean_)  # such a channel keeps mean 0 and deviation 1
    mean, scale = np.where(known, scaler.mean_, 0.0), np.where(known, scaler.scale_, 1.0)
    fitted = {"layout": layout, "channels": channels, "mean": mean.tolist(), "scale": scale.tolist()}
    return {"kind": "array", "version": VERSION, **fitted}
