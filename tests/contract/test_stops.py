"""Single trials that are stopped by hand, on both databases: told once, whatever becomes of their worker."""

from __future__ import annotations

import optuna
import pytest

from service.errors import Conflict, InvalidInput, NotFound
from service.store import STOPPED, Store, StudyState
from service.store.engine import Once
from service.store.records import Report, TrialResult
from tests.contract.test_trials import complete, expire, proposals, started


def test_a_running_trial_is_marked_until_its_worker_tells_it(store: Store) -> None:
    lease = started(store)
    first, second = store.trials.ask(lease, proposals(2))
    assert store.stops.asked(lease) == frozenset()
    for _ in range(2):
        store.stops.stop(lease.study_id, second.number)
    assert store.stops.asked(lease) == {second.id}
    seen = [store.history.trial(lease.study_id, trial.number) for trial in (first, second)]
    assert [(trial.state, trial.stopping) for trial in seen] == [("running", False), ("running", True)]
    store.trials.record(lease, [], [complete(second)])
    assert store.stops.asked(lease) == frozenset()
    told = store.history.trial(lease.study_id, second.number)
    assert (told.state, told.stopping) == ("complete", False)
    with pytest.raises(Conflict, match="trial 1 of study 1 has ended already: it is complete"):
        store.stops.stop(lease.study_id, second.number)


@pytest.mark.parametrize("how", ["released", "lost", "retried"])
def test_a_stopped_trial_that_is_given_back_does_not_run_again(store: Store, how: str) -> None:
    lease = started(store)
    kept, stopped = store.trials.ask(lease, proposals(2))
    store.trials.record(lease, [Report(stopped.id, 0, 2.0)], [])
    store.stops.stop(lease.study_id, stopped.number)
    match how:
        case "released":
            store.leases.release(lease)
        case "lost":
            expire(store, lease)
            store.leases.reap()
        case _:
            store.trials.record(lease, [], [TrialResult(stopped.id, "retry", None, None, "out of memory", 0)])
            store.leases.release(lease)
    ended = store.history.trial(lease.study_id, stopped.number)
    assert (ended.state, ended.value, ended.stop_reason) == ("pruned", None, STOPPED)
    counts = store.studies.get(lease.study_id).counts
    assert (counts.waiting, counts.running, counts.pruned) == (1, 0, 1)
    again = store.leases.claim("another", 60)
    assert again is not None
    assert [trial.number for trial in store.trials.ask(again, proposals(2))] == [kept.number, 2]


def test_a_waiting_trial_ends_at_once(store: Store) -> None:
    lease = started(store, budget={"trials": 2})
    first, second = store.trials.ask(lease, proposals(2))
    store.trials.record(lease, [], [complete(first)])
    store.studies.pause(lease.study_id)
    store.leases.release(lease)
    store.stops.stop(lease.study_id, second.number)
    ended = store.history.trial(lease.study_id, second.number)
    assert (ended.state, ended.stop_reason, ended.epochs) == ("pruned", STOPPED, 0)
    assert ended.started_at is not None
    assert [trial.number for trial in store.history.since(lease.study_id, 0)] == [0, 1]
    assert store.studies.get(lease.study_id).state is StudyState.PAUSED
    store.studies.resume(lease.study_id)
    assert store.studies.get(lease.study_id).state is StudyState.FINALIZING


def test_the_last_trial_that_waits_ends_the_search(store: Store) -> None:
    lease = started(store, budget={"trials": 2})
    first, second = store.trials.ask(lease, proposals(2))
    store.trials.record(lease, [], [complete(first)])
    store.leases.release(lease)
    store.stops.stop(lease.study_id, second.number)
    study = store.studies.get(lease.study_id)
    assert (study.state, study.counts.finished) == (StudyState.FINALIZING, 2)


def test_what_is_not_there_can_t_be_stopped(store: Store) -> None:
    lease = started(store)
    for study_id, number, what in ((lease.study_id, 0, "trial '1/0'"), (99, 0, "study 99")):
        with pytest.raises(NotFound, match=f"{what} does not exist"):
            store.stops.stop(study_id, number)
    (trial,) = store.trials.ask(lease, proposals(1))
    store.studies.cancel(lease.study_id)
    with pytest.raises(Conflict, match="it is fail"):
        store.stops.stop(lease.study_id, trial.number)


def test_a_request_that_is_sent_twice_stops_once(store: Store) -> None:
    lease = started(store)
    (trial,) = store.trials.ask(lease, proposals(1))
    once = Once("k" * 32, "stop")
    store.stops.stop(lease.study_id, trial.number, once)
    store.trials.record(lease, [], [complete(trial)])
    store.stops.stop(lease.study_id, trial.number, once)
    with pytest.raises(InvalidInput, match="Idempotency-Key"):
        store.stops.stop(lease.study_id, trial.number, Once("k" * 32, "another"))


def test_stock_optuna_reads_a_trial_that_never_began(store: Store) -> None:
    lease = started(store)
    (trial,) = store.trials.ask(lease, proposals(1))
    store.leases.release(lease)
    store.stops.stop(lease.study_id, trial.number)
    study = optuna.load_study(study_name="small", storage=store.optuna_storage())
    (read,) = study.trials
    assert (read.state, read.value, read.duration is not None) == (optuna.trial.TrialState.PRUNED, None, True)
