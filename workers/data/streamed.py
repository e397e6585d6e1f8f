"""Large Parquet files as records: described in one pass, and written in another as a matrix that rows can be read from.

The matrix is a file without a name in the directory of the data sets: it is gone when nobody reads it any more, however a
process ends. Numbers are doubles in it, as in a table in memory; it takes eight bytes for each.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from service.datasets import Column, Mapped, Place, read_chunks
from service.datasets.describe import columns_of, is_categorical, summarize
from service.datasets.readings import ColumnType, read_by
from service.errors import TrialError
from workers.data.copies import path_of
from workers.data.records import Records, hashes
from workers.plain.columns import mapped, text_of
from workers.plain.readings import Ambiguous, Reading, derived


@dataclass(frozen=True)
class Streamed:
    """``records`` of the features with a hash of each row; the other columns are in memory as ``aside``."""

    records: Records
    hashes: NDArray[np.uint64]
    aside: pd.DataFrame
    columns: Mapping[str, Column]


def stream(
    path: Path,
    scratch: Path,
    missing: Sequence[str],
    types: Mapping[str, ColumnType],
    drop: Sequence[str],
    aside: Sequence[str],
) -> Streamed:
    """A Parquet file; ``aside`` are columns that are no features, ``drop`` those that nobody reads.

    Raises:
        InvalidInput: It can't be read (it could at submit).
        TrialError: A reading makes two columns of one name.
    """
    found = read_by(columns_of(summarize(read_chunks(path, "parquet", missing))), types)
    columns = {column.name: column for column in found if column.name not in drop}
    readings = {name: each.form for name, each in columns.items() if each.form is not None and name not in aside}
    with tempfile.TemporaryFile(dir=scratch) as file:
        writer = _Writer(file, columns)
        kept = []
        for chunk in read_chunks(path, "parquet", missing):
            frame = pd.DataFrame({name: _like(chunk[name], column) for name, column in columns.items()})
            kept.append(frame[list(aside)])
            writer.add(derived_frame(frame.drop(columns=list(aside)), readings))
        records = writer.records()
    return Streamed(records, np.concatenate(writer.hashes), pd.concat(kept, ignore_index=True), columns)


def _like(chunk: pd.Series[Any], column: Column) -> pd.Series[Any]:
    """A chunk of a column in the type that the column would have as a whole."""
    kind = getattr(chunk.dtype, "kind", "O")
    if column.missing and kind in "iu":
        return chunk.astype(np.float64)
    return chunk.astype(object) if kind == "b" and column.missing else chunk


def derived_frame(frame: pd.DataFrame, readings: Mapping[str, Reading]) -> pd.DataFrame:
    """The features of columns that have readings, and the other columns as they are.

    Raises:
        TrialError: A value can be read in two ways.
    """
    if not readings:
        return frame
    try:
        return pd.DataFrame(derived({str(name): frame[name] for name in frame.columns}, readings), index=frame.index)
    except Ambiguous as error:
        raise TrialError(f"data: {error}") from None


@dataclass
class _Writer:
    """Writes frames into a file, below each other."""

    file: IO[bytes]
    columns: Mapping[str, Column]
    hashes: list[NDArray[np.uint64]] = field(default_factory=list)
    numbers: dict[str, dict[str, int]] = field(default_factory=dict)
    """Of the texts of each column of categories."""
    names: tuple[str, ...] = ()
    rows: int = 0

    def add(self, frame: pd.DataFrame) -> None:
        """Write a frame."""
        self.names = tuple(map(str, frame.columns))
        self.hashes.append(hashes(frame))
        self.rows += len(frame)
        values = np.stack([self._values(name, frame[name]) for name in self.names], axis=1)
        self.file.write(np.ascontiguousarray(values, dtype=np.float64).tobytes())

    def _values(self, name: str, column: pd.Series[Any]) -> NDArray[np.float64]:
        known = self.columns.get(name)
        if (
            name not in self.numbers
            and not (known is not None and known.kind == "categorical")
            and not is_categorical(column)
        ):
            return column.to_numpy(dtype=np.float64, na_value=np.nan)
        own = self.numbers.setdefault(name, {})
        present = column.notna().to_numpy(dtype=bool)
        found = np.full(len(column), np.nan)
        found[present] = mapped(column[present], lambda value: own.setdefault(text_of(value), len(own)))
        return found

    def records(self) -> Records:
        """Of all that was written."""
        self.file.flush()
        place = Place(path_of(self.file), 0, (self.rows, len(self.names)), np.dtype(np.float64))
        texts = {name: [*numbers] for name, numbers in self.numbers.items()}
        return Records(Mapped([place], double=True), self.names, texts)
