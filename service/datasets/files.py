"""Reading and describing tables: CSV and Parquet with named columns, NPZ with arrays `x` and `y`.

Pickles are never loaded. What is wrong with a file is told as `InvalidInput` on the field ``file``.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from service.errors import InvalidInput

if TYPE_CHECKING:
    import pandas as pd

FORMATS = ("csv", "parquet", "npz")
MAX_ARRAY_BYTES = 16 * 2**30
"""Largest total size of the arrays in an NPZ file, which may be far above its compressed size."""

_MAX_CLASSES_OF_NUMBERS = 20


@dataclass(frozen=True)
class Column:
    """One column: its kind, and enough to judge whether it is a target, a category or noise."""

    name: str
    kind: Literal["numeric", "categorical"]
    missing: int
    distinct: int
    whole: bool
    """All values are whole numbers."""


@dataclass(frozen=True)
class TableInfo:
    """What a file holds. ``shape`` is that of one example; NPZ files have the columns `x` and `y`."""

    rows: int
    columns: tuple[Column, ...]
    shape: tuple[int, ...]

    def column(self, name: str) -> Column | None:
        """The column of that name."""
        return next((column for column in self.columns if column.name == name), None)


def infer_task(target: Column, rows: int) -> Literal["classification", "regression"]:
    """Classification for words, and for few distinct whole numbers that come back often; regression otherwise."""
    if target.kind == "categorical":
        return "classification"
    few = target.whole and target.distinct <= min(_MAX_CLASSES_OF_NUMBERS, max(2, rows // 10))
    return "classification" if few else "regression"


def inspect(path: Path, file_format: str) -> TableInfo:
    """Describe a table.

    Raises:
        InvalidInput: The file can't be read as that format, or holds no usable table.
    """
    if file_format == "npz":
        x, y = read_arrays(path)
        target = Column("y", "numeric" if y.dtype.kind in "iuf" else "categorical", 0, len(np.unique(y)), _whole(y))
        return TableInfo(len(y), (Column("x", "numeric", 0, 0, False), target), x.shape[1:])
    frame = read_frame(path, file_format)
    columns = tuple(_describe(frame[name]) for name in frame.columns)
    return TableInfo(len(frame), columns, (len(columns) - 1,))


def read_frame(path: Path, file_format: str) -> pd.DataFrame:
    """A CSV or Parquet file as a frame with unique, named columns.

    Raises:
        InvalidInput: See `inspect`.
    """
    # The import takes 0.4 s and 40 MB: a service that only serves built-in data sets never pays for it.
    import pandas as pd

    try:
        # Duplicate headers are found before pandas renames the second one.
        if file_format == "csv":
            header = pd.read_csv(path, header=None, nrows=1, dtype=str, skipinitialspace=True).iloc[0].tolist()
            frame = pd.read_csv(path, skipinitialspace=True, low_memory=False)
        else:
            frame = pd.read_parquet(path)
            header = [str(name) for name in frame.columns]
    except Exception as error:  # pandas and pyarrow have no common base for what a file can get wrong
        _refuse(f"cannot be read as {file_format}: {str(error).splitlines()[0]}")
    twice = sorted({str(name) for name in header if header.count(name) > 1})
    if twice:
        _refuse("has two columns of one name", value=twice)
    if frame.empty:
        _refuse("has no rows")
    if frame.shape[1] < 2:
        _refuse("needs at least two columns: a target and something to predict it from", value=list(frame.columns))
    frame.columns = frame.columns.map(str)
    return frame


def read_arrays(path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    """The arrays of an NPZ file: `x` (rows, features …) float32 and `y` (rows,).

    Raises:
        InvalidInput: See `inspect`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > MAX_ARRAY_BYTES:
            _refuse(f"unpacks to {size} bytes", value=size, allowed=f"at most {MAX_ARRAY_BYTES}")
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name.lower(): archive[name] for name in archive.files}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        _refuse(f"cannot be read as npz: {error}")
    if not {"x", "y"} <= set(arrays):
        _refuse("needs the arrays x and y", value=sorted(arrays), allowed="x (rows, features) and y (rows,)")
    x, y = arrays["x"], arrays["y"]
    if x.ndim < 2 or y.ndim != 1 or len(x) != len(y) or len(y) == 0:
        _refuse("has arrays that do not fit", value={"x": x.shape, "y": y.shape}, allowed="x (n, …), y (n,), n > 0")
    if x.dtype.kind not in "iufb":
        _refuse("holds features that are not numbers", value=str(x.dtype), allowed="integers or floats")
    return x.astype(np.float32), y


def is_categorical(series: pd.Series[Any]) -> bool:
    """Whether a column holds categories: words, booleans, or pandas' own categories."""
    import pandas as pd

    return not pd.api.types.is_numeric_dtype(series) or pd.api.types.is_bool_dtype(series)


def _describe(series: pd.Series[Any]) -> Column:
    kind: Literal["numeric", "categorical"] = "categorical" if is_categorical(series) else "numeric"
    present = series.dropna()
    whole = kind == "numeric" and _whole(present.to_numpy(dtype=float))
    return Column(str(series.name), kind, int(series.isna().sum()), int(present.nunique()), whole)


def _whole(values: NDArray[Any]) -> bool:
    return values.dtype.kind in "iu" or (values.dtype.kind == "f" and bool(np.all(values == np.floor(values))))


def _refuse(message: str, *, value: object = None, allowed: object = None) -> NoReturn:
    raise InvalidInput.one("file", message, value=value, allowed=allowed)
