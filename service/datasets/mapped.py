"""Rows of arrays in files, read when they are asked for: what is larger than memory is never in it as a whole.

A file is mapped, and the pages that were read are given back from time to time, so that they count as the system's cache
and not as this process's memory. The file must not be cut short meanwhile, which ends a process that reads on; stored data
sets never change. Thread-safe. Shapes: `n` rows.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_KEPT_BYTES = 32 << 20
"""Of pages that were read, after which they are given back."""


@dataclass(frozen=True)
class Place:
    """Where in a file an array lies, row by row, without compression."""

    path: Path
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class Mapped:
    """(n, ...) rows of arrays that lie one after the other in files; indexed by row numbers only.

    Args:
        places: Of arrays whose rows have one shape and type.
        double: Whether numbers are given in double precision; if not, all but bytes are float32.
        rows: Which of the rows, in which order; None for all.
    """

    def __init__(self, places: Sequence[Place], *, double: bool = False, rows: NDArray[np.int64] | None = None) -> None:
        self._parts = [_Part(place) for place in places]
        self._starts = np.cumsum([0, *(place.shape[0] for place in places)])
        self._dtype, self._double = places[0].dtype, double
        self._rows = rows
        self._example = places[0].shape[1:]

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, ...)."""
        return (len(self), *self._example)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return 1 + len(self._example)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the rows as they are given: uint8, or floats."""
        if self._dtype == np.uint8:
            return self._dtype
        return np.dtype(np.float64 if self._double else np.float32)

    @property
    def nbytes(self) -> int:
        """Bytes of all rows as they are given."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __len__(self) -> int:
        """n."""
        return int(self._starts[-1]) if self._rows is None else len(self._rows)

    def __getitem__(self, rows: NDArray[np.int64] | slice) -> NDArray[Any]:
        """The rows of these numbers (r, ...), as a copy.

        Raises:
            IndexError: There is no such row.
        """
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(len(self)))
        wanted = rows if self._rows is None else self._rows[rows]
        if len(wanted) and not 0 <= wanted.min() <= wanted.max() < self._starts[-1]:
            raise IndexError(f"the rows {wanted.min()} to {wanted.max()} are not among {self._starts[-1]}")
        if len(self._parts) == 1:
            return self._shaped(self._parts[0].take(wanted))
        out = np.empty((len(wanted), *self._example), dtype=self.dtype)
        for part, start, end in zip(self._parts, self._starts[:-1], self._starts[1:], strict=True):
            here = np.flatnonzero((wanted >= start) & (wanted < end))
            out[here] = self._shaped(part.take(wanted[here] - start))
        return out

    def _shaped(self, taken: NDArray[Any]) -> NDArray[Any]:
        return taken.astype(self.dtype, copy=False).reshape(-1, *self._example)

    def select(self, rows: NDArray[np.int64]) -> Mapped:
        """Some of the rows, of the same files."""
        chosen = Mapped.__new__(Mapped)
        chosen.__dict__ |= self.__dict__ | {"_rows": rows if self._rows is None else self._rows[rows]}
        return chosen

    def reshaped(self, *example: int) -> Mapped:
        """The same with examples of another shape."""
        other = Mapped.__new__(Mapped)
        other.__dict__ |= self.__dict__ | {"_example": tuple(example)}
        return other


class _Part:
    """One array. Rows are taken as bytes, which may lie anywhere, and not as numbers, which NumPy would align first."""

    def __init__(self, place: Place) -> None:
        self._dtype = place.dtype
        self._row = math.prod(place.shape[1:]) * place.dtype.itemsize
        with place.path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        count = place.shape[0] * self._row
        self._bytes = np.frombuffer(self._map, dtype=np.uint8, count=count, offset=place.offset).reshape(-1, self._row)
        self._taken = 0

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """(r, numbers of a row)."""
        found = self._bytes.take(rows, axis=0, mode="wrap")  # all are there, and "raise" would copy twice
        self._taken += found.nbytes
        if self._taken > _KEPT_BYTES:
            self._taken = 0
            if hasattr(mmap, "MADV_DONTNEED"):
                self._map.madvise(mmap.MADV_DONTNEED)
        return found.view(self._dtype)
