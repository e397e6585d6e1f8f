"""Studies and leases: the order of the queue, transitions, and what they keep and delete."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from io import BytesIO

import optuna
import pytest
from optuna_dashboard._note import get_note_from_system_attrs

from service.errors import Conflict, NotFound
from service.store import Store, StudyState
from service.store.records import DatasetRecord, TrialResult
from service.trained import TrainedModels
from tests.contract.conftest import a_spec
from tests.contract.test_trials import complete, expire, proposals, started


def claimed(store: Store, worker: str = "worker") -> int | None:
    lease = store.leases.claim(worker, 60)
    return None if lease is None else lease.study_id


def finalized(store: Store) -> int:
    lease = started(store, budget={"trials": 1})
    (trial,) = store.trials.ask(lease, proposals(1))
    store.trials.record(lease, [], [complete(trial)])
    final = store.leases.claim("worker", 60)
    assert final is not None
    store.studies.finish(final, {"verdict": "good"})
    return lease.study_id


def test_a_submit_writes_what_the_dashboard_shows(store: Store) -> None:
    note = "# A note\n" + "x" * 5000
    study_id = store.studies.submit(a_spec(name="mine"), note=note)
    storage = store.optuna_storage()
    attrs = storage.get_study_system_attrs(study_id)
    assert get_note_from_system_attrs(attrs, None)["body"] == note
    assert optuna.load_study(study_name="mine", storage=storage).metric_names == ["rmse"]


def test_names_are_made_unique(store: Store) -> None:
    names = [store.studies.get(store.studies.submit(a_spec(name="twin"))).name for _ in range(3)]
    assert names == ["twin", "twin-2", "twin-3"]


def test_pages_and_states(store: Store) -> None:
    ids = [store.studies.submit(a_spec()) for _ in range(5)]
    store.studies.cancel(ids[1])
    page, total = store.studies.list(offset=1, limit=2)
    assert ([record.id for record in page], total) == ([ids[3], ids[2]], 5)
    page, total = store.studies.list(state=StudyState.CANCELLED)
    assert ([record.id for record in page], total) == ([ids[1]], 1)


def test_the_queue_serves_priority_then_owners_then_studies_then_age(store: Store) -> None:
    first = store.studies.submit(a_spec(owner="a"))
    second = store.studies.submit(a_spec(owner="a"))
    third = store.studies.submit(a_spec(owner="b"))
    urgent = store.studies.submit(a_spec(owner="a", priority=5, max_parallel_trials=1))
    lease = store.leases.claim("w0", 60)
    assert lease is not None
    assert lease.study_id == urgent
    store.trials.ask(lease, proposals(1))
    # Owner b has no lease yet; then the study with the fewest leases of the owner with the fewest leases is next.
    assert [claimed(store, f"w{i}") for i in range(1, 4)] == [third, first, third]
    assert claimed(store) == second


def test_a_study_without_work_left_is_not_claimed(store: Store) -> None:
    lease = started(store, budget={"trials": 2})
    store.trials.ask(lease, proposals(2))
    assert claimed(store) is None


def test_finalizing_is_leased_to_one_worker(store: Store) -> None:
    lease = started(store, budget={"trials": 1})
    (trial,) = store.trials.ask(lease, proposals(1))
    store.trials.record(lease, [], [complete(trial)])
    final = store.leases.claim("a", 60)
    assert final is not None
    assert final.phase == "finalize"
    assert store.leases.claim("b", 60) is None
    expire(store, final)
    again = store.leases.claim("b", 60)
    assert again is not None
    store.studies.finish(again, {"verdict": "good"})
    store.studies.finish(again, {"verdict": "good"})
    record = store.studies.get(lease.study_id)
    assert (record.state, record.result) == (StudyState.FINISHED, {"verdict": "good"})
    assert record.finished_at is not None


def test_pause_puts_trials_back_and_resume_hands_them_out_again(store: Store) -> None:
    lease = started(store)
    trials = store.trials.ask(lease, proposals(2))
    store.studies.pause(lease.study_id)
    assert store.trials.record(lease, [], [complete(trials[0])]) is StudyState.PAUSED
    assert store.leases.renew(lease, 60) is StudyState.PAUSED
    assert store.trials.ask(lease, proposals(1)) == []
    store.leases.release(lease)
    assert claimed(store) is None
    store.studies.resume(lease.study_id)
    again = store.leases.claim("other", 60)
    assert again is not None
    assert [trial.number for trial in store.trials.ask(again, proposals(1))] == [1]


def test_cancel_keeps_finished_trials_and_voids_leases(store: Store) -> None:
    lease = started(store)
    trials = store.trials.ask(lease, proposals(3))
    store.trials.record(lease, [], [complete(trials[0])])
    store.studies.cancel(lease.study_id)
    record = store.studies.get(lease.study_id)
    assert (record.state, record.counts.complete, record.counts.fail) == (StudyState.CANCELLED, 1, 2)
    assert store.history.trial(lease.study_id, 1).stop_reason == "cancelled"
    assert claimed(store) is None


def test_a_finished_study_can_be_extended(store: Store) -> None:
    study_id = finalized(store)
    store.studies.extend(study_id, trials=2)
    lease = store.leases.claim("worker", 60)
    assert lease is not None
    assert [trial.number for trial in store.trials.ask(lease, proposals(5))] == [1, 2]
    assert store.studies.get(study_id).spec["budget"]["trials"] == 3


def test_illegal_transitions_are_conflicts(store: Store) -> None:
    study_id = store.studies.submit(a_spec())
    done = finalized_after(store, study_id)
    calls: list[Callable[[int], object]] = [store.studies.pause, store.studies.resume, store.studies.cancel]
    for call in calls:
        with pytest.raises(Conflict, match=f"study {done} is finished"):
            call(done)
    running = started(store).study_id
    with pytest.raises(Conflict, match="cancel it before"):
        store.studies.delete(running)


def finalized_after(store: Store, study_id: int) -> int:
    store.studies.cancel(study_id)
    return finalized(store)


def test_what_does_not_exist_is_not_found(store: Store) -> None:
    calls: list[Callable[[int], object]] = [
        store.studies.get,
        store.studies.cancel,
        store.studies.delete,
        store.history.page,
    ]
    for call in calls:
        with pytest.raises(NotFound, match="study 99 does not exist"):
            call(99)
    study_id = store.studies.submit(a_spec())
    with pytest.raises(NotFound, match="trial"):
        store.history.trial(study_id, 7)
    with pytest.raises(NotFound, match="data set"):
        store.datasets.get("nope")


def test_delete_leaves_nothing(store: Store) -> None:
    study_id = finalized(store)
    other = store.studies.submit(a_spec())
    store.studies.delete(study_id)
    with pytest.raises(NotFound):
        store.studies.get(study_id)
    assert [study.study_name for study in optuna.get_all_study_summaries(store.optuna_storage())] == [
        store.studies.get(other).name
    ]


def test_workers_and_datasets(store: Store) -> None:
    worker = store.workers.register(name="w", host="h", pid=1, device="cpu")
    store.workers.beat(worker, {"lanes": 8})
    (seen,) = store.workers.list()
    assert (seen.state, seen.stats) == ("alive", {"lanes": 8})
    store.workers.leave(worker)
    assert store.workers.list()[0].state == "left"
    record = DatasetRecord("abc", "mine", "mine.csv", "csv", 10, 3, (2,), ({"name": "a"},))
    stored = store.datasets.add(record)
    assert store.datasets.add(record) == stored
    assert store.datasets.list() == [stored]
    assert stored.created_at is not None


def test_test_accesses_are_recorded(store: Store) -> None:
    study_id = store.studies.submit(a_spec())
    store.studies.open_test(study_id, "worker 1", "final score")
    (access,) = store.studies.test_accesses(study_id)
    assert (access["who"], access["purpose"]) == ("worker 1", "final score")


def test_results_of_failed_trials_have_no_value(store: Store) -> None:
    lease = started(store)
    (trial,) = store.trials.ask(lease, proposals(1))
    store.trials.record(lease, [], [TrialResult(trial.id, "fail", None, None, "not finite", 1)])
    page, total = store.history.page(lease.study_id, state="fail")
    assert (total, page[0].value, page[0].stop_reason) == (1, None, "not finite")
    assert store.history.trials_of_all()["fail"] == 1


def test_a_finished_study_keeps_its_model_until_it_is_finished_again_or_deleted(store: Store, models: TrainedModels) -> None:
    study_id = store.studies.submit(a_spec(budget={"trials": 1}), note="x" * 3000)
    lease = store.leases.claim("worker", 60)
    assert lease is not None
    assert lease.study_id == study_id
    (trial,) = store.trials.ask(lease, proposals(1))
    store.trials.record(lease, [], [complete(trial)])
    final = store.leases.claim("worker", 60)
    assert final is not None
    kept = models.keep(BytesIO(b"\0first"), "zip")
    store.studies.finish(final, {"verdict": "good"}, kept, note="the first")
    store.studies.finish(final, {"verdict": "good"}, kept)  # as after a lost connection
    assert store.archives.get(lease.study_id).content == kept
    assert kept.sha256 == hashlib.sha256(b"\0first").hexdigest()
    store.studies.extend(lease.study_id, 1)
    again = store.leases.claim("worker", 60)
    assert again is not None
    (trial,) = store.trials.ask(again, proposals(1))
    store.trials.record(again, [], [complete(trial)])
    final = store.leases.claim("worker", 60)
    assert final is not None
    second = models.keep(BytesIO(b"second"), "zip")
    store.studies.finish(final, {"verdict": "better"}, second, note="the second")
    assert store.archives.get(lease.study_id).content == second
    attrs = store.optuna_storage().get_study_system_attrs(lease.study_id)
    found_note = get_note_from_system_attrs(attrs, None)
    assert (found_note["body"], found_note["version"]) == ("the second\n\n---\n\n" + "x" * 3000, 3)
    store.studies.delete(lease.study_id)
    with pytest.raises(NotFound):
        store.archives.get(lease.study_id)
