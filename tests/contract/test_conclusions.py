"""Searches that are concluded before their budget is spent."""

from __future__ import annotations

import pytest

from service.errors import LeaseLost
from service.store import Store, StudyState
from tests.contract.test_trials import complete, proposals, started


def test_no_further_trial_starts_and_running_ones_are_finished(store: Store) -> None:
    lease = started(store, budget={"trials": 10})
    trials = store.trials.ask(lease, proposals(3))
    store.trials.record(lease, [], [complete(trials[0])])
    store.conclusions.conclude(lease, "concluded: enough")
    assert store.trials.ask(lease, proposals(5)) == []
    study = store.studies.get(lease.study_id)
    assert (study.state, study.budget_trials, study.reason) == (StudyState.RUNNING, 3, "concluded: enough")
    store.trials.record(lease, [], [complete(trial) for trial in trials[1:]])
    assert store.studies.get(lease.study_id).state is StudyState.FINALIZING
    final = store.leases.claim("worker", 60)
    assert final is not None
    store.studies.finish(final, {"verdict": "good"})
    study = store.studies.get(lease.study_id)
    assert (study.state, study.reason) == (StudyState.FINISHED, "concluded: enough")
    assert store.conclusions.get(lease.study_id) == {"reason": "concluded: enough", "trials": 3, "budget": 10}


def test_a_search_without_running_trials_is_finalized_at_once(store: Store) -> None:
    lease = started(store, budget={"trials": 10})
    (trial,) = store.trials.ask(lease, proposals(1))
    store.trials.record(lease, [], [complete(trial)])
    store.conclusions.conclude(lease, "enough")
    assert store.studies.get(lease.study_id).state is StudyState.FINALIZING


def test_extending_a_concluded_study_continues_its_search(store: Store) -> None:
    lease = started(store, budget={"trials": 10})
    trials = store.trials.ask(lease, proposals(2))
    store.conclusions.conclude(lease, "enough")
    store.studies.extend(lease.study_id, trials=5)
    assert store.conclusions.get(lease.study_id) is None
    assert len(trials) + len(store.trials.ask(lease, proposals(20))) == 7


def test_concluding_needs_a_lease_and_does_nothing_after_the_budget_is_spent(store: Store) -> None:
    lease = started(store, budget={"trials": 2})
    store.trials.ask(lease, proposals(2))
    store.conclusions.conclude(lease, "too late")
    assert store.conclusions.get(lease.study_id) is None
    store.leases.release(lease)
    with pytest.raises(LeaseLost):
        store.conclusions.conclude(lease, "gone")
