"""Priority and budget of studies are changed while they wait, run or have finished; every change is on record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text

from service.errors import Changed, Conflict, NotFound
from service.store import Store, StudyState
from service.store.actors import Actor, StudyChange
from service.store.engine import Once
from service.store.records import Lease
from tests.contract.conftest import a_spec
from tests.contract.test_external import a_spec as an_external_spec
from tests.contract.test_external import held
from tests.contract.test_transitions import a_study_in, let_time_pass
from tests.contract.test_trials import complete, proposals, started

S = StudyState
ANN = Actor("ann", 7)


def change(store: Store, study_id: int, budget: Mapping[str, Any] | None = None, **more: Any) -> None:
    store.studies.change(study_id, StudyChange(budget=budget or {}, **more), by=ANN)


def finished(store: Store, trials: int = 2, **budget: object) -> Lease:
    lease = started(store, budget={"trials": trials, **budget})
    store.trials.record(lease, [], [complete(trial) for trial in store.trials.ask(lease, proposals(trials))])
    final = store.leases.claim("worker", 60)
    assert final is not None
    store.studies.finish(final, {"verdict": "good"})
    return lease


def test_a_raised_priority_changes_the_queue(store: Store) -> None:
    first, second = store.studies.submit(a_spec()), store.studies.submit(a_spec())
    change(store, second, priority=5)
    lease = store.leases.claim("worker", 60)
    assert lease is not None
    assert lease.study_id == second
    change(store, first, priority=9)
    assert store.leases.others_wait(lease), "the worker yields to the study that is more urgent now"
    assert store.studies.get(first).priority == store.studies.get(first).spec["priority"] == 9


@pytest.mark.parametrize("state", list(StudyState))
def test_what_may_be_changed_in_which_state(store: Store, state: StudyState) -> None:
    def refused(**what: Any) -> bool:
        study = a_study_in(store, state)
        before = store.studies.get(study)
        message = ""
        try:
            change(store, study, **what)
        except Conflict as error:
            message = str(error)
        after = store.studies.get(study)
        if after.state not in (S.FINISHED, S.CANCELLED, S.FAILED):
            store.studies.cancel(study)
        if message:
            assert message.startswith(f"study {study} is {state}")
            assert replace(after, now=before.now) == before
        return bool(message)

    over = state in (S.CANCELLED, S.FAILED)
    assert refused(priority=3) == (over or state is S.FINISHED)
    for budget in ({"trials": 30}, {"seconds": 1000.0, "trials": 20}, {"seeds": 9}, {"finalists": 2}):
        assert refused(budget=budget) == (over or state is S.FINALIZING), budget


def test_trials_are_never_fewer_than_were_asked(store: Store) -> None:
    lease = started(store)
    trials = store.trials.ask(lease, proposals(4))
    with pytest.raises(Conflict, match="has asked 4 trials already"):
        change(store, lease.study_id, {"trials": 3})
    change(store, lease.study_id, {"trials": 4})
    assert store.trials.ask(lease, proposals(1)) == []
    assert store.trials.record(lease, [], [complete(trial) for trial in trials]) is S.FINALIZING


def test_a_budget_lowered_to_what_is_done_ends_the_search(store: Store) -> None:
    lease = started(store)
    store.trials.record(lease, [], [complete(trial) for trial in store.trials.ask(lease, proposals(2))])
    change(store, lease.study_id, {"trials": 2})
    assert store.studies.get(lease.study_id).state is S.FINALIZING


def test_a_finished_study_that_is_given_trials_goes_on(store: Store) -> None:
    study_id = finished(store).study_id
    change(store, study_id, {"trials": 3})
    study = store.studies.get(study_id)
    assert (study.state, study.budget_trials, study.spec["budget"]["trials"]) == (S.QUEUED, 3, 3)
    lease = store.leases.claim("worker", 60)
    assert lease is not None
    assert [trial.number for trial in store.trials.ask(lease, proposals(5))] == [2]


def test_more_seeds_finalize_a_finished_study_again(store: Store) -> None:
    study_id = finished(store).study_id
    change(store, study_id, {"seeds": 9})
    assert store.studies.get(study_id).state is S.FINALIZING
    assert store.studies.get(study_id).spec["budget"]["seeds"] == 9


def test_a_finished_study_with_nothing_more_to_do_is_refused(store: Store) -> None:
    study_id = finished(store).study_id
    for what in ({"priority": 4}, {"budget": {"seconds": 900.0}}):
        with pytest.raises(Conflict, match=r"all of its 2 trials are done: raise budget\.trials, too"):
            change(store, study_id, **what)


def test_a_study_out_of_time_goes_on_with_more_of_it(store: Store) -> None:
    study_id = finished(store, seconds=100).study_id
    let_time_pass(store)
    with pytest.raises(Conflict, match=r"has spent the 60 seconds .* raise budget\.seconds"):
        change(store, study_id, {"trials": 5})
    change(store, study_id, {"trials": 5, "seconds": 2000.0})
    assert store.studies.get(study_id).state is S.QUEUED
    assert 100 < store.studies.seconds_left(study_id) < 1200 - 1000 + 1


def test_the_time_since_the_end_does_not_count(store: Store) -> None:
    study_id = finished(store, seconds=100).study_id
    ago = text("UPDATE rs_studies SET started_at = started_at - 9000, finished_at = finished_at - 9000")
    store.database.write(lambda connection: connection.execute(ago))
    store.studies.extend(study_id, 3)
    assert 0 < store.studies.seconds_left(study_id) <= 60
    lease = store.leases.claim("worker", 60)
    assert lease is not None
    assert len(store.trials.ask(lease, proposals(3))) == 3


def test_a_time_limit_may_be_set_and_lifted_while_trials_run(store: Store) -> None:
    lease = started(store)
    store.trials.ask(lease, proposals(1))
    change(store, lease.study_id, {"seconds": 500.0})
    assert 200 < store.studies.seconds_left(lease.study_id) <= 300
    let_time_pass(store)
    assert store.trials.ask(lease, proposals(1)) == []
    change(store, lease.study_id, {"seconds": None})
    assert store.studies.seconds_left(lease.study_id) == float("inf")
    assert len(store.trials.ask(lease, proposals(1))) == 1


def test_epochs_are_changed_only_before_anything_has_begun(store: Store) -> None:
    study_id = store.studies.submit(a_spec())
    change(store, study_id, {"epochs": 50})
    assert store.studies.get(study_id).spec["budget"]["epochs"] == 50
    lease = store.leases.claim("worker", 60)
    assert lease is not None
    for _ in range(2):  # with a lease, which has read the spec, and with a trial
        with pytest.raises(Conflict, match="has begun with at most 50 epochs a trial"):
            change(store, study_id, {"epochs": 60})
        store.trials.ask(lease, proposals(1))
    external = store.studies.submit(an_external_spec())
    change(store, external, {"epochs": 7})
    held(store, external)
    with pytest.raises(Conflict, match="has begun"):
        change(store, external, {"epochs": 8})


def test_every_change_is_on_record(store: Store) -> None:
    study_id = store.studies.submit(a_spec(budget={"trials": 10}))
    change(store, study_id, {"trials": 20, "seeds": 5}, priority=2)
    change(store, study_id, priority=2)
    store.studies.pause(study_id, by=ANN)
    store.studies.pause(study_id, by=ANN)
    store.studies.resume(study_id)
    store.studies.extend(study_id, 5, by=Actor("bob", 9))
    lease = store.leases.claim("worker", 60)
    assert lease is not None
    store.trials.ask(lease, proposals(1))
    for _ in range(2):
        store.stops.stop(study_id, 0, by=ANN)
    store.studies.cancel(study_id)
    found, total = store.studies.changes(study_id)
    assert [dict(each.what) for each in reversed(found)] == [
        {"budget.trials": [10, 20], "priority": [0, 2]},
        {"state": ["queued", "paused"]},
        {"state": ["paused", "queued"]},
        {"budget.trials": [20, 25]},
        {"trials.0": ["running", "stopped"]},
        {"state": ["running", "cancelled"]},
    ]
    assert total == 6
    assert [each.by.owner for each in reversed(found)] == ["ann", "ann", None, "bob", "ann", None]
    assert found[-1].by == ANN
    latest, total = store.studies.changes(study_id, offset=1, limit=2)
    assert ([[*each.what] for each in latest], total) == ([["trials.0"], ["budget.trials"]], 6)
    store.studies.delete(study_id)
    with pytest.raises(NotFound):
        store.studies.changes(study_id)


def test_a_revision_counts_what_people_change_and_nothing_else(store: Store) -> None:
    lease = started(store)

    def revision() -> int:
        return int(store.studies.versions([lease.study_id])[lease.study_id].partition("|")[0])

    assert revision() == 0
    store.trials.record(lease, [], [complete(trial) for trial in store.trials.ask(lease, proposals(2))])
    assert revision() == 0
    wanted = StudyChange(priority=1)
    store.studies.change(lease.study_id, wanted, revisions=[0])
    assert revision() == 1
    with pytest.raises(Changed, match="was changed since"):
        store.studies.change(lease.study_id, StudyChange(priority=2), revisions=[0])
    assert store.studies.get(lease.study_id).priority == 1


def test_a_change_that_is_sent_twice_happens_once(store: Store) -> None:
    study_id, once = store.studies.submit(a_spec()), Once("k" * 32, "patch")
    for _ in range(2):  # though the revision is another one when it arrives again
        store.studies.change(study_id, StudyChange(priority=1), once, ANN, revisions=[0])
    assert store.studies.changes(study_id)[1] == 1
