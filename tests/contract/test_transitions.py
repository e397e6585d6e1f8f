"""Every transition from every state: legal ones with their effects, all others refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import text

from service.errors import Conflict, InvalidInput, LeaseLost
from service.store import Store, StudyState, sightings
from service.store.records import Report, TrialResult
from tests.clock import Clock
from tests.contract.conftest import a_spec
from tests.contract.test_trials import complete, expire, proposals, started

S = StudyState

CALLS: dict[str, Callable[[Store, int], None]] = {
    "pause": lambda store, study: store.studies.pause(study),
    "resume": lambda store, study: store.studies.resume(study),
    "cancel": lambda store, study: store.studies.cancel(study),
    "extend": lambda store, study: store.studies.extend(study, trials=2),
    "delete": lambda store, study: store.studies.delete(study),
}

# None: deleted. A call for the state that a study already has changes nothing.
LEGAL: dict[tuple[StudyState, str], StudyState | None] = {
    (S.QUEUED, "pause"): S.PAUSED,
    (S.RUNNING, "pause"): S.PAUSED,
    (S.PAUSED, "pause"): S.PAUSED,
    (S.PAUSED, "resume"): S.QUEUED,
    (S.QUEUED, "cancel"): S.CANCELLED,
    (S.RUNNING, "cancel"): S.CANCELLED,
    (S.PAUSED, "cancel"): S.CANCELLED,
    (S.FINALIZING, "cancel"): S.CANCELLED,
    (S.CANCELLED, "cancel"): S.CANCELLED,
    (S.QUEUED, "extend"): S.QUEUED,
    (S.RUNNING, "extend"): S.RUNNING,
    (S.PAUSED, "extend"): S.PAUSED,
    (S.FINISHED, "extend"): S.QUEUED,
    (S.FINISHED, "delete"): None,
    (S.CANCELLED, "delete"): None,
    (S.FAILED, "delete"): None,
}


def a_study_in(store: Store, state: StudyState) -> int:
    """A study brought to a state by ordinary calls."""
    if state is S.QUEUED:
        return store.studies.submit(a_spec())
    lease = started(store, budget={"trials": 1})
    if state in (S.FINALIZING, S.FINISHED):
        store.trials.record(lease, [], [complete(trial) for trial in store.trials.ask(lease, proposals(1))])
    if state is S.FINISHED:
        final = store.leases.claim("worker", 60)
        assert final is not None
        store.studies.finish(final, {"verdict": "good"})
    if state is S.FAILED:
        store.studies.fail(lease, "the data vanished")
    if state is S.PAUSED:
        store.studies.pause(lease.study_id)
    if state is S.CANCELLED:
        store.studies.cancel(lease.study_id)
    assert store.studies.get(lease.study_id).state is state
    return lease.study_id


@pytest.mark.parametrize("state", list(StudyState))
def test_transitions(store: Store, state: StudyState) -> None:
    for name, call in CALLS.items():
        study = a_study_in(store, state)
        before = store.studies.get(study)
        if (state, name) not in LEGAL:
            with pytest.raises(Conflict, match=f"study {study} is {state}"):
                call(store, study)
            assert store.studies.get(study).state is state
        else:
            call(store, study)
            to = LEGAL[state, name]
            found = {record.id: record for record in store.studies.list()[0]}
            assert (found[study].state if study in found else None) is to
            assert name != "extend" or found[study].budget_trials == before.budget_trials + 2
        for other in store.studies.list()[0]:
            if other.state not in (S.FINISHED, S.CANCELLED, S.FAILED):
                store.studies.cancel(other.id)


def test_times_of_the_end(store: Store) -> None:
    for state in StudyState:
        record = store.studies.get(a_study_in(store, state))
        assert (record.finished_at is not None) == (state in (S.FINISHED, S.CANCELLED, S.FAILED))
        if record.state in (S.QUEUED, S.RUNNING, S.FINALIZING):
            store.studies.cancel(record.id)


def test_a_budget_is_extended_by_at_least_one(store: Store) -> None:
    study = store.studies.submit(a_spec())
    with pytest.raises(InvalidInput, match="at least 1"):
        store.studies.extend(study, trials=0)


def test_a_study_out_of_time_is_not_extended(store: Store) -> None:
    lease = started(store, budget={"trials": 2, "seconds": 100})
    store.trials.record(lease, [], [complete(trial) for trial in store.trials.ask(lease, proposals(2))])
    final = store.leases.claim("worker", 60)
    assert final is not None
    store.studies.finish(final, {})
    let_time_pass(store)
    with pytest.raises(Conflict, match="has spent the 60 seconds of its time budget"):
        store.studies.extend(lease.study_id, trials=2)
    assert store.studies.get(lease.study_id).state is S.FINISHED


def test_a_study_whose_time_budget_ends_without_a_worker_is_finalized(store: Store) -> None:
    lease = started(store, budget={"trials": 5, "seconds": 100})
    store.trials.record(lease, [], [complete(trial) for trial in store.trials.ask(lease, proposals(1))])
    store.leases.release(lease)
    assert store.studies.get(lease.study_id).state is S.RUNNING
    let_time_pass(store)
    final = store.leases.claim("worker", 60)
    assert final is not None
    assert (final.study_id, final.phase) == (lease.study_id, "finalize")


def test_renewing_reaps_expired_leases(store: Store) -> None:
    lost = started(store)
    store.trials.ask(lost, proposals(2))
    alive = store.leases.claim("alive", 60)
    assert alive is not None
    expire(store, lost)
    assert store.leases.renew(alive, 60) is S.RUNNING
    assert [trial.attempt for trial in store.trials.ask(alive, proposals(2))] == [1, 1]


def test_renewing_tells_the_state_of_its_own_study(store: Store) -> None:
    store.studies.cancel(store.studies.submit(a_spec()))
    lease, other = started(store), started(store)
    store.studies.pause(other.study_id)
    assert store.leases.renew(lease, 60) is S.RUNNING
    assert store.leases.renew(other, 60) is S.PAUSED


def test_an_expired_lease_can_be_renewed_until_it_is_reaped(store: Store) -> None:
    lease = started(store)
    (trial,) = store.trials.ask(lease, proposals(1))
    expire(store, lease)
    assert store.leases.renew(lease, 60) is S.RUNNING
    assert store.leases.reap() == 0
    store.trials.record(lease, [], [complete(trial)])


def test_too_many_failures_delete_all_leases(store: Store) -> None:
    first = started(store, budget={"trials": 10, "max_failed_trials": 0})
    second = store.leases.claim("second", 60)
    assert second is not None
    (mine,), (other,) = store.trials.ask(first, proposals(1)), store.trials.ask(second, proposals(1))
    failed = TrialResult(mine.id, "fail", None, None, "not finite", 1)
    assert store.trials.record(first, [], [failed]) is S.FAILED
    with pytest.raises(LeaseLost):
        store.trials.record(second, [], [complete(other)])


def let_time_pass(store: Store) -> None:
    """Exhaust the time budgets of all studies."""
    sql = text("UPDATE rs_studies SET started_at = started_at - 1000")
    store.database.write(lambda connection: connection.execute(sql))


def lose(store: Store, *, epochs: int = 0) -> int:
    """Let a worker claim a study, report ``epochs`` epochs of a trial, and die; returns the study."""
    lease = store.leases.claim("doomed", 60)
    assert lease is not None
    if lease.phase == "search":
        (trial,) = store.trials.ask(lease, proposals(1))
        store.trials.record(lease, [Report(trial.id, step, 1.0) for step in range(epochs)], [])
    expire(store, lease)
    store.leases.reap()
    return lease.study_id


BUDGET = {"trials": 5, "max_lost_workers": 3, "max_retries": 50}


def test_a_study_that_kills_its_workers_fails_with_a_reason_and_others_go_on(store: Store) -> None:
    poison = store.studies.submit(a_spec(budget=BUDGET, priority=5))
    other = store.studies.submit(a_spec(budget=BUDGET))
    assert [lose(store) for _ in range(3)] == [poison] * 3
    study = store.studies.get(poison)
    assert study.state is S.FAILED
    assert study.reason is not None
    assert "3 workers in a row were lost, the last while it loaded its data" in study.reason
    assert (study.counts.fail, study.counts.waiting, study.counts.running) == (1, 0, 0)
    lease = store.leases.claim("worker", 60)
    assert lease is not None
    assert lease.study_id == other


def test_workers_lost_in_training_and_before_a_trial_was_told_are_not_in_a_row(store: Store) -> None:
    study = store.studies.submit(a_spec(budget=BUDGET))
    for epochs in (0, 0, 1, 2):
        lose(store, epochs=epochs)
    lease = store.leases.claim("worker", 60)
    assert lease is not None
    (trial,) = store.trials.ask(lease, proposals(1))
    store.trials.record(lease, [], [complete(trial)])
    store.leases.release(lease)
    for _ in range(2):
        lose(store)
    assert store.studies.get(study).state is S.RUNNING
    lose(store)
    assert store.studies.get(study).state is S.FAILED


def test_workers_that_are_too_small_do_not_end_a_study_that_another_one_trains(store: Store) -> None:
    lease = started(store, budget=BUDGET)
    (trial,) = store.trials.ask(lease, proposals(1))
    store.trials.record(lease, [Report(trial.id, 0, 1.0)], [])
    for _ in range(5):
        lose(store)
    assert store.leases.renew(lease, 60) is S.RUNNING


def test_a_study_that_kills_its_workers_at_the_end_fails_too(store: Store) -> None:
    lease = started(store, budget=BUDGET | {"trials": 1})
    (trial,) = store.trials.ask(lease, proposals(1))
    assert store.trials.record(lease, [], [complete(trial)]) is S.FINALIZING
    for _ in range(3):
        lose(store)
    study = store.studies.get(lease.study_id)
    assert (study.state, study.counts.complete) == (S.FAILED, 1)
    assert study.reason is not None
    assert "finalized" in study.reason


def set_clock(store: Store, hours: float) -> None:
    """What leases look like after the database's clock has been set forward (back, if negative) by some hours."""
    sql = text("UPDATE rs_leases SET expires_at = expires_at - :seconds")
    store.database.write(lambda connection: connection.execute(sql, {"seconds": 3600 * hours}))


@pytest.mark.parametrize("hours", [0.5, 24.0, -24.0])
def test_a_clock_that_is_set_charges_nobody_and_keeps_no_dead_worker(
    store: Store, hours: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(sightings, "time", clock)
    alive, dead = started(store, budget=BUDGET), store.leases.claim("dead", 60)
    assert dead is not None
    assert store.trials.ask(alive, proposals(1))
    assert store.trials.ask(dead, proposals(1))
    assert store.leases.reap(60) == 0
    set_clock(store, hours)
    assert store.leases.reap(60) == 0
    clock.sleep(20)
    assert store.leases.renew(alive, 60) is S.RUNNING
    clock.sleep(20)
    assert store.leases.renew(alive, 60) is S.RUNNING
    assert store.studies.get(alive.study_id).counts.waiting == 1
    with pytest.raises(LeaseLost):
        store.leases.renew(dead, 60)
    assert store.history.trial(alive.study_id, 0).attempt == 0


def test_a_worker_that_gives_up_is_lost_and_its_reason_is_told(store: Store) -> None:
    study = store.studies.submit(a_spec(budget=BUDGET))
    for _ in range(3):
        lease = store.leases.claim("worker", 60)
        assert lease is not None
        assert lease.study_id == study
        store.leases.give_up(lease, "out of memory: 8 GB")
    found = store.studies.get(study)
    assert (found.state, found.reason) == (
        S.FAILED,
        "3 workers in a row were lost, the last while it loaded its data and prepared its search: out of memory: 8 GB",
    )
    assert lease is not None
    store.leases.give_up(lease, "it has ended")
