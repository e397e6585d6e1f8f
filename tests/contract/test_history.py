"""What a search reads of other leases: every trial that its own lease did not tell, once, and nothing else."""

from __future__ import annotations

from sqlalchemy import text

from service.store import Store
from service.store.records import AskedTrial, Lease, TrialResult
from tests.contract.conftest import a_spec
from tests.contract.test_trials import DISTRIBUTIONS, expire, finish, proposals, started


def second(store: Store, lease: Lease) -> Lease:
    """Another lease on the same study."""
    taken = store.leases.claim("second", 60)
    assert taken is not None
    assert taken.study_id == lease.study_id
    return taken


def retry(trial: AskedTrial) -> TrialResult:
    return TrialResult(trial.id, "retry", None, None, "out of memory", 0)


def numbers(store: Store, lease: Lease, seq: int = 0) -> tuple[list[int], int]:
    found, last = store.history.of_others(lease, seq, curves=True)
    return [trial.number for trial in found], last


def spoil(store: Store, column: str, told_by: Lease | None = None) -> None:
    """Overwrite a column with text that can't be parsed."""
    condition = "" if told_by is None else f" AND told_by = {told_by.token}"
    table = "trial_params" if column == "distribution_json" else "rs_trials"
    trials = f"SELECT trial_id FROM rs_trials WHERE seq IS NOT NULL{condition}"
    sql = f"UPDATE {table} SET {column} = 'spoiled' WHERE trial_id IN ({trials})"
    store.database.write(lambda connection: connection.execute(text(sql)))


def test_each_lease_reads_the_trials_of_others_once_in_the_order_told(store: Store) -> None:
    one = started(store)
    two = second(store, one)
    first_trials, second_trials = store.trials.ask(one, proposals(3)), store.trials.ask(two, proposals(3))
    finish(store, one, first_trials[:1])
    finish(store, two, [second_trials[2]])
    finish(store, one, first_trials[1:2])
    finish(store, two, [second_trials[0]])
    assert numbers(store, one) == ([5, 3], 4)
    assert numbers(store, two) == ([0, 1], 4)
    finish(store, one, first_trials[2:])
    assert numbers(store, one, 4) == ([], 5)
    assert numbers(store, two, 4) == ([2], 5)
    assert numbers(store, two, 5) == ([], 5)
    found, _ = store.history.of_others(one, 0, curves=True)
    everything = {trial.number: trial for trial in store.history.since(one.study_id, 0)}
    assert list(found) == [everything[5], everything[3]]
    assert found[0].curve == {"rmse": [3.0, 2.0, 6.0]}
    assert found[0].distributions == DISTRIBUTIONS


def test_own_trials_are_not_read_and_curves_of_others_only_if_requested(store: Store) -> None:
    one = started(store)
    two = second(store, one)
    finish(store, one, store.trials.ask(one, proposals(2)))
    finish(store, two, store.trials.ask(two, proposals(1)))
    for column in ("curve", "also", "distribution_json"):
        spoil(store, column, told_by=one)
    assert numbers(store, one) == ([2], 3)
    spoil(store, "curve")
    (found,), _ = store.history.of_others(one, 0, curves=False)
    assert (found.number, found.value, found.curve) == (2, 3.0, {})


def test_a_trial_that_was_given_back_belongs_to_the_lease_that_finishes_it(store: Store) -> None:
    one = started(store)
    two = second(store, one)
    given_back, kept = store.trials.ask(one, proposals(2))
    store.trials.record(one, [], [retry(given_back)])
    (again,) = store.trials.ask(two, proposals(1))
    assert again.number == given_back.number
    finish(store, two, [again])
    finish(store, one, [kept])
    assert numbers(store, one) == ([0], 2)
    assert numbers(store, two) == ([1], 2)


def test_a_trial_given_back_and_asked_again_by_the_same_lease_is_its_own(store: Store) -> None:
    one = started(store)
    (given_back,) = store.trials.ask(one, proposals(1))
    store.trials.record(one, [], [retry(given_back)])
    (again,) = store.trials.ask(one, proposals(1))
    finish(store, one, [again])
    assert numbers(store, one) == ([], 1)


def test_a_trial_without_an_attempt_left_is_also_read_by_the_leases_that_tried_it(store: Store) -> None:
    one = started(store, budget={"trials": 4, "max_retries": 0})
    two = second(store, one)
    (given_back,), (lost,) = store.trials.ask(one, proposals(1)), store.trials.ask(two, proposals(1))
    store.trials.record(one, [], [retry(given_back)])
    expire(store, two)
    assert store.leases.reap() == 1
    found, last = store.history.of_others(one, 0, curves=True)
    assert [(trial.number, trial.state, trial.curve) for trial in found] == [(0, "fail", {}), (lost.number, "fail", {})]
    assert last == 2


def test_trials_told_under_an_earlier_lease_of_the_same_worker_are_read(store: Store) -> None:
    one = started(store)
    finish(store, one, store.trials.ask(one, proposals(2)))
    store.leases.release(one)
    again = store.leases.claim(one.worker_id, 60)
    assert again is not None
    assert numbers(store, again) == ([0, 1], 2)


def test_other_studies_and_deleted_studies_have_no_trials(store: Store) -> None:
    one = started(store)
    store.studies.submit(a_spec())
    other = store.leases.claim("other", 60)
    assert other is not None
    assert other.study_id != one.study_id
    finish(store, other, store.trials.ask(other, proposals(1)))
    assert numbers(store, one) == ([], 0)
    store.studies.cancel(one.study_id)
    store.studies.delete(one.study_id)
    assert numbers(store, one, 3) == ([], 3)
