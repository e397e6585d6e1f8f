"""Descriptions of columns, computed in chunks so that memory does not grow with the table.

Imports pandas (40 MB), so `files` imports this module only when a file has to be read. Independent of file formats.
Reference for counting: Bar-Yossef et al., "Counting Distinct Elements in a Data Stream" (2002), the k smallest hashes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from service.datasets.forms import Texts
from service.datasets.tables import MAX_CELL, Column, Kind, number_of, refuse

_EXACT = 8_192
_HASHES = 2.0**64
_MANY, _FEW_WORDS, _LONG = 10, 5, 40
_MOST_LEVELS, _MOST_FOLDED = 50, 2000


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
class Words:
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
            self.digits += not text[:1].isalpha() and any(letter.isdigit() for letter in text)
            if len(self.others) <= _FEW_WORDS:
                self.others[text] = None

    def few(self) -> Sequence[str]:
        """The few words among many numbers."""
        few = 0 < len(self.others) <= _FEW_WORDS and self.numbers >= max(_MANY, 2 * len(self.others))
        return tuple(word[:_LONG] for word in self.others) if few else ()

    def contain_digits(self) -> bool:
        """Whether there are many texts that nearly all contain digits."""
        return self.digits >= _MANY and self.digits >= 0.9 * self.count and self.digits > self.numbers


@dataclass
class Levels:
    """Rows by value, while there are few values."""

    rows: Counter[str] | None = field(default_factory=Counter)

    def add(self, values: NDArray[Any], counts: NDArray[Any]) -> None:
        """Add the distinct values of a chunk, and how often each occurs in it."""
        if self.rows is not None:
            if len(values) + len(self.rows) > 2 * _EXACT:
                self.rows = None
                return
            self.rows.update(dict(zip(map(text_of, values.tolist()), counts.tolist(), strict=True)))
            if len(self.rows) > _EXACT:
                self.rows = None

    def single(self) -> int:
        """Number of values with one row; 0 where there are too many values."""
        return sum(count == 1 for count in (self.rows or {}).values())

    def few(self) -> Mapping[str, int] | None:
        """The rows of each value, the most frequent first; None where there are many values."""
        few = self.rows is not None and len(self.rows) <= _MOST_LEVELS
        return {text[:_LONG]: count for text, count in self.rows.most_common()} if few and self.rows else None

    def blanks(self) -> Sequence[str]:
        """Values of which another differs only in blanks around it or in upper and lower case."""
        if not self.rows or len(self.rows) > _MOST_FOLDED:
            return ()
        folded = Counter(text.strip().casefold() for text in self.rows)
        return tuple(repr(text)[:_LONG] for text in self.rows if folded[text.strip().casefold()] > 1)[:_FEW_WORDS]


def text_of(value: object) -> str:
    """A value's text: a whole number is written the same whether it was read as 1 or as 1.0."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


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
    low: float = math.inf
    high: float = -math.inf
    distinct: Distinct = field(default_factory=Distinct)
    meant: Words = field(default_factory=Words)
    texts: Texts = field(default_factory=Texts)
    levels: Levels = field(default_factory=Levels)

    def add(self, chunk: pd.Series[Any]) -> None:
        """Add a chunk of the column."""
        self.rows += len(chunk)
        if is_categorical(chunk):
            self._add_words(chunk.dropna(), len(chunk))
            return
        numbers = chunk.to_numpy(dtype=np.float64, na_value=np.nan) + 0.0  # −0.0 becomes 0.0, which it equals
        missing = np.isnan(numbers)
        if missing.any():
            numbers = numbers[~missing]
            self.missing += len(chunk) - len(numbers)
        if len(numbers):
            self.numbers = True
            self.whole = self.whole and is_whole(numbers)
            self.low, self.high = min(self.low, float(numbers.min())), max(self.high, float(numbers.max()))
            self.distinct.add(pd.util.hash_array(numbers))
            if self.whole:
                self.levels.add(*np.unique(numbers, return_counts=True))

    def _add_words(self, present: pd.Series[Any], rows: int) -> None:
        self.missing += rows - len(present)
        if present.empty:
            self.void = True
            return
        self.words = True
        texts = present.astype(object).map(str)
        counts = texts.value_counts(sort=False)  # in the order of their first rows
        values = counts.index.to_numpy(dtype=object)
        if max(map(len, values)) > MAX_CELL:
            refuse(f"has a text of more than {MAX_CELL} letters", allowed=f"at most {MAX_CELL}")
        self.distinct.add(pd.util.hash_array(values, categorize=False))
        self.meant.add(values)
        self.texts.add(values)
        self.levels.add(values, counts.to_numpy())

    def decimals(self) -> set[str]:
        """The marks of decimals that the column shows."""
        if self.words:
            return self.texts.numbers.decimals()
        return set() if self.whole or not self.numbers else {"."}

    def column(self, name: str, decimal: str | None) -> Column:
        """The description of the column; ``decimal`` is the mark that other columns show."""
        distinct = min(self.distinct.count(), self.rows - self.missing)
        numeric = not self.words and not (self.void and not self.numbers)
        facts: dict[str, Any] = {"levels": self.levels.few(), "single": self.levels.single()}
        if numeric:
            if self.numbers:
                facts |= {"low": _finite(self.low), "high": _finite(self.high)}
            return Column(name, "numeric", self.missing, distinct, self.whole, **facts)
        forms = self.texts.forms(decimal)
        example = self.texts.first
        kind: Kind = "categorical"
        if "number" in forms:
            kind = "numeric"
        elif "date" in forms:
            kind = "date"
        elif distinct > max(_MOST_LEVELS, 0.5 * (self.rows - self.missing)) and self.texts.are_sentences():
            kind = "text"
        return Column(
            name,
            kind,
            self.missing,
            distinct,
            whole=kind == "numeric" and self.texts.numbers.whole,
            words=self.meant.few(),
            example=example[:_LONG] if example is not None else None,
            digits=kind == "categorical" and self.meant.contain_digits(),
            forms=forms,
            blanks=self.levels.blanks() if kind == "categorical" else (),
            **facts,
        )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def summarize(chunks: Iterable[pd.DataFrame]) -> dict[str, Summary]:
    """A summary per column."""
    found: dict[str, Summary] = {}
    for chunk in chunks:
        for name in chunk.columns:
            found.setdefault(str(name), Summary()).add(chunk[name])
    return found


def columns_of(found: Mapping[str, Summary]) -> tuple[Column, ...]:
    """The columns; a mark of decimals that only one kind of column shows decides where a form is not certain."""
    marks = {mark for summary in found.values() for mark in summary.decimals()}
    decimal = marks.pop() if len(marks) == 1 else None
    return tuple(summary.column(name, decimal) for name, summary in found.items())
