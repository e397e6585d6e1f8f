"""Splits: groups, times, repeats, unequal units, and data that is too small for any."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

import workers.data
from service.errors import TrialError
from service.spec import ValidationSpec
from workers.data import Division, RawTable, Split, divide_all, split_rows
from workers.data.units import copies, joined
from workers.plain.update import balanced


def table(rows: int = 200, classes: int = 2, seed: int = 0) -> RawTable:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"a": rng.normal(size=rows), "b": rng.normal(size=rows)})
    target = rng.choice(classes, rows, p=None if classes > 2 else [0.7, 0.3]).astype(np.int64)
    labels = tuple(str(label) for label in range(classes))
    return RawTable(frame, target, "classification", labels, row_hashes=np.arange(rows, dtype=np.uint64))


def parts(split: Split, rows: int, fold: int = 0) -> np.ndarray:
    """(rows,) 0 for training, 1 for validation, 2 for test rows."""
    where = np.zeros(rows, dtype=int)
    where[split.folds[fold][1]], where[split.test] = 1, 2
    return where


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("folds", [None, 3])
def test_groups_are_never_divided(seed: int, folds: int | None) -> None:
    rng = np.random.default_rng(seed)
    groups = rng.integers(-1, 25, 400).astype(np.int64)
    grouped = replace(table(400, seed=seed), groups=groups)
    split = split_rows(grouped, Division(seed, folds=folds))
    for fold in range(len(split.folds)):
        where = parts(split, 400, fold)
        assert all(len(set(where[groups == group])) == 1 for group in range(25))
        covered = np.concatenate([*split.folds[fold], split.test])
        assert sorted(covered) == list(range(400))
    assert len(split.test) == pytest.approx(80, abs=20)


@pytest.mark.parametrize("repeats", [1, 2])
def test_folds_of_all_rows_leave_none_out_and_divide_no_group(repeats: int) -> None:
    groups = np.random.default_rng(0).integers(-1, 25, 400).astype(np.int64)
    grouped = replace(table(400), groups=groups)
    asked = ValidationSpec(method="kfold", folds=4, repeats=repeats)
    folds = divide_all(grouped, asked, seed=1)
    assert len(folds) == 4 * repeats
    for train, valid in folds:
        assert sorted([*train, *valid]) == list(range(400))
        assert set(groups[train]) & set(groups[valid]) <= {-1}
    for first in range(0, len(folds), 4):
        assert sorted(row for _, valid in folds[first : first + 4] for row in valid) == list(range(400))
    with pytest.raises(TrialError, match="too few for 4 folds"):
        divide_all(replace(table(400), groups=groups % 2), asked, seed=1)


def test_copies_join_the_groups_that_they_lie_in() -> None:
    hashes = np.array([1, 2, 1, 3, 4, 4, 5], dtype=np.uint64)
    groups = np.array([0, 0, 1, 2, -1, 2, -1])
    units = joined(copies(hashes), groups)
    assert units.owner.tolist() == [0, 0, 0, 1, 1, 1, 2]
    assert units.sizes.tolist() == [3, 3, 1]
    assert units.rows(np.array([1, 2])).tolist() == [3, 4, 5, 6]


def test_unequal_units_still_give_the_wanted_share_of_rows() -> None:
    rng = np.random.default_rng(0)
    hashes = np.repeat(np.arange(120), rng.integers(1, 30, 120)).astype(np.uint64)
    rows = len(hashes)
    copied = replace(table(rows), row_hashes=hashes)
    shares = np.array([len(split_rows(copied, Division(seed)).test) / rows for seed in range(20)])
    assert shares == pytest.approx(0.2, abs=0.02)


@pytest.mark.parametrize("seed", range(10))
def test_equal_units_are_cut_to_the_row_in_every_stratum(seed: int) -> None:
    made = table(503, classes=4, seed=seed)
    split = split_rows(made, Division(seed, test_fraction=0.15, valid_fraction=0.25))
    assert abs(len(split.test) - 0.15 * 503) <= 1
    assert abs(len(split.folds[0][1]) - 0.25 * 503) <= 1
    for label in range(4):
        assert abs((made.target[split.test] == label).sum() - 0.15 * (made.target == label).sum()) <= 1.5


def test_later_rows_validate_what_earlier_rows_trained() -> None:
    rng = np.random.default_rng(0)
    times = rng.permutation(300).astype(float)
    timed = replace(table(300), times=times)
    split = split_rows(timed, Division(0))
    train, valid = split.folds[0]
    assert times[train].max() < times[valid].min() <= times[valid].max() < times[split.test].min()
    assert (len(train), len(valid), len(split.test)) == (180, 60, 60)
    folded = split_rows(timed, Division(0, folds=4))
    assert [len(train) for train, _ in folded.folds] == [48, 96, 144, 192]
    for train, valid in folded.folds:
        assert times[train].max() < times[valid].min() < times[folded.test].min()


def test_rows_of_one_time_stay_together_and_copies_go_with_the_last() -> None:
    times = np.repeat(np.arange(10), 10).astype(float)
    hashes = np.arange(100, dtype=np.uint64)
    hashes[99] = hashes[0]
    split = split_rows(
        replace(table(100), times=times, row_hashes=hashes), Division(0, test_fraction=0.25, valid_fraction=0.2)
    )
    where = parts(split, 100)
    assert where[0] == where[99] == 2
    assert all(len(set(where[times == time][1:-1])) == 1 for time in range(10))


def test_repeats_divide_anew_behind_one_test_part() -> None:
    made = table()
    once = split_rows(made, Division(3, folds=4))
    thrice = split_rows(made, Division(3, folds=4, repeats=3))
    assert len(thrice.folds) == 12
    np.testing.assert_array_equal(thrice.test, once.test)
    for (a, _), (b, _) in zip(thrice.folds, once.folds, strict=False):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(thrice.folds[0][1], thrice.folds[4][1])
    holdouts = split_rows(made, Division(3, repeats=5))
    assert len({tuple(valid) for _, valid in holdouts.folds}) == 5


@pytest.mark.parametrize("hashes", [np.zeros(50), np.arange(50) // 25, np.arange(50) % 13])
def test_too_few_distinct_rows_are_an_error_of_the_data(hashes: np.ndarray) -> None:
    plan = Division(0, folds=20)
    made = replace(table(50), row_hashes=hashes.astype(np.uint64))
    if len(np.unique(hashes)) == 2:  # 25 rows each: see the next test
        assert len(split_rows(made, Division(0)).test) == 10
    else:
        with pytest.raises(TrialError, match="too few"):
            split_rows(made, plan)
    with pytest.raises(TrialError, match="too few"):
        split_rows(replace(table(50), times=np.ones(50)), plan)


@pytest.mark.parametrize("plan", [Division(0), Division(1, folds=5)])
def test_rows_of_few_combinations_are_no_copies_of_each_other(plan: Division) -> None:
    """As in a table of two treatments, or of sex, age group and class: every part has every combination."""
    kinds = np.arange(400) % 5
    split = split_rows(replace(table(400), row_hashes=kinds.astype(np.uint64)), plan)
    assert split.duplicates == 395
    for part in (split.test, *(valid for _, valid in split.folds)):
        assert set(kinds[part]) == set(range(5))
        assert len(part) == pytest.approx(400 * 0.2, abs=20)


def test_many_classes_of_two_rows_can_be_folded() -> None:
    made = replace(table(60), target=np.arange(60) // 2, labels=tuple(map(str, range(30))))
    assert len(split_rows(made, Division(0, folds=5)).folds) == 5


def test_only_the_locked_module_reads_test_rows() -> None:
    reading = {
        path.name
        for path in Path(str(workers.data.__file__)).parent.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr == "test"
    }
    assert reading == {"locked.py"}


def test_class_weights_are_scikit_learns() -> None:
    target = np.array([0] * 70 + [1] * 25 + [3] * 5)
    expected = compute_class_weight("balanced", classes=np.array([0, 1, 3]), y=target)
    weights = balanced(torch.from_numpy(target), 5).numpy()
    np.testing.assert_allclose(weights[[0, 1, 3]], expected, rtol=1e-6)
    assert weights[[2, 4]].tolist() == [1.0, 1.0]
    assert weights[target].mean() == pytest.approx(1.0)


@pytest.mark.parametrize("seed", range(20))
def test_a_group_larger_than_a_part_trains(seed: int) -> None:
    groups = np.where(np.arange(200) < 100, 0, np.arange(200)).astype(np.int64)
    split = split_rows(replace(table(200), groups=groups), Division(seed))
    assert parts(split, 200)[0] == 0
    assert len(split.test) == pytest.approx(40, abs=1)
