"""Columns that tell nearly the same as others, such as a copy of the target, and rows that are equal: from a sample of rows.

Of two columns of numbers it is the rank correlation (Spearman), of a number and a category the share of the ranks' variance
that the category explains (η²), of two categories whether one determines the other. The sample is every n-th row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from service.datasets.tables import NEAR, Column, Pair, Sheet

_SAMPLE, _LEAST_SAMPLE, _CELLS = 4000, 100, 1_000_000
_MOST_NUMBERS, _MOST_WORDS = 300, 60
_ID = 0.3
"""What tells something of another column, in a column with a value of its own in each row."""
_FEW_LEVELS = 50
_MOST_PAIRS = 50
_MOST_HASHED = 2_000_000


class Sample:
    """Keeps every n-th row of the chunks, and the hashes of all rows."""

    def __init__(self) -> None:
        self._every = 1
        self._kept: list[pd.DataFrame] = []
        self._hashes: list[NDArray[np.uint64]] = []
        self.rows = 0

    def passing(self, chunks: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        """The chunks, each added."""
        for chunk in chunks:
            self.add(chunk)
            yield chunk

    def add(self, chunk: pd.DataFrame) -> None:
        """Add a chunk of all columns."""
        if self.rows < _MOST_HASHED:
            # A column may be integers in one chunk and floats in the next.
            alike = chunk.astype({name: np.float64 for name in chunk.columns if chunk[name].dtype.kind in "iuf"})
            self._hashes.append(pd.util.hash_pandas_object(alike, index=False).to_numpy().astype(np.uint64))
        chunk = chunk.set_axis(pd.RangeIndex(self.rows, self.rows + len(chunk)))
        self.rows += len(chunk)
        self._kept.append(chunk[chunk.index % self._every == 0])
        most = max(_LEAST_SAMPLE, min(_SAMPLE, _CELLS // max(1, chunk.shape[1])))
        while sum(map(len, self._kept)) > 2 * most:
            self._every *= 2
            self._kept = [part[part.index % self._every == 0] for part in self._kept]

    def sheet(self, columns: Sequence[Column]) -> Sheet:
        """What the sample shows of the ``columns``."""
        hashes = np.concatenate(self._hashes) if self._hashes else np.zeros(0, dtype=np.uint64)
        equal = len(hashes) - len(np.unique(hashes))
        return Sheet(equal, tuple(_pairs(pd.concat(self._kept), columns, self.rows) if self.rows >= _FEW_LEVELS else ()))


def _pairs(rows: pd.DataFrame, columns: Sequence[Column], total: int) -> list[Pair]:
    rows.columns = rows.columns.map(str)
    varied = [column for column in columns if column.distinct > 1]
    numbers = [column for column in varied if rows[column.name].dtype.kind in "iuf"][:_MOST_NUMBERS]
    words = [column for column in varied if column.kind == "categorical" and column.distinct <= _FEW_LEVELS][:_MOST_WORDS]
    codes = {column.name: pd.factorize(rows[column.name])[0] for column in words}
    ranks = np.stack([_ranks(rows[column.name]) for column in numbers], axis=1) if numbers else np.zeros((len(rows), 0))
    found = [
        *_of_numbers(ranks, numbers, total),
        *(pair for word in words for pair in _of_numbers_and_word(ranks, numbers, word, codes[word.name], total)),
        *_of_words(words, codes),
    ]
    return sorted(found, key=lambda pair: -pair.strength)[:_MOST_PAIRS]


def _ranks(values: pd.Series[Any]) -> NDArray[np.float64]:
    """Standardized ranks; the mean, 0, where missing."""
    ranks = values.astype(np.float64).rank().to_numpy()
    spread = np.nanstd(ranks)
    return np.asarray(np.nan_to_num((ranks - np.nanmean(ranks)) / (spread or 1.0)))


def _of_numbers(ranks: NDArray[np.float64], columns: Sequence[Column], total: int) -> list[Pair]:
    correlation = np.abs(ranks.T @ ranks) / len(ranks)
    ids = np.array([column.like_id(total) for column in columns], dtype=bool)
    limit = np.where(ids[:, None] | ids[None], _ID, NEAR)
    pairs = np.argwhere(np.triu(correlation >= limit, k=1))
    return [
        Pair(columns[a].name, columns[b].name, f"rank correlation {correlation[a, b]:.3f}", float(correlation[a, b]))
        for a, b in pairs.tolist()
    ]


def _of_numbers_and_word(
    ranks: NDArray[np.float64], columns: Sequence[Column], word: Column, codes: NDArray[np.int64], total: int
) -> list[Pair]:
    groups = np.eye(codes.max() + 2)[codes]  # −1, missing, is the last
    sizes = np.maximum(groups.sum(axis=0), 1.0)
    means = (groups.T @ ranks) / sizes[:, None]
    explained = (sizes[:, None] * means**2).sum(axis=0) / np.maximum((ranks**2).sum(axis=0), 1e-9)
    found = []
    for column, share in zip(columns, explained.tolist(), strict=True):
        if share >= (_ID if column.like_id(total) else NEAR):
            found.append(Pair(column.name, word.name, f"the one explains {share:.1%} of the other's ranks", share))
    return found


def _of_words(columns: Sequence[Column], codes: dict[str, NDArray[np.int64]]) -> list[Pair]:
    found = []
    for place, first in enumerate(columns):
        for second in columns[place + 1 :]:
            a, b = codes[first.name], codes[second.name]
            both = len(np.unique(a.astype(np.int64) * (_FEW_LEVELS + 2) + b))
            if both == len(np.unique(a)) == len(np.unique(b)):
                found.append(Pair(first.name, second.name, "the same categories under other names", 1.0))
    return found
