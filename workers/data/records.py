"""A table whose rows are read when they are asked for, and the fitting of its preprocessing, some columns at a time.

What comes out is the same as of a table in memory, to the last bit. Shapes: `r` rows, `d` columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from service.datasets import Mapped
from workers.data.fitting import Fitted, PrepareOptions, fit_table
from workers.plain.readings import Reading

_CELLS = 1 << 22
"""Numbers that are in memory at once (32 MiB)."""


@dataclass(frozen=True)
class Records:
    """``matrix`` (r, d) has a column for each of ``names``; categories are numbers of their ``texts``, NaN where missing."""

    matrix: Mapped | NDArray[Any]
    names: tuple[str, ...]
    texts: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def categorical(self) -> tuple[str, ...]:
        """The columns of categories."""
        return tuple(name for name in self.names if name in self.texts)

    def select(self, rows: NDArray[np.int64]) -> Records:
        """Some of the rows."""
        return replace(self, matrix=chosen(self.matrix, rows))

    def frame(self, rows: NDArray[np.int64], first: int = 0, last: int | None = None) -> pd.DataFrame:
        """Some of the rows, of the columns from the ``first`` to before the ``last``."""
        names = self.names[first:last]
        kind = np.float32 if self.matrix.dtype == np.uint8 else self.matrix.dtype
        values = np.empty((len(rows), len(names)), dtype=kind)
        for block in blocks(len(rows), len(self.names)):
            values[block] = self.matrix[rows[block]][:, first:last]
        return pd.DataFrame({name: self._column(name, values[:, place]) for place, name in enumerate(names)})

    def _column(self, name: str, values: NDArray[Any]) -> NDArray[Any]:
        if name not in self.texts:
            return values
        texts = np.array([*self.texts[name], None], dtype=object)
        found: NDArray[Any] = texts[np.where(np.isnan(values), len(texts) - 1, values).astype(np.int64)]
        return found

    def hashes(self) -> NDArray[np.uint64]:
        """(r,) of all values of a row."""
        rows = np.arange(len(self.matrix))
        found = [hashes(self.frame(rows[block])) for block in blocks(len(rows), len(self.names))]
        return np.concatenate(found)


def chosen(x: Mapped | NDArray[Any], rows: NDArray[np.int64]) -> Mapped | NDArray[Any]:
    """Some of the rows in ascending order, without a copy of them all."""
    if len(rows) == len(x):
        return x
    return x.select(rows) if isinstance(x, Mapped) else x[rows]


def hashes(frame: pd.DataFrame) -> NDArray[np.uint64]:
    """(r,) one hash of each row."""
    return pd.util.hash_pandas_object(frame, index=False).to_numpy().astype(np.uint64)


def blocks(rows: int, numbers: int) -> Iterator[slice]:
    """Consecutive rows of ``numbers`` numbers each, as many as may be in memory at once."""
    size = max(1, _CELLS // max(1, numbers))
    return (slice(start, start + size) for start in range(0, rows, size))


def fit_records(
    records: Records,
    train: NDArray[np.int64],
    options: PrepareOptions,
    readings: Mapping[str, Reading] = MappingProxyType({}),
) -> Fitted:
    """Fit on the rows ``train``; see `workers.data.fitting.fit_table`. Columns are fitted each by itself, so by and by."""
    parts = []
    for some in blocks(len(records.names), len(train)):
        names = records.names[some]
        words = tuple(name for name in records.categorical if name in names)
        parts.append(fit_table(records.frame(train, some.start, some.stop), words, options, readings))
    return {**parts[0], "numbers": _numbers(parts), "words": _words(parts)}


def _numbers(parts: Sequence[Fitted]) -> dict[str, Any]:
    own = [part["numbers"] for part in parts if part["numbers"]["columns"]] or [parts[0]["numbers"]]
    scalers = [each["scaler"] for each in own]
    quantiles = [each["quantiles"] for each in scalers]
    starts = np.cumsum([0, *(len(each["columns"]) for each in own)]).tolist()
    return {
        "columns": _joined(own, "columns"),
        "fill": _joined(own, "fill"),
        "scaler": {
            "kind": scalers[0]["kind"],
            "shift": _joined(scalers, "shift"),
            "scale": _joined(scalers, "scale"),
            "quantiles": None if quantiles[0] is None else [[*chain(*row)] for row in zip(*quantiles, strict=True)],
        },
        "flagged": [start + index for start, each in zip(starts, own, strict=False) for index in each["flagged"]],
    }


def _words(parts: Sequence[Fitted]) -> dict[str, Any]:
    own = [part["words"] for part in parts]
    return {key: _joined(own, key) for key in own[0]}


def _joined(documents: Sequence[Mapping[str, Any]], key: str) -> list[Any]:
    return [value for document in documents for value in document[key]]
