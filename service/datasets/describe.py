"""Columns described chunk by chunk, so that the memory it takes does not grow with the table.

Imports pandas at once (40 MB): `files` imports this module only when a file has to be read. Knows no file formats.
Reference for counting: Bar-Yossef et al., "Counting Distinct Elements in a Data Stream" (2002), the k smallest hashes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from service.datasets.tables import Column, Kind

_EXACT = 8_192
_HASHES = 2.0**64


def is_categorical(series: pd.Series[Any]) -> bool:
    """Whether a column holds categories: anything but numbers; booleans are categories."""
    return getattr(series.dtype, "kind", "O") not in "iuf"


def is_whole(values: NDArray[Any]) -> bool:
    """Whether all values (none of them missing) are whole numbers."""
    return values.dtype.kind in "iu" or (values.dtype.kind == "f" and bool(np.all(values == np.floor(values))))


@dataclass
class Distinct:
    """Counts different values in bounded memory by keeping the 8,192 smallest of their 64-bit hashes."""

    kept: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))
    pending: list[NDArray[np.uint64]] = field(default_factory=list)
    overflown: bool = False

    def add(self, hashes: NDArray[np.uint64]) -> None:
        """Take note of the hashes of some more values."""
        self.pending.append(hashes[hashes < self.kept[-1]] if self.overflown else hashes)
        if sum(map(len, self.pending)) > _EXACT:
            self._merge()

    def count(self) -> int:
        """Number of different values so far: exact until it overflows, then from how densely the hashes lie."""
        self._merge()
        if not self.overflown:
            return len(self.kept)
        return round((_EXACT - 1) * _HASHES / float(self.kept[-1]))

    def _merge(self) -> None:
        merged = np.sort(np.concatenate([self.kept, *self.pending]))
        merged = merged[np.flatnonzero(np.diff(merged, prepend=~merged[:1]))]  # np.unique takes six times as long
        self.overflown = self.overflown or len(merged) > _EXACT
        self.kept, self.pending = merged[:_EXACT], []


@dataclass
class Summary:
    """What is known of one column after the chunks so far."""

    rows: int = 0
    missing: int = 0
    words: bool = False
    numbers: bool = False
    void: bool = False
    """A chunk without any value was of a type that holds words; this counts for a column that never has one."""
    whole: bool = True
    distinct: Distinct = field(default_factory=Distinct)

    @property
    def mixed(self) -> bool:
        """Some chunks held numbers only and others did not: as a whole the column holds words, to be counted as such."""
        return self.words and self.numbers

    def add(self, chunk: pd.Series[Any]) -> None:
        """Take one more chunk of the column into account."""
        present = chunk.dropna()
        self.rows += len(chunk)
        self.missing += len(chunk) - len(present)
        if present.empty:
            self.void = self.void or is_categorical(chunk)
        elif is_categorical(chunk):
            self.words = True
            values = present.astype(object).map(str).unique()
            self.distinct.add(pd.util.hash_array(np.asarray(values, dtype=object), categorize=False))
        else:
            self.numbers = True
            numbers = present.to_numpy(dtype=np.float64) + 0.0  # makes −0.0 the 0.0 that it equals
            self.whole = self.whole and is_whole(numbers)
            self.distinct.add(pd.util.hash_array(numbers))

    def column(self, name: str) -> Column:
        """The finished description."""
        kind: Kind = "categorical" if self.words or (self.void and not self.numbers) else "numeric"
        distinct = min(self.distinct.count(), self.rows - self.missing)
        return Column(name, kind, self.missing, distinct, kind == "numeric" and self.whole)


def summarize(chunks: Iterable[pd.DataFrame]) -> tuple[int, dict[str, Summary]]:
    """Number of rows and a summary per column."""
    rows = 0
    found: dict[str, Summary] = {}
    for chunk in chunks:
        rows += len(chunk)
        for name in chunk.columns:
            found.setdefault(str(name), Summary()).add(chunk[name])
    return rows, found
