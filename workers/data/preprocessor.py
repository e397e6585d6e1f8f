"""Fitted preprocessing as plain values: a frame or an array goes in, what a network reads comes out.

Needs NumPy and pandas only, and goes through JSON unchanged, so that a saved model carries it without pickles. Every row,
be it for training, validation, test or prediction, passes through `apply`. Fitting is in `fitting`.
Shapes: `r` rows, `d` outputs; images (r, h, w), (r, h, w, c) or (r, c, h, w) become (r, c, h, w), sequences (r, t, c) stay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workers.data.scaling import Scaler

VERSION = 1
OTHER = "other"
_BLOCK_CELLS = 4_000_000
_LARGEST = float(np.finfo(np.float32).max)

Layout = Literal["flat", "sequence", "image"]


@dataclass(frozen=True)
class Numbers:
    """Numeric columns: what replaces a missing value, how they are scaled, which get a 0/1 column "is missing"."""

    columns: tuple[str, ...]
    fill: NDArray[np.float64]
    scaler: Scaler
    flagged: tuple[int, ...] = ()

    def apply(self, frame: pd.DataFrame) -> NDArray[np.float64]:
        """(r, columns + flagged)."""
        x = as_numbers(frame, self.columns)
        missing = np.isnan(x)
        scaled = self.scaler.apply(np.where(missing, self.fill, x))
        return np.concatenate([scaled, missing[:, list(self.flagged)]], axis=1) if self.flagged else scaled

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the outputs."""
        return (*self.columns, *(f"{self.columns[index]} is missing" for index in self.flagged))


@dataclass(frozen=True)
class Words:
    """Categorical columns: the text that replaces a missing value, and the code of every level seen in training.

    Rare levels share the code behind the others'. One-hot: codes from 0, a level never seen gets the rare ones' code,
    or −1 (all zeros) if there is none. Ordinal: codes from 1, a level never seen is 0.
    """

    columns: tuple[str, ...]
    fill: tuple[str, ...]
    levels: tuple[Mapping[str, int], ...]
    shared: tuple[int, ...]
    """Code of the rare levels per column, −1 if no level is rare."""
    ordinal: bool = False
    least: tuple[int, ...] = ()
    """Columns that each category gets at least: those behind its codes are zeros, so that folds are alike."""

    def codes(self, frame: pd.DataFrame) -> NDArray[np.int64]:
        """(r, columns) codes."""
        out = np.empty((len(frame), len(self.columns)), dtype=np.int64)
        for index, name in enumerate(self.columns):
            where, texts = factorized(frame[name])
            unseen = 0 if self.ordinal else self.shared[index]
            table = [self.levels[index].get(text, unseen) for text in (*texts, self.fill[index])]
            out[:, index] = np.array(table, dtype=np.int64)[where]  # −1, missing, is the last one
        return out

    def apply(self, frame: pd.DataFrame) -> NDArray[np.float64]:
        """(r, sum of sizes) zeros and ones, or (r, columns) codes."""
        codes = self.codes(frame)
        if self.ordinal:
            return codes.astype(np.float64)
        starts = np.cumsum([0, *self.sizes])
        out = np.zeros((len(codes), starts[-1]))
        rows, columns = np.nonzero(codes >= 0)
        out[rows, starts[columns] + codes[rows, columns]] = 1.0
        return out

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of codes per column, unused ones included."""
        codes = [max(each.values(), default=-1) + 1 for each in self.levels]
        return tuple(map(max, codes, self.least)) if self.least else tuple(codes)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the outputs."""
        if self.ordinal:
            return self.columns
        names = []
        for column, levels, shared, size in zip(self.columns, self.levels, self.shared, self.sizes, strict=True):
            own = [f"{column} = {level}" for level, code in levels.items() if code != shared]
            own += [f"{column} = {OTHER}"] if shared >= 0 else []
            names += [*own, *(f"{column}: unused {place}" for place in range(1, size - len(own) + 1))]
        return tuple(names)


@dataclass(frozen=True)
class Preprocessor:
    """Preprocessing of a table: first the numbers, then the flags of missing ones, then the categories."""

    numbers: Numbers
    words: Words

    def apply(self, frame: pd.DataFrame) -> NDArray[np.float32]:
        """(r, d) features, C-contiguous.

        Raises:
            ValueError: The frame lacks a column that training had. Further columns are ignored.
        """
        lacking = [name for name in (*self.numbers.columns, *self.words.columns) if name not in frame.columns]
        if lacking:
            raise ValueError(f"there is no column {', '.join(map(repr, lacking))}")
        out = np.empty((len(frame), self.width), dtype=np.float32)
        size = max(1, _BLOCK_CELLS // max(1, self.width))  # in blocks, as everything is done in doubles
        for start in range(0, len(frame), size):
            block = frame.iloc[start : start + size]
            parts = [self.numbers.apply(block), self.words.apply(block)]
            # A value far outside the training rows must not become infinite as a float32.
            out[start : start + size] = np.clip(np.concatenate(parts, axis=1), -_LARGEST, _LARGEST)
        return out

    @property
    def width(self) -> int:
        """Number of outputs d."""
        numbers = len(self.numbers.columns) + len(self.numbers.flagged)
        return numbers + (len(self.words.columns) if self.words.ordinal else sum(self.words.sizes))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the d outputs."""
        return (*self.numbers.names, *self.words.names)

    @property
    def categories(self) -> tuple[int, ...]:
        """With one-hot categories, the number of outputs of each, which are the last ones."""
        return () if self.words.ordinal else self.words.sizes

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """With ordinal categories, the number of codes (0 for unknown included) of each of the last columns."""
        return tuple(max(size, 1) for size in self.words.sizes) if self.words.ordinal else ()

    def to_json(self) -> dict[str, Any]:
        """Plain values: strings, numbers, lists and dictionaries."""
        numbers, words = self.numbers, self.words
        return {
            "kind": "table",
            "version": VERSION,
            "numbers": {
                "columns": list(numbers.columns),
                "fill": numbers.fill.tolist(),
                "scaler": numbers.scaler.to_json(),
                "flagged": list(numbers.flagged),
            },
            "words": {
                "columns": list(words.columns),
                "fill": list(words.fill),
                "levels": [dict(each) for each in words.levels],
                "shared": list(words.shared),
                "ordinal": words.ordinal,
                "sizes": list(words.sizes),
            },
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Preprocessor:
        """The inverse of `to_json`.

        Raises:
            ValueError: It was written by a later version, or describes something else.
        """
        _check(data, "table")
        n, w = data["numbers"], data["words"]
        fill = np.array(n["fill"], dtype=np.float64)
        numbers = Numbers(tuple(n["columns"]), fill, Scaler.from_json(n["scaler"]), tuple(n["flagged"]))
        known = {name: tuple(w[name]) for name in ("columns", "fill", "levels", "shared")}
        words = Words(**known, ordinal=w["ordinal"], least=tuple(w.get("sizes", ())))
        return cls(numbers, words)


@dataclass(frozen=True)
class ArrayScaler:
    """Preprocessing of images and sequences: each of the `c` channels by its training mean and standard deviation."""

    layout: Layout
    mean: NDArray[np.float64]
    scale: NDArray[np.float64]

    def apply(self, x: NDArray[Any], lengths: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """Scaled, C-contiguous examples. Missing values become the mean, and padding behind ``lengths`` NaN."""
        with_channels = channels_last(x) if self.layout == "image" else x
        # Done in float32 and in place: a double of every image would be the largest array of a whole run.
        out = with_channels.astype(np.float32)
        out -= self.mean.astype(np.float32)
        out /= self.scale.astype(np.float32)
        if x.dtype.kind == "f":
            np.nan_to_num(out, copy=False, posinf=0.0, neginf=0.0)
        if lengths is not None:
            out[np.arange(x.shape[1]) >= lengths[:, None]] = np.nan
        return np.ascontiguousarray(np.moveaxis(out, -1, 1)) if self.layout == "image" else out

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        described = {"layout": self.layout, "mean": self.mean.tolist(), "scale": self.scale.tolist()}
        return {"kind": "array", "version": VERSION, **described}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ArrayScaler:
        """The inverse of `to_json`.

        Raises:
            ValueError: It was written by a later version, or describes something else.
        """
        _check(data, "array")
        return cls(data["layout"], np.array(data["mean"], np.float64), np.array(data["scale"], np.float64))


def channels_last(x: NDArray[Any]) -> NDArray[Any]:
    """Images as (r, h, w, c): grey ones get their one channel; else the channels are the shorter of first and last axis."""
    if x.ndim == 3:
        return x[..., None]
    return np.moveaxis(x, 1, -1) if x.shape[1] < x.shape[3] else x


def as_numbers(frame: pd.DataFrame, columns: Sequence[str]) -> NDArray[np.float64]:
    """(r, columns) numbers; NaN for what is missing, no number, or too large for a float32."""
    chosen = frame[list(columns)]
    if all(getattr(kind, "kind", "O") in "iufb" for kind in chosen.dtypes):
        x = chosen.to_numpy(dtype=np.float64, na_value=np.nan)
    else:
        x = np.empty(chosen.shape)
        for index, name in enumerate(columns):
            numbers = pd.to_numeric(chosen[name].astype(object), errors="coerce")
            x[:, index] = numbers.to_numpy(dtype=np.float64, na_value=np.nan)
    return np.where(np.abs(x) <= _LARGEST, x, np.nan)


def factorized(series: pd.Series[Any]) -> tuple[NDArray[np.int64], list[str]]:
    """Index into the distinct texts per row, −1 where missing. Distinct values may have equal texts (1 and 1.0)."""
    codes, values = pd.factorize(series)
    return codes.astype(np.int64), [text_of(value) for value in values]


def text_of(value: object) -> str:
    """A category's text: a whole number is written the same whether it was read as 1 or as 1.0."""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


def _check(data: Mapping[str, Any], kind: str) -> None:
    if data.get("kind") != kind or data.get("version") != VERSION:
        said = f"{data.get('kind')!r}, version {data.get('version')!r}"
        raise ValueError(f"this is preprocessing of {said}, not of {kind!r}, version {VERSION}")
