"""Fitting of preprocessing by scikit-learn, on the training rows that it is given and on nothing else.

What scikit-learn has learnt is turned into the plain values of `preprocessor`; a test holds both against each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
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
    OrdinalEncoder,
    QuantileTransformer,
    StandardScaler,
)

from service.spec import DataSpec
from workers.data.preprocessor import (
    ArrayScaler,
    Layout,
    Numbers,
    Preprocessor,
    Words,
    as_numbers,
    channels_last,
    factorized,
)
from workers.data.scaling import Scaler, Scaling

MISSING = "missing"
_QUANTILES = 1000
_ROWS_PER_QUANTILE = 30
_BLOCK_ROWS = 4096


@dataclass(frozen=True)
class PrepareOptions:
    """How a table's columns become numbers. ``max_levels`` of a category get a column of their own, the rest share one."""

    scaling: Scaling = "standard"
    impute: Literal["median", "mean", "most_frequent"] = "median"
    flag_missing: bool = False
    categories: Literal["onehot", "ordinal"] = "onehot"
    impute_categories: Literal["missing", "most_frequent"] = "missing"
    max_levels: int = 50

    @classmethod
    def of(cls, data: DataSpec) -> PrepareOptions:
        """What a study asks for."""
        return cls(data.scaling, data.impute, data.flag_missing, "onehot", data.impute_categories, data.max_levels)


def alike(folds: Sequence[Preprocessor]) -> list[Preprocessor]:
    """The folds' preprocessing with equally many outputs, so that their networks have one shape.

    Each goes on knowing its own rows only: a level that another fold has seen gets a column of zeros here.
    """
    most = tuple(map(max, zip(*(each.words.sizes for each in folds), strict=True)))
    flagged = tuple(sorted({index for each in folds for index in each.numbers.flagged}))
    return [Preprocessor(replace(each.numbers, flagged=flagged), replace(each.words, least=most)) for each in folds]


def fit_table(train: pd.DataFrame, categorical: tuple[str, ...], options: PrepareOptions) -> Preprocessor:
    """Fit on the training rows of a table."""
    numeric = tuple(str(name) for name in train.columns if name not in categorical)
    return Preprocessor(_fit_numbers(train, numeric, options), _fit_words(train, categorical, options))


def _fit_numbers(train: pd.DataFrame, numeric: tuple[str, ...], options: PrepareOptions) -> Numbers:
    count = len(numeric)
    if not count:
        return Numbers((), np.zeros(0), Scaler("none", np.zeros(0), np.ones(0)))
    x = as_numbers(train, numeric)
    impute = SimpleImputer(strategy=options.impute, keep_empty_features=True)
    steps = dict(make_pipeline(impute, *_scaling(options.scaling, len(x))).fit(x).steps)
    shift, scale = np.zeros(count), np.ones(count)
    if "minmaxscaler" in steps:
        shift, scale = steps["minmaxscaler"].data_min_, 1.0 / steps["minmaxscaler"].scale_
    elif "standardscaler" in steps:
        shift, scale = steps["standardscaler"].mean_, steps["standardscaler"].scale_
    quantiles = steps["quantiletransformer"].quantiles_ if "quantiletransformer" in steps else None
    flagged = MissingIndicator(features="missing-only").fit(x).features_ if options.flag_missing else ()
    scaler = Scaler(options.scaling, shift, scale, quantiles)
    return Numbers(numeric, steps["simpleimputer"].statistics_, scaler, tuple(map(int, flagged)))


def _scaling(kind: Scaling, rows: int) -> list[Any]:
    if kind == "minmax":
        return [MinMaxScaler()]
    if kind == "log":
        return [FunctionTransformer(_signed_log), StandardScaler()]
    if kind == "quantile":
        # Standardized once more: a column of few values lies on the normal quantiles' ends, ±5.2, otherwise.
        count = min(rows, max(10, min(_QUANTILES, rows // _ROWS_PER_QUANTILE)))
        ranks = QuantileTransformer(n_quantiles=count, output_distribution="normal", subsample=10**9, random_state=0)
        return [ranks, StandardScaler()]
    return [StandardScaler()] if kind == "standard" else []


def _signed_log(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.sign(x) * np.log1p(np.abs(x)), dtype=np.float64)


def _fit_words(train: pd.DataFrame, categorical: tuple[str, ...], options: PrepareOptions) -> Words:
    ordinal = options.categories == "ordinal"
    if not categorical:
        return Words((), (), (), (), ordinal)
    # Encoders are given the place of each text in the order of all: on the texts themselves they take ten times as long.
    columns = [_filled(train[name], options) for name in categorical]
    codes = np.stack([column.codes for column in columns], axis=1)
    encoder = OrdinalEncoder if ordinal else OneHotEncoder
    fitted = encoder(max_categories=options.max_levels).fit(codes)
    levels, shared = [], []
    first = 1 if ordinal else 0
    for column, known, rare in zip(columns, fitted.categories_, fitted.infrequent_categories_, strict=True):
        few = set() if rare is None else set(rare.tolist())
        frequent = [code for code in known.tolist() if code not in few]
        number = {code: first + index for index, code in enumerate(frequent)}
        levels.append({column.texts[code]: number.get(code, first + len(frequent)) for code in [*frequent, *sorted(few)]})
        shared.append(first + len(frequent) if few else -1)
    return Words(categorical, tuple(column.fill for column in columns), tuple(levels), tuple(shared), ordinal)


@dataclass(frozen=True)
class _Filled:
    """A training column without gaps: `codes` (rows,) count through the sorted `texts`; `fill` was put into the gaps."""

    codes: NDArray[np.int64]
    texts: list[str]
    fill: str


def _filled(series: pd.Series[Any], options: PrepareOptions) -> _Filled:
    where, values = factorized(series)
    texts = sorted({*values, MISSING})
    place = {text: index for index, text in enumerate(texts)}
    codes = np.array([place[text] for text in (*values, MISSING)], dtype=np.int64)[where]  # −1, missing, is the last one
    fill = MISSING
    if options.impute_categories == "most_frequent" and values:
        counts = np.bincount(codes[where >= 0], minlength=len(texts))
        fill = texts[int(counts.argmax())]
        codes[where < 0] = place[fill]
    return _Filled(codes, texts, fill)


def fit_array(x: NDArray[Any], rows: NDArray[np.int64], lengths: NDArray[np.int64] | None, layout: Layout) -> ArrayScaler:
    """Fit on the named rows of images (n, h, w), (n, h, w, c) or (n, c, h, w), or of sequences (n, t, c)."""
    x = channels_last(x) if layout == "image" else x
    channels = x.shape[-1]
    count, total, squares = np.zeros(channels), np.zeros(channels), np.zeros(channels)
    for start in range(0, len(rows), _BLOCK_ROWS):
        chosen = rows[start : start + _BLOCK_ROWS]
        block = x[chosen]
        if lengths is not None:
            block = block[np.arange(x.shape[1]) < lengths[chosen][:, None]]
        values = block.reshape(-1, channels).astype(np.float64)
        values = np.where(np.isfinite(values), values, np.nan)
        known = ~np.isnan(values)
        # Chan, Golub and LeVeque (1983): blocks are joined by their means, as sums of squares would lose digits.
        n = known.sum(0)
        mean = np.divide(np.nansum(values, 0), n, out=np.zeros(channels), where=n > 0)
        joined = np.maximum(count + n, 1)
        old = np.divide(total, count, out=np.zeros(channels), where=count > 0)
        squares += np.nansum((values - mean) ** 2, 0) + (mean - old) ** 2 * count * n / joined
        total += mean * n
        count += n
    mean = total / np.maximum(count, 1)
    deviation = np.sqrt(squares / np.maximum(count, 1))
    return ArrayScaler(layout, mean, np.where(deviation > 1e-12, deviation, 1.0))
