"""Stock Optuna and our own readers see the same values as if Optuna had written them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from service.errors import InvalidInput, LeaseLost, NotFound
from service.store import Store
from service.store.records import Proposal, Report, TrialResult
from tests.contract.conftest import a_spec
from tests.contract.test_trials import complete, expire, proposals, started

SPACE: dict[str, Any] = {
    "lr": FloatDistribution(1e-5, 1e-1, log=True),
    "dropout": FloatDistribution(0.0, 0.8, step=0.1),
    "layers": IntDistribution(1, 9, step=2),
    "width": IntDistribution(8, 512, log=True),
    "norm": CategoricalDistribution(("none", "batch", None, True, 3, 0.5)),
}
PARAMS: dict[str, Any] = {"lr": 0.003, "dropout": 0.3, "layers": 5, "width": 64, "norm": None}
STEPS = {0: 3.0, 1: math.inf, 2: -math.inf, 3: math.nan, 7: 1.25}


def written_by_optuna(store: Store) -> optuna.trial.FrozenTrial:
    """The same trial, asked, reported and told through Optuna's own storage."""
    storage = store.optuna_storage()
    study = optuna.create_study(study_name="stock", storage=storage, direction="minimize")
    study.enqueue_trial(PARAMS)
    trial = study.ask(SPACE)
    for step, value in STEPS.items():
        trial.report(value, step)
    trial.set_user_attr("stop_reason", "converged")
    trial.set_user_attr("stack", {"lanes": 8, "key": ["mlp", 64]})
    study.tell(trial, 1.25)
    return study.trials[0]


def test_a_trial_is_read_as_if_optuna_had_written_it(store: Store) -> None:
    lease = started(store, name="ours")
    (trial,) = store.trials.ask(lease, [Proposal(PARAMS, SPACE)])
    attrs = {"stack": {"lanes": 8, "key": ["mlp", 64]}}
    result = TrialResult(trial.id, "complete", 1.25, 7, "converged", 8, {"rmse": [1.25]}, attrs)
    store.trials.record(lease, [Report(trial.id, step, value) for step, value in STEPS.items()], [result])
    mine = optuna.load_study(study_name="ours", storage=store.optuna_storage()).trials[0]
    stock = written_by_optuna(store)
    for name in ("number", "state", "value", "values", "params", "distributions", "user_attrs"):
        assert getattr(mine, name) == getattr(stock, name), name
    assert repr(mine.intermediate_values) == repr(stock.intermediate_values)  # as text, in which NaN equals NaN
    assert mine.last_step == 7
    before = datetime.now(UTC).replace(tzinfo=None) - timedelta(minutes=1)
    assert mine.datetime_start is not None
    assert mine.datetime_complete is not None
    assert before < mine.datetime_start <= mine.datetime_complete < before + timedelta(minutes=2)


def test_we_read_what_was_reported(store: Store) -> None:
    lease = started(store)
    (trial,) = store.trials.ask(lease, [Proposal(PARAMS, SPACE)])
    store.trials.record(lease, [Report(trial.id, step, value) for step, value in STEPS.items()], [])
    record = store.history.trial(lease.study_id, 0)
    assert record.curve is not None
    assert repr(record.curve["rmse"]) == repr(list(STEPS.values()))
    assert (record.state, dict(record.params)) == ("running", PARAMS)


@pytest.mark.parametrize(("value", "read"), [(math.inf, math.inf), (-math.inf, -math.inf), (0.0, 0.0), (1e300, 1e300)])
def test_values_at_the_edges(store: Store, value: float, read: float) -> None:
    lease = started(store, name="edges")
    trials = store.trials.ask(lease, proposals(2))
    store.trials.record(lease, [], [complete(trials[0], value), complete(trials[1], 2.0)])
    study = optuna.load_study(study_name="edges", storage=store.optuna_storage())
    assert study.trials[0].value == read
    assert store.history.trial(lease.study_id, 0).value == read
    best = store.studies.get(lease.study_id).best
    assert best is not None
    assert best.number == study.best_trial.number


@pytest.mark.parametrize("state", ["pruned", "fail"])
def test_a_value_that_is_no_number_is_none(store: Store, state: str) -> None:
    lease = started(store)
    (trial,) = store.trials.ask(lease, proposals(1))
    store.trials.record(lease, [], [TrialResult(trial.id, state, math.nan, None, "not finite", 1)])  # type: ignore[arg-type]
    assert store.history.trial(lease.study_id, 0).value is None


def test_the_best_trial_follows_the_direction(store: Store) -> None:
    values = (0.5, 0.9, 0.9, 0.7)
    expected = {"rmse": ("minimize", 0), "r2": ("maximize", 1)}
    for metric, (direction, number) in expected.items():
        lease = started(store, metric=metric)
        trials = store.trials.ask(lease, proposals(4))
        for trial, value in zip(trials, values, strict=True):
            store.trials.record(lease, [], [complete(trial, value)])
        record = store.studies.get(lease.study_id)
        assert record.direction == direction
        assert record.best is not None
        assert (record.best.number, record.best.value) == (number, values[number])
        store.studies.cancel(lease.study_id)


def test_failures_that_no_worker_told_have_their_reason_in_optuna_too(store: Store) -> None:
    lease = started(store, name="failed", budget={"trials": 3, "max_retries": 0})
    store.trials.ask(lease, proposals(1))
    expire(store, lease)
    again = store.leases.claim("other", 60)
    assert again is not None
    store.trials.ask(again, proposals(2))
    store.studies.cancel(again.study_id)
    read = optuna.load_study(study_name="failed", storage=store.optuna_storage()).trials
    assert [trial.user_attrs["stop_reason"] for trial in read] == ["worker lost", "cancelled", "cancelled"]
    assert all(trial.datetime_complete is not None for trial in read)


def test_misuse_is_refused_before_anything_is_written(store: Store) -> None:
    lease = started(store)
    trials = store.trials.ask(lease, proposals(2))
    wrong: Mapping[str, list[TrialResult]] = {
        "needs a value": [complete(trials[0]), TrialResult(trials[1].id, "complete", None, None, "converged", 1)],
        "a complete trial": [complete(trials[0], math.nan)],
        "told only once": [complete(trials[0]), complete(trials[0])],
    }
    for words, results in wrong.items():
        with pytest.raises(InvalidInput, match=words):
            store.trials.record(lease, [], results)
    assert store.studies.get(lease.study_id).counts.finished == 0


def test_a_trial_of_another_lease_can_not_be_written(store: Store) -> None:
    first = started(store)
    second = store.leases.claim("second", 60)
    assert second is not None
    (mine,), (other,) = store.trials.ask(first, proposals(1)), store.trials.ask(second, proposals(1))
    with pytest.raises(LeaseLost, match="do not run under it"):
        store.trials.record(first, [Report(mine.id, 0, 1.0), Report(other.id, 0, 1.0)], [complete(other)])
    assert store.history.trial(first.study_id, mine.number).curve == {}
    store.trials.record(second, [], [complete(other)])
    with pytest.raises(LeaseLost, match="do not run under it"):
        store.trials.record(first, [], [complete(other, 0.0)])
    assert store.history.trial(first.study_id, other.number).value == 1.0


def test_counts_over_all_studies(store: Store) -> None:
    lease = started(store)
    trials = store.trials.ask(lease, proposals(3))
    store.trials.record(lease, [], [complete(trials[0])])
    queued = store.studies.submit(a_spec())
    assert store.history.trials_of_all() == {"waiting": 0, "running": 2, "complete": 1, "pruned": 0, "fail": 0}
    budgets = {study: store.studies.get(study).budget_trials for study in (lease.study_id, queued)}
    assert store.studies.open_trials() == {**budgets, lease.study_id: budgets[lease.study_id] - 1}
    assert store.leases.lost() == 0
    expire(store, lease)
    store.leases.reap()
    assert store.history.trials_of_all()["waiting"] == 2
    assert store.leases.lost() == 1


def test_accesses_belong_to_a_study(store: Store) -> None:
    with pytest.raises(NotFound, match="study 99"):
        store.studies.open_test(99, "worker 1", "final score")
