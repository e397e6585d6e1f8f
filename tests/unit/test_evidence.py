"""Searches that begin with the trials of earlier studies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from service.errors import InvalidInput
from service.search import Evidence, Past, Search, drawn_at_random
from service.search.evidence import COMPARED, MOST_BAD, MOST_GOOD
from service.spec import StudySpec
from tests.unit.test_whole_studies import Bench

SPACE = {"preset": "off", "lr": {"low": 1e-4, "high": 1.0, "log": True}, "dropout": {"low": 0.0, "high": 0.9}}


def spec(**parts: Any) -> StudySpec:
    raw = {"data": {"dataset": "diabetes"}, "space": SPACE, "search_from": [1], **parts}
    return StudySpec.model_validate(raw).resolved("regression")


def loss(params: Any) -> float:
    return float((params["dropout"] - 0.3) ** 2 + (params["lr"] ** 0.25 - 0.4) ** 2)


def past(made: StudySpec, n: int, unit: float = 1.0) -> list[Past]:
    """Random trials of the same problem with values in another unit."""
    random = Search(made.model_copy(update={"sampler": spec(sampler="random", search_from=[]).sampler}), seed=9)
    return [Past(params, True, 1000.0 + unit * loss(params), 5) for params, _ in random.propose(n)]


def test_earlier_trials_count_by_their_rank() -> None:
    trials = [Past({"lr": 0.01 * i, "dropout": 0.1}, i < 30, float(i if i < 30 else -i), i) for i in range(1, 41)]
    found = Evidence.of(spec(), [trials, [Past({"lr": 0.5}, True, 1e9, 3)]])
    assert [each["lr"] for each in found.good] == pytest.approx([0.01, 0.02, 0.03, 0.04, 0.5])
    # Pruned trials are worse than complete ones, whatever their values; those pruned last are the better ones.
    assert [each["lr"] for each in found.bad][-3:] == pytest.approx([0.32, 0.31, 0.30])


def test_what_a_study_cannot_take_is_left_out() -> None:
    made = spec(space={**SPACE, "lr": {"low": 0.1, "high": 1.0}, "normalization": ["none", "layer"]})
    given = {"lr": 0.05, "dropout": 0.5, "normalization": "batch", "momentum": 0.9}
    (only,) = Evidence.of(made, [[Past(given, True, 1.0, 1)]]).good
    assert only == {"dropout": 0.5}
    (more,) = Evidence.of(made, [[Past({"lr": 0.5, "normalization": "layer"}, True, 1.0, 1)]]).good
    assert more == {"lr": 0.5, "normalization": "layer"}


def test_large_studies_give_no_more_than_small_ones_can_bear() -> None:
    trials = [Past({"lr": 0.5}, True, float(value), 1) for value in range(5000)]
    found = Evidence.of(spec(), [trials])
    assert len(found.good) == MOST_GOOD
    assert len(found.bad) <= MOST_BAD
    assert not len(Evidence.of(spec(), [[], [Past({"lr": 0.5}, True, float("nan"), 1)]]))


def test_every_second_of_the_first_trials_is_drawn_at_random() -> None:
    made = spec(enqueue=[{"lr": 0.1}, {"lr": 0.2}])
    kinds = [drawn_at_random(made, number) for number in range(2 + 2 * COMPARED + 3)]
    assert kinds == [None, None, *[False, True] * COMPARED, None, None, None]
    assert drawn_at_random(spec(search_from=[]), 1) is None
    search, again = Search(made, seed=1), Search(made, seed=2)
    planned = [search.planned(number) for number in range(40)]
    known = [drawn is not None for drawn in planned]
    assert known[: len(kinds)] == [number < 2 or kind is True for number, kind in enumerate(kinds)]
    assert not any(known[len(kinds) :])
    assert planned == [again.planned(number) for number in range(40)]


def test_the_first_trials_are_better_than_random_ones() -> None:
    """Over ten searches, with the earlier study's values in another unit and far off."""
    made = spec()
    informed: list[float] = []
    random: list[float] = []
    for seed in range(10):
        search = Search(made, seed=seed, evidence=Evidence.of(made, [past(made, 150, unit=1e6)]))
        batch = search.propose(2 * COMPARED)
        search.adopt(range(2 * COMPARED))
        for number, (params, _) in enumerate(batch):
            planned = search.planned(number)
            assert (planned is not None) == drawn_at_random(made, number)
            (informed if planned is None else random).append(loss(params if planned is None else planned[0]))
    assert np.median(informed) < 0.5 * np.median(random)


def test_a_search_with_evidence_repeats() -> None:
    made = spec()
    evidence = Evidence.of(made, [past(made, 60)])
    one, two = (Search(made, seed=4, evidence=evidence).propose(12) for _ in range(2))
    assert one == two
    assert one != Search(made, seed=4).propose(12)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"sampler": "random"}, "sampler random"),
        ({"also": ["mae"], "pruner": "none"}, "one objective only"),
        ({"search_from": [2, 2]}, "a study twice"),
    ],
)
def test_what_it_cannot_do_is_refused(parts: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        spec(**parts)


def test_a_study_begins_with_another_ones_trials(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    try:
        earlier = bench.run(budget={"trials": 20, "epochs": 3})
        later = bench.run(search_from=[earlier.id], metric="log_loss", seed=3, budget={"trials": 20, "epochs": 3})
        assert later.state == "finished", later.reason
        assert later.result is not None
        found = later.result["warm_start"]
        assert found["studies"] == [earlier.id]
        assert (found["informed_trials"], found["random_trials"]) == (COMPARED, COMPARED)
        trials, _ = bench.store.history.page(later.id)
        for name, odd in (("informed", 0), ("random", 1)):
            values = [trial.value for trial in trials if trial.number < 2 * COMPARED and trial.number % 2 == odd]
            assert found[name] == pytest.approx(np.median(np.array(values, dtype=float)))
        for study_id, why in ((99, "there is no study 99"), (later.id + 1, "there is no study")):
            with pytest.raises(InvalidInput, match=why):
                bench.submit(search_from=[study_id])
        open_one, _ = bench.submit()
        with pytest.raises(InvalidInput, match="not finished"):
            bench.submit(search_from=[earlier.id, open_one.id])
        with pytest.raises(InvalidInput, match="other settings only: lr"):
            bench.submit(search_from=[earlier.id], space={"preset": "off", "dropout": {"low": 0.1, "high": 0.5}})
    finally:
        bench.store.close()
