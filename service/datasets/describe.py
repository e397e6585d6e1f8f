"""Descriptions of columns, computed in chunks so that memory does not grow with the table.

Imports pandas (40 MB), so `files` imports this module only when a file has to be read. Independent of file formats.
Reference for counting: Bar-Yossef et al., "Counting Distinct Elements in a Data Stream" (2002), the k smallest hashes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from service.datasets.tables import Column, Kind, number_of

_EXACT = 8_192
_HASHES = 2.0**64
_MANY, _FEW_WORDS, _LONG = 10, 5, 40


def is_categorical(series: pd.Series[Any]) -> bool:
    """Whether a column contains categories: anything but numbers; booleans are categories."""
    return getattr(series.dtype, "kind", "O") not in "iuf"


def is_whole(values: NDArray[Any]) -> bool:
    """Whether all values (of which none is missing) are integers."""
    return values.dtype.kind in "iu" or (values.dtype.kind == "f" and bool(np.all(values == np.floor(values))))


@dataclass
class Distinct:
    """Counts distinct values in bounded memory by keeping the 8,192 smallest of their 64-bit hashes."""

    kept: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))
    pending: list[NDArray[np.uint64]] = field(default_factory=list)
    overflown: bool = False

    def add(self, hashes: NDArray[np.uint64]) -> None:
        """Add the hashes of further values."""
        self.pending.append(hashes[hashes < self.kept[-1]] if self.overflown else hashes)
        if sum(map(len, self.pending)) > _EXACT:
            self._merge()

    def count(self) -> int:
        """Number of distinct values so far: exact until it overflows, then estimated from the density of the hashes."""
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
class Texts:
    """Whether a column of text seems to be meant as numbers: counts distinct texts, of each chunk anew."""

    numbers: int = 0
    digits: int = 0
    others: dict[str, None] = field(default_factory=dict)
    """The first texts that are no numbers, in order."""
    count: int = 0
    """Of these."""

    def add(self, texts: Iterable[str]) -> None:
        """Add the distinct texts of a chunk."""
        for text in texts:
            if math.isfinite(number_of(text)):
                self.numbers += 1
                continue
            self.count += text not in self.others
            self.digits += any(letter.isdigit() for letter in text)
            if len(self.others) <= _FEW_WORDS:
                self.others[text] = None

    def words(self) -> Sequence[str]:
        """The few words among many numbers."""
        few = 0 < len(self.others) <= _FEW_WORDS and self.numbers >= max(_MANY, 2 * len(self.others))
        return tuple(word[:_LONG] for word in self.others) if few else ()

    def example(self) -> str | None:
        """One of many texts that nearly all contain digits."""
        many = self.digits >= _MANY and self.digits >= 0.9 * self.count and self.digits > self.numbers
        return next(iter(self.others))[:_LONG] if many else None


@dataclass
class Summary:
    """Statistics of one column over the chunks so far."""

    rows: int = 0
    missing: int = 0
    words: bool = False
    numbers: bool = False
    void: bool = False
    """Whether a chunk without any value had a type for text; it decides the kind of a column without values."""
    whole: bool = True
    distinct: Distinct = field(default_factory=Distinct)
    texts: Texts = field(default_factory=Texts)

    def add(self, chunk: pd.Series[Any]) -> None:
        """Add a chunk of the column."""
        present = chunk.dropna()
        self.rows += len(chunk)
        self.missing += len(chunk) - len(present)
        if present.empty:
            self.void = self.void or is_categorical(chunk)
        elif is_categorical(chunk):
            self.words = True
            values = present.astype(object).map(str).unique()
            self.distinct.add(pd.util.hash_array(np.asarray(values, dtype=object), categorize=False))
            self.texts.add(values)
        else:
            self.numbers = True
            numbers = present.to_numpy(dtype=np.float64) + 0.0  # −0.0 becomes 0.0, which it equals
            self.whole = self.whole and is_whole(numbers)
            self.distinct.add(pd.util.hash_array(numbers))

    def column(self, name: str) -> Column:
        """The description of the column."""
        kind: Kind = "categorical" if self.words or (self.void and not self.numbers) else "numeric"
        distinct = min(self.distinct.count(), self.rows - self.missing)
        if kind == "numeric":
            return Column(name, kind, self.missing, distinct, self.whole)
        return Column(
            name, kind, self.missing, distinct, whole=False, words=self.texts.words(), example=self.texts.example()
        )


def summarize(chunks: Iterable[pd.DataFrame]) -> tuple[int, dict[str, Summary]]:
    """Number of rows and a summary per column."""
    rows = 0
    found: dict[str, Summary] = {}
    for chunk in chunks:
        rows += len(chunk)
        for name in chunk.columns:
            found.setdefault(str(name), Summary()).add(chunk[name])
    return rows, found
