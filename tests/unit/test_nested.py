"""Nested validation before anything is trained: what may be asked, how rows are divided, whose trial a number is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from service.api.columns import check_rows
from service.errors import InvalidInput
from service.pruning import Standing, make_judge
from service.search import Interleaved, Search
from service.spec import StudySpec, ValidationSpec
from workers.data import RawTable, nested_splits

NESTED = {"method": "nested", "folds": 3, "outer_folds": 4}
SPEC: dict[str, Any] = {"data": {"dataset": "wine"}, "validation": NESTED, "budget": {"trials": 20, "epochs": 9}}


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("validation.test_fraction", {"validation": {**NESTED, "test_fraction": 0.3}}),
        ("validation.given", {"validation": {**NESTED, "given": True}}),
        ("data.time", {"data": {"dataset": "wine", "time": "when"}}),
        ("data.split", {"data": {"dataset": "wine", "split": "part"}}),
        ("search_from", {"search_from": [1]}),
        ("model.start_from", {"model": {"start_from": 1}}),
        ("also", {"also": ["log_loss"]}),
        ("budget.conclude", {"budget": {"conclude": "on"}}),
        ("deliver.rows", {"deliver": {"rows": "train_valid"}}),
    ],
)
def test_what_does_not_fit_is_refused_by_name(field: str, changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        StudySpec.model_validate({**SPEC, **changes})
    assert [error["ctx"]["key"] for error in caught.value.errors()] == [field]


@pytest.mark.parametrize(
    ("division", "field", "allowed"),
    [({"outer_folds": 11}, "validation.outer_folds", "≤ 10"), ({"outer_folds": 2, "folds": 6}, "validation.folds", "≤ 5")],
)
def test_more_folds_than_rows_allow_are_refused(division: dict[str, int], field: str, allowed: str) -> None:
    spec = StudySpec.model_validate({**SPEC, "validation": {**NESTED, **division}})
    with pytest.raises(InvalidInput) as caught:
        check_rows(spec, 20)
    assert [(issue.field, issue.allowed) for issue in caught.value.issues] == [(field, allowed)]
    check_rows(spec, 24)


def test_trials_are_of_each_search_and_stored_specs_can_be_read_again() -> None:
    spec = StudySpec.model_validate({**SPEC, "budget": {}}).resolved("classification", 178)
    assert (spec.searches, spec.budget.trials) == (5, 100)
    assert (spec.budget.finalists, spec.budget.seeds) == (3, 3)
    assert StudySpec.model_validate(spec.model_dump(mode="json")) == spec
    assert StudySpec.model_validate({"data": {"dataset": "wine"}}).searches == 1


def table(groups: np.ndarray | None = None) -> RawTable:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(90, 2))
    hashes = np.arange(90, dtype=np.uint64)
    hashes[80:] = hashes[:10]  # copies
    return RawTable(
        pd.DataFrame(x), (x[:, 0] > 0).astype(np.int64), "classification", ("a", "b"), row_hashes=hashes, groups=groups
    )


@pytest.mark.parametrize("grouped", [False, True])
def test_every_row_is_inside_of_one_outer_fold_and_its_search_has_none_of_these(grouped: bool) -> None:
    groups = np.arange(90) // 4 if grouped else None
    rows = table(groups)
    whole, *parts = nested_splits(rows, ValidationSpec.model_validate(NESTED), seed=5)
    everything = set(range(90))
    assert len(whole.test) == 0
    assert set(np.concatenate([valid for _, valid in whole.folds])) == everything
    assert sorted(np.concatenate([part.test for part in parts])) == sorted(everything)
    for part in parts:
        inside, outside = set(part.test), everything - set(part.test)
        assert len(part.folds) == 3
        for train, valid in part.folds:
            assert set(train) | set(valid) == outside
            assert not set(train) & set(valid)
        units = [rows.row_hashes] if groups is None else [rows.row_hashes, groups]
        for unit in units:
            assert not {unit[row] for row in inside} & {unit[row] for row in outside}
        if not grouped:
            shares = [rows.target[[*some]].mean() for some in (inside, outside)]
            assert abs(shares[0] - shares[1]) < 0.1


def test_each_search_proposes_as_it_would_alone() -> None:
    spec = StudySpec.model_validate({**SPEC, "enqueue": [{"lr": 0.005}]}).resolved("classification", 178)
    seeds = [11, 12, 13, 14, 15]
    together, alone = Interleaved(spec, seeds), [Search(spec, seed=seed) for seed in seeds]
    for own in (range(1), range(1, 2), range(2, 4), range(4, 8), range(8, 16)):
        numbers = range(5 * own.start, 5 * own.stop)
        together.propose(len(numbers))
        drawn = {number: together.planned(number) for number in numbers}
        together.adopt(numbers)
        for each, search in enumerate(alone):
            proposed = search.propose(len(own))
            search.adopt([*own])
            for number, other in zip(own, proposed, strict=True):
                expected = search.planned(number) or other
                assert drawn[5 * number + each] == expected
                assert number > 0 or expected[0]["lr"] == 0.005
                value = float(expected[0]["lr"])
                together.tell(5 * number + each, "complete", value, 3, expected)
                search.tell(number, "complete", value, 3, expected)


def test_proposals_are_each_taken_once_wherever_the_numbers_begin() -> None:
    spec = StudySpec.model_validate({**SPEC, "sampler": "random"}).resolved("classification", 178)
    search = Interleaved(spec, [1, 2, 3, 4, 5])
    seen: list[float] = []
    for numbers in (range(3), range(3, 14), range(14, 16), range(16, 41)):
        search.propose(len(numbers))
        seen += [float(search.planned(number)[0]["lr"]) for number in numbers]
        search.adopt(numbers)
    assert len(set(seen[:5])) == 1  # that of the published values, in each search
    assert len(set(seen)) == len(seen) - 4 == 37


def test_trials_are_pruned_by_their_own_search() -> None:
    spec = StudySpec.model_validate({**SPEC, "pruner": {"name": "median", "startup_trials": 1, "warmup_epochs": 0}})
    judge = make_judge(spec.resolved("classification", 178))
    searches = spec.searches
    judge.remember(0, [0.9, 0.9], complete=True, judged_here=False)  # of search 0
    judge.remember(1, [0.2, 0.2], complete=True, judged_here=False)  # of search 1
    middling = [Standing(searches + search, 1, 0.5, 0.5) for search in (0, 1, 2)]
    assert judge.judge(middling) == {searches}
