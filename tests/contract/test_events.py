"""What happens to studies is numbered in the order in which it is committed, and nothing is passed over."""

from __future__ import annotations

from sqlalchemy import select, update

from service.store import Store
from service.store import tables as t
from service.store.actors import StudyChange
from service.store.happenings import happened
from service.store.records import TrialResult
from tests.contract.conftest import a_spec
from tests.contract.test_trials import proposals

SPEC = a_spec()


def kinds(store: Store, since: int = 0) -> list[str]:
    store.events.publish()
    return [each.kind for each in store.events.since(since)]


def test_events_tell_what_has_happened_to_a_study(store: Store) -> None:
    study_id = store.studies.submit(SPEC)
    lease = store.leases.claim("worker", 60)
    assert lease is not None
    first, second = store.trials.ask(lease, proposals(2))
    for trial, value in ((first, 0.5), (second, 0.7)):
        store.trials.record(lease, [], [TrialResult(trial.id, "complete", value, 0, "epochs", 1)])
    store.studies.change(study_id, StudyChange(tags=["churn"]))
    store.studies.pause(study_id)
    store.studies.resume(study_id)
    store.studies.cancel(study_id)
    store.studies.delete(study_id)
    told = ["queued", "running", "best", "changed", "paused", "queued", "cancelled", "deleted"]
    assert kinds(store) == [f"study.{each}" for each in told]
    events = store.events.since(0)
    assert [each.seq for each in events] == [*range(1, 9)]
    assert {(each.study_id, each.name, each.owner) for each in events} == {(study_id, SPEC.name, SPEC.owner)}
    assert (events[-1].best_number, events[-1].best_value, events[-1].state) == (first.number, 0.5, "cancelled")
    assert kinds(store, since=6) == ["study.cancelled", "study.deleted"]


def test_an_event_that_is_committed_late_comes_late(store: Store) -> None:
    """Of two transactions the first to write has the smaller id, and may be the last to commit."""
    if store.database.is_sqlite:  # which has one writer at a time
        return
    early, late = (store.studies.submit(SPEC) for _ in range(2))
    store.events.publish()
    with store.database.engine.begin() as connection:
        happened(connection, early, "study.best")
        store.studies.pause(late)
        assert kinds(store, since=2) == ["study.paused"]
    assert kinds(store, since=2) == ["study.paused", "study.best"]
    ids = store.database.read(
        lambda connection: connection.execute(select(t.events.c.id).order_by(t.events.c.seq)).scalars().all()
    )
    assert list(ids) != sorted(ids)


def test_forgotten_events_do_not_give_their_numbers_back(store: Store) -> None:
    study_id = store.studies.submit(SPEC)
    store.studies.pause(study_id)
    store.events.publish()
    store.database.write(lambda connection: connection.execute(update(t.events).values(at=t.events.c.at - 100)))
    store.studies.resume(study_id)
    assert store.events.forget(50) == 1  # the latest with a number stays
    assert [each.seq for each in store.events.since(0)] == [2]
    assert kinds(store, since=2) == ["study.queued"]
    assert store.events.last() == 3
