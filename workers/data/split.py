"""Splitting rows into training, validation and test: fixed by the seed, stratified by class, copies kept together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from service.errors import TrialError
from service.spec import ValidationSpec
from workers.data.table import RawTable
from workers.data.units import Indices, Units, copies, joined

_REPEAT_SEEDS = 1_000_003
_COPIES = 4
"""Of every distinct row on average, above which equal rows are a matter of few columns of few values, not of copying."""


@dataclass(frozen=True)
class Split:
    """Row indices. ``folds`` has one (train, valid) pair for a holdout; ``test`` is for `workers.data.locked` alone.

    ``duplicates`` is the number of rows that repeat an earlier row's features; they are in the same part as the first,
    unless nearly all rows are such.
    """

    folds: tuple[tuple[Indices, Indices], ...]
    test: Indices
    duplicates: int


@dataclass(frozen=True)
class Division:
    """How to split: fractions are of all rows; ``folds`` None is a holdout; ``repeats`` splits the non-test rows again.

    ``given`` uses the test part, and the validation part if there is one, that the data itself defines.
    """

    seed: int
    test_fraction: float = 0.2
    valid_fraction: float = 0.2
    folds: int | None = None
    repeats: int = 1
    given: bool = False

    @property
    def valid_share(self) -> float:
        """Share of validation rows among the rows outside the test part."""
        return self.valid_fraction / (1.0 - self.test_fraction)


def make_split(table: RawTable, validation: ValidationSpec, seed: int, *, given: bool = False) -> Split:
    """Split as a study's spec requires; if ``given``, as the table itself does. See `split_rows`.

    Raises:
        TrialError: The table's own split has no test rows, or a part would be empty.
    """
    given = given or validation.given
    if given and (table.part is None or not (table.part == 2).any()):
        raise TrialError("the data's own split has no test part: no row is marked as test")
    folds = validation.folds if validation.method == "kfold" else None
    fractions = validation.test_fraction, validation.valid_fraction
    return split_rows(table, Division(seed, *fractions, folds, validation.repeats, given))


def split_rows(table: RawTable, plan: Division) -> Split:
    """Set the test part aside first, then split the other rows.

    Distinct rows are split, stratified by class; copies follow their original, so that no part has a row that another
    trains on. Where there are only a few combinations of features, equal rows are observations of their own instead: one
    part would otherwise get whole combinations that no other has. Groups are kept whole. With times, earlier rows train
    and later rows validate and test; a unit belongs to the part of its last row.

    Raises:
        TrialError: A part would be empty, because there are too few distinct rows, groups or times.
    """
    whole, duplicates = _units(table)
    if table.times is not None:
        folds, test = _ordered(whole, table.times, plan)
    else:
        folds, test = _shuffled(table, whole, plan)
    _refuse_empty(folds, test, whole)
    pairs = tuple((whole.rows(train), whole.rows(valid)) for train, valid in folds)
    return Split(pairs, whole.rows(test), duplicates)


def nested_splits(table: RawTable, validation: ValidationSpec, seed: int) -> tuple[Split, ...]:
    """The splits of the searches of nested validation, by the rules of `split_rows` for k folds.

    Returns:
        First that of all rows, without test rows; then one for each outer fold, with the rows inside as test rows.

    Raises:
        TrialError: There are fewer distinct rows or groups than folds.
    """
    units, duplicates = _units(table)
    strata, everything = _strata(table, units.first), np.arange(len(units.first))
    outer = Division(seed, folds=validation.outer_folds)
    inner = Division(seed, folds=validation.folds, repeats=validation.repeats)
    parts = [(everything, everything[:0]), *_repeated(table, units, everything, strata, outer)]
    splits = []
    for rest, test in parts:
        folds = _repeated(table, units, rest, strata, inner)
        pairs = tuple((units.rows(train), units.rows(valid)) for train, valid in folds)
        splits.append(Split(pairs, units.rows(test), duplicates))
    return tuple(splits)


def divide_all(table: RawTable, validation: ValidationSpec, seed: int) -> tuple[tuple[Indices, Indices], ...]:
    """Folds of all rows with no test part, by the rules of `split_rows` for k folds without times.

    Raises:
        TrialError: There are fewer distinct rows or groups than folds.
    """
    units, _ = _units(table)
    plan = Division(seed, folds=validation.folds, repeats=validation.repeats)
    everything = np.arange(len(units.first))
    pairs = _repeated(table, units, everything, _strata(table, units.first), plan)
    return tuple((units.rows(train), units.rows(valid)) for train, valid in pairs)


def _units(table: RawTable) -> tuple[Units, int]:
    """What a split keeps together, and the number of rows that repeat an earlier one."""
    units = copies(table.row_hashes)
    duplicates = table.rows - len(units.first)
    if 1 < len(units.first) < table.rows / _COPIES:
        units = copies(np.arange(table.rows, dtype=np.uint64))
    return (units if table.groups is None else joined(units, table.groups)), duplicates


def _shuffled(table: RawTable, units: Units, plan: Division) -> tuple[list[tuple[Indices, Indices]], Indices]:
    strata = _strata(table, units.first)
    rng = np.random.default_rng(plan.seed)
    everything = np.arange(len(units.first))
    part = _given(table, units) if plan.given else None
    if part is not None:
        test, rest = everything[part == 2], everything[part < 2]
    else:
        test, rest = _cut(everything, strata, units.sizes, plan.test_fraction, rng)
    if part is not None and plan.folds is None and (part == 1).any():
        return [(everything[part == 0], everything[part == 1])], test
    if plan.folds is not None:
        return _repeated(table, units, rest, strata, plan), test
    pairs: list[tuple[Indices, Indices]] = []
    for _ in range(plan.repeats):
        valid, train = _cut(rest, strata[rest], units.sizes[rest], plan.valid_share, rng)
        pairs.append((train, valid))
    return pairs, test


def _repeated(
    table: RawTable, units: Units, rest: Indices, strata: Indices, plan: Division
) -> list[tuple[Indices, Indices]]:
    """Folds over the units ``rest``, divided anew for each repeat."""
    pairs: list[tuple[Indices, Indices]] = []
    for repeat in range(plan.repeats):
        own = replace(plan, seed=(plan.seed + repeat * _REPEAT_SEEDS) % 2**32)
        pairs += _folds(rest, strata[rest], units.sizes[rest], own, grouped=table.groups is not None)
    return pairs


def _strata(table: RawTable, first: Indices) -> NDArray[np.int64]:
    """The class of every unit's first row; quintiles of a regression's target, so that its tails are in every part.

    Of several labels it is the rarest value that the row has of any of them, so that rare ones are in every part; of several
    numbers quintiles of the sum of the standardized targets.
    """
    target = table.target[first]
    if table.task == "classification":
        return target.astype(np.int64)
    if table.task == "multilabel":
        return _rarest(target)
    if target.ndim == 2:
        deviations = target.std(0)
        target = ((target - target.mean(0)) / np.where(deviations > 0, deviations, 1.0)).sum(1)
    edges = np.quantile(target, [0.2, 0.4, 0.6, 0.8])
    return np.searchsorted(edges, target).astype(np.int64)


def _rarest(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """(units,) the label of labels (units, t) whose rarer value is rarest among those that the row has; t for none.

    A stratum for each is what iterative stratification begins with (Sechidis et al., "On the stratification of multi-label
    data", 2011), and fits groups and rows of several units, which that does not.
    """
    counts = labels.sum(0)
    rare = np.where(counts * 2 <= len(labels), labels, 1 - labels)
    order = np.argsort(rare.sum(0), kind="stable")
    found = rare[:, order].astype(bool)
    strata: NDArray[np.int64] = np.where(found.any(1), order[found.argmax(1)], labels.shape[1]).astype(np.int64)
    return strata


def _given(table: RawTable, units: Units) -> NDArray[np.int64] | None:
    """The part of every unit that the data defines; a unit in several parts goes to the last, so training has none of it."""
    if table.part is None or not (table.part == 2).any():
        return None
    part = np.zeros(len(units.first), dtype=np.int64)
    np.maximum.at(part, units.owner, table.part.astype(np.int64))
    return part


def _cut(
    units: Indices, strata: NDArray[Any], sizes: Indices, share: float, rng: np.random.Generator
) -> tuple[Indices, Indices]:
    """Divide units in two; the first part gets ``share`` of every stratum's rows.

    Units are shuffled within their stratum, and strata are concatenated. In this order, a unit is taken if that brings the
    number of rows taken closer to ``share`` of the rows seen. A class too rare for both parts ends up in either of them, so
    it needs no special case.
    """
    shuffled = rng.permutation(len(units))
    order = shuffled[np.argsort(strata[shuffled], kind="stable")]
    weights = sizes[order].astype(np.float64)
    wanted = np.cumsum(weights) * share
    offset = rng.random() - 0.5
    taken = np.zeros(len(units), dtype=bool)
    so_far = 0.0
    for index, (weight, goal) in enumerate(zip(weights.tolist(), wanted.tolist(), strict=True)):
        if goal + offset - so_far >= weight / 2:
            taken[index] = True
            so_far += weight
    return np.sort(units[order[taken]]), np.sort(units[order[~taken]])


def _folds(
    rest: Indices, strata: Indices, sizes: Indices, plan: Division, *, grouped: bool
) -> Sequence[tuple[Indices, Indices]]:
    """Folds over the units outside the test part; groups, whose sizes differ, are weighted by their rows."""
    count = plan.folds or 0
    if len(rest) < count:
        raise TrialError(f"{len(rest)} distinct rows or groups are too few for {count} folds")
    if not grouped:
        cutter = StratifiedKFold(count, shuffle=True, random_state=plan.seed)
        return [(rest[a], rest[b]) for a, b in cutter.split(rest, _frequent(strata, count))]
    owner = np.repeat(np.arange(len(rest)), sizes)
    by_group = StratifiedGroupKFold(count, shuffle=True, random_state=plan.seed)
    divided = by_group.split(owner, _frequent(strata[owner], count), owner)
    return [(rest[np.unique(owner[a])], rest[np.unique(owner[b])]) for a, b in divided]


def _frequent(strata: NDArray[np.int64], folds: int) -> NDArray[np.int64]:
    """Strata, with those of fewer rows than folds, which can't be in every fold, merged into the most frequent one."""
    values, counts = np.unique(strata, return_counts=True)
    if counts.max() < folds:
        return np.zeros_like(strata)
    rare = values[counts < folds]
    return np.where(np.isin(strata, rare), values[counts.argmax()], strata)


def _ordered(units: Units, times: NDArray[np.float64], plan: Division) -> tuple[list[tuple[Indices, Indices]], Indices]:
    """Consecutive parts in time; each fold trains on all blocks before the one that it validates on."""
    last = np.full(len(units.first), -np.inf)
    np.maximum.at(last, units.owner, times)
    by_row = np.sort(last[units.owner])
    develop = 1.0 - plan.test_fraction
    if plan.folds is None:
        shares = [develop - plan.valid_fraction]
    else:
        shares = [develop * block / (plan.folds + 1) for block in range(1, plan.folds + 1)]
    # Rows of one time stay together: a part begins with the first row of its time.
    cuts = [by_row[min(round(share * len(by_row)), len(by_row) - 1)] for share in (*shares, develop)]
    block = np.searchsorted(np.array(cuts), last, side="right")
    pairs = [(np.flatnonzero(block < cut), np.flatnonzero(block == cut)) for cut in range(1, len(shares) + 1)]
    return pairs, np.flatnonzero(block == len(cuts))


def _refuse_empty(folds: Sequence[tuple[Indices, Indices]], test: Indices, units: Units) -> None:
    if len(test) and all(len(train) and len(valid) for train, valid in folds):
        return
    raise TrialError(
        f"{len(units.owner)} rows ({len(units.first)} distinct rows or groups) are too few for a training, a validation "
        "and a test part"
    )
