"""Which rows train, validate and test: fixed by the study's seed, stratified by class, copies of a row kept together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold

from service.spec import ValidationSpec
from workers.data.table import RawTable

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Row numbers. ``folds`` has one (train, valid) pair for a holdout; ``test`` is for `workers.data.locked` alone.

    ``duplicates`` counts rows that repeat an earlier row's features; they are on the side of the first.
    """

    folds: tuple[tuple[Rows, Rows], ...]
    test: Rows
    duplicates: int


def make_split(table: RawTable, validation: ValidationSpec, seed: int) -> Split:
    """Lock the test part away first, then divide the rest.

    Distinct rows are divided; each copy follows its original, so no part holds a row that another has trained on.
    """
    first, owner = _first_of_each(table.row_hashes)
    strata = _strata(table, first)
    rng = np.random.default_rng(seed)
    test_part, rest = _cut(np.arange(len(first)), strata, validation.test_fraction, rng)
    if validation.method == "holdout":
        share = validation.valid_fraction / (1.0 - validation.test_fraction)
        valid, train = _cut(rest, strata[rest], share, rng)
        pairs = [(train, valid)]
    else:
        cutter = StratifiedKFold(validation.folds, shuffle=True, random_state=seed)
        pairs = [(rest[a], rest[b]) for a, b in cutter.split(rest, _frequent(strata[rest], validation.folds))]

    def rows_of(units: Rows) -> Rows:
        chosen = np.zeros(len(first), dtype=bool)
        chosen[units] = True
        return np.flatnonzero(chosen[owner]).astype(np.int64)

    folds = tuple((rows_of(train), rows_of(valid)) for train, valid in pairs)
    return Split(folds, rows_of(test_part), int(table.rows - len(first)))


def _first_of_each(hashes: NDArray[np.uint64]) -> tuple[Rows, Rows]:
    """The first row of every group of copies, and for every row the index of its group."""
    _, first, owner = np.unique(hashes, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return first[order].astype(np.int64), rank[owner].astype(np.int64)


def _strata(table: RawTable, first: Rows) -> NDArray[np.int64]:
    """The class of every distinct row; quintiles of a regression's target, so that its tails are in every part."""
    target = table.target[first]
    if table.task == "classification":
        return target.astype(np.int64)
    edges = np.quantile(target, [0.2, 0.4, 0.6, 0.8])
    return np.searchsorted(edges, target).astype(np.int64)


def _cut(rows: Rows, strata: NDArray[Any], share: float, rng: np.random.Generator) -> tuple[Rows, Rows]:
    """Divide rows in two, ``share`` of every stratum in the first part; sizes are right to a row over all strata.

    Rows are shuffled within their stratum and laid out one stratum behind the other; every 1/share-th row is taken.
    A class too rare for both parts falls where that grid falls, so it needs no special case.
    """
    shuffled = rng.permutation(len(rows))
    order = shuffled[np.argsort(strata[shuffled], kind="stable")]
    offset = rng.random()
    taken = np.floor((np.arange(len(rows)) + 1) * share + offset) > np.floor(np.arange(len(rows)) * share + offset)
    return np.sort(rows[order[taken]]), np.sort(rows[order[~taken]])


def _frequent(strata: NDArray[np.int64], folds: int) -> NDArray[np.int64]:
    """Strata with those of fewer rows than folds, which can't be in every fold, counted to the most frequent one."""
    values, counts = np.unique(strata, return_counts=True)
    rare = values[counts < folds]
    return np.where(np.isin(strata, rare), values[counts.argmax()], strata)
