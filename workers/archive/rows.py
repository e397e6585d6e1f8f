"""Rows as a loaded model gets them, and the preprocessing that was fitted in training: NumPy only, no pandas, no torch.

Becomes a part of the loader in a model's archive. It does to the last bit what `workers.data.preprocessor` does.
Shapes: `r` rows, `d` features; images (r, h, w, c) become (r, c, h, w), sequences (r, t, c) stay.
"""

from __future__ import annotations

import csv
import gzip
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO, cast

import numpy as np
from numpy.typing import NDArray

from workers.data.scaling import Scaler

# What pandas takes for missing in a CSV file, and training was done on what pandas had read.
_MISSING = frozenset(
    "|#N/A|#N/A N/A|#NA|-1.#IND|-1.#QNAN|-NaN|-nan|1.#IND|1.#QNAN|<NA>|N/A|NA|NULL|NaN|None|n/a|nan|null".split("|")  # noqa: SIM905
)

Columns = Mapping[str, Sequence[Any]]
Rows = str | Path | Columns | NDArray[Any] | Any
"""A CSV or NPZ file, values by column, a pandas DataFrame, or an array of images or sequences."""

_LARGEST = float(np.finfo(np.float32).max)


class CannotPredict(ValueError):
    """The rows are not what the model was trained on, or the archive is not one that this loader knows."""


def features(rows: Rows, fitted: Mapping[str, Any]) -> NDArray[np.float32]:
    """What the network reads, of rows before any preprocessing.

    Raises:
        CannotPredict: A column is missing, or a file can't be read.
    """
    if isinstance(rows, str | Path):
        rows = read_npz(rows) if str(rows).endswith(".npz") else read_csv(rows)
    if fitted["kind"] == "array":
        return _scaled(rows, fitted)
    return _tabular(_as_columns(rows), fitted)


def _as_columns(rows: Any) -> Columns:
    """Arrays of numbers by column, as training names them: x0, x1, …"""
    if isinstance(rows, Mapping) and "x" in rows and hasattr(rows["x"], "ndim"):
        rows = rows["x"]
    if hasattr(rows, "ndim") and not hasattr(rows, "columns"):
        flat = np.asarray(rows).reshape(len(rows), -1).astype(np.float32)
        return {f"x{index}": cast(Sequence[Any], flat[:, index]) for index in range(flat.shape[1])}
    return cast(Columns, rows)


def _tabular(columns: Columns, fitted: Mapping[str, Any]) -> NDArray[np.float32]:
    there = [str(name) for name in (columns.columns if hasattr(columns, "columns") else columns)]
    wanted = [*fitted["numbers"]["columns"], *fitted["words"]["columns"]]
    lacking = [name for name in wanted if name not in there]
    if lacking:
        raise CannotPredict(f"there is no column {', '.join(map(repr, lacking))}; the columns are: {', '.join(there)}")
    parts = [_numbers(columns, fitted["numbers"]), _words(columns, fitted["words"])]
    whole = np.concatenate([part for part in parts if part is not None], axis=1)
    return np.ascontiguousarray(np.clip(whole, -_LARGEST, _LARGEST).astype(np.float32))


def _scaled(rows: Any, fitted: Mapping[str, Any]) -> NDArray[np.float32]:
    """Images or sequences by their channels' mean and deviation; padding behind a sequence's length becomes NaN."""
    given = rows if isinstance(rows, Mapping) else {"x": rows}
    if "x" not in given:
        raise CannotPredict(f"there is no array 'x'; the arrays are: {', '.join(given)}")
    x, lengths = np.asarray(given["x"]), given.get("lengths")
    if fitted["layout"] == "image":
        x = x[..., None] if x.ndim == 3 else np.moveaxis(x, 1, -1) if x.shape[1] < x.shape[3] else x
    if x.shape[-1] != len(fitted["mean"]):
        raise CannotPredict(f"examples have {x.shape[-1]} channels, those of training had {len(fitted['mean'])}")
    out = x.astype(np.float32)
    out -= np.array(fitted["mean"], dtype=np.float64).astype(np.float32)
    out /= np.array(fitted["scale"], dtype=np.float64).astype(np.float32)
    if x.dtype.kind == "f":
        np.nan_to_num(out, copy=False, posinf=0.0, neginf=0.0)
    if lengths is not None:
        out[np.arange(x.shape[1]) >= np.asarray(lengths)[:, None]] = np.nan
    return np.ascontiguousarray(np.moveaxis(out, -1, 1)) if fitted["layout"] == "image" else out


_NAMES = {"x": "x", "len": "lengths", "lengths": "lengths"}


def read_npz(path: str | Path) -> dict[str, NDArray[Any]]:
    """The arrays `x` and, for sequences, `lengths` of an NPZ file.

    Raises:
        CannotPredict: It is none, or holds Python objects.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {_NAMES[name.lower()]: arrays[name] for name in arrays.files if name.lower() in _NAMES}
    except (ValueError, OSError, EOFError) as error:
        raise CannotPredict(f"{path} can't be read as NPZ: {error}") from None


def read_csv(path: str | Path) -> dict[str, list[str | None]]:
    """A CSV file (also compressed by gzip) by column; None where a value is missing.

    Raises:
        CannotPredict: It is no text, has no rows, or a line has more or fewer fields than the header.
    """
    with Path(path).open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
    try:
        with (
            cast(TextIO, gzip.open(path, "rt", encoding="utf-8-sig", newline=""))
            if packed
            else Path(path).open(encoding="utf-8-sig", newline="") as file
        ):
            return _by_column(file, str(path))
    except (UnicodeDecodeError, csv.Error, EOFError) as error:
        raise CannotPredict(f"{path} can't be read as CSV: {error}") from None


def _by_column(file: TextIO, path: str) -> dict[str, list[str | None]]:
    lines = csv.reader(file, skipinitialspace=True)
    names = next((line for line in lines if line), [])
    columns: list[list[str | None]] = [[] for _ in names]
    for line in lines:
        if len(line) != len(names):
            if not line or (len(line) == 1 and not line[0].strip()):
                continue
            raise CannotPredict(f"{path}, line {lines.line_num}: {len(line)} fields, but the header has {len(names)}")
        for column, value in zip(columns, line, strict=True):
            column.append(None if value in _MISSING else value)
    if not columns or not columns[0]:
        raise CannotPredict(f"{path} has no rows")
    return dict(zip(names, columns, strict=True))


def _numbers(rows: Columns, fitted: Mapping[str, Any]) -> NDArray[np.float64] | None:
    """(r, numeric columns and flags of missing ones) scaled."""
    if not fitted["columns"]:
        return None
    x = np.stack([_as_numbers(rows[name]) for name in fitted["columns"]], axis=1)
    x = np.where(np.abs(x) <= _LARGEST, x, np.nan)
    missing = np.isnan(x)
    scaled = Scaler.from_json(fitted["scaler"]).apply(np.where(missing, np.array(fitted["fill"], dtype=np.float64), x))
    return np.concatenate([scaled, missing[:, fitted["flagged"]]], axis=1)


def _as_numbers(values: Sequence[Any]) -> NDArray[np.float64]:
    if getattr(getattr(values, "dtype", None), "kind", "O") in "iufb":
        return np.asarray(values, dtype=np.float64)
    return np.array([_as_number(value) for value in values], dtype=np.float64)


def _as_number(value: Any) -> float:
    try:
        return math.nan if value is None or (isinstance(value, str) and "_" in value) else float(value)
    except (TypeError, ValueError):
        return math.nan


def _words(rows: Columns, fitted: Mapping[str, Any]) -> NDArray[np.float64] | None:
    """(r, codes) zeros and ones, or (r, columns) the codes themselves."""
    parts = []
    each = zip(*(fitted[key] for key in ("columns", "fill", "levels", "shared", "sizes")), strict=True)
    for name, fill, levels, shared, size in each:
        unseen = 0 if fitted["ordinal"] else shared
        codes = np.array([_code(value, fill, levels, unseen) for value in rows[name]], dtype=np.int64)
        if fitted["ordinal"]:
            parts.append(codes[:, None].astype(np.float64))
        else:
            parts.append((codes[:, None] == np.arange(size)).astype(np.float64))
    return np.concatenate(parts, axis=1) if parts else None


def _code(value: Any, fill: str, levels: Mapping[str, int], unseen: int) -> int:
    if value is None or value != value or str(value) in ("<NA>", "NaT"):  # noqa: PLR0124  # NaN is not itself
        return levels.get(fill, unseen)
    return next((levels[text] for text in _texts(value) if text in levels), unseen)


def _texts(value: Any) -> Iterator[str]:
    """The ways in which a value may have been written in training: 1, 1.0 and "1.0" are one category."""
    if not isinstance(value, str):
        yield str(int(value)) if isinstance(value, float | np.floating) and float(value).is_integer() else str(value)
        return
    yield value
    yield value.strip().capitalize()  # true
    number = _as_number(value)
    if math.isfinite(number):
        yield str(int(number)) if number.is_integer() else str(number)
