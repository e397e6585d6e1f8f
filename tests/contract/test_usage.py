"""Usage and quotas of owners, on both databases: nothing is written that exceeds a quota, not even by many at once."""

from __future__ import annotations

import threading
from io import BytesIO

import pytest

from service.errors import QuotaExceeded, TooMany
from service.store import Store, StudyState
from service.store.actors import StudyChange
from service.store.records import DatasetRecord
from service.store.usage import OwnerUsage, Quotas
from service.trained import TrainedModels
from tests.contract.conftest import a_spec
from tests.contract.test_trials import complete, proposals, started
from tests.trained import keep_onnx


def dataset(name: str, size: int) -> DatasetRecord:
    return DatasetRecord(name * 8, name, f"{name}.csv", "csv", size, 10, (2,), ())


def test_usage_is_counted_by_owner(store: Store, models: TrainedModels) -> None:
    lease = started(store, owner="ann", budget={"trials": 3})
    store.trials.record(lease, [], [complete(trial) for trial in store.trials.ask(lease, proposals(3))])
    final = store.leases.claim("worker", 60)
    assert final is not None
    store.studies.finish(final, {"verdict": "good"}, models.keep(BytesIO(b"PK" * 50), "zip"))
    keep_onnx(store, models, lease.study_id, b"onnx")
    store.studies.submit(a_spec(owner="ann", budget={"trials": 7}))
    store.studies.pause(store.studies.submit(a_spec(owner="bob", budget={"trials": 5})))
    store.datasets.add(dataset("a", 1000), "ann")
    store.datasets.add(dataset("b", 2**40), "bob")
    store.datasets.add(dataset("a", 1000), "carol")
    ann, bob, carol = store.usage.all()
    assert ann == OwnerUsage("ann", 2, 1, 7, 3, 9, 1000, 104)
    assert bob == OwnerUsage("bob", 1, 1, 5, 0, 0, 2**40, 0)
    assert carol == OwnerUsage("carol", dataset_bytes=1000)
    assert store.usage.of("ann") == ann
    assert store.usage.of("dan") == OwnerUsage("dan")


def test_open_studies_and_their_trials_are_limited(store: Store) -> None:
    quotas = Quotas(running=2, trials=15)
    first = store.studies.submit(a_spec(budget={"trials": 8}), quotas=quotas)
    with pytest.raises(TooMany, match="default would have 16 trials left in its studies; its quota is 15"):
        store.studies.submit(a_spec(budget={"trials": 8}), quotas=quotas)
    store.studies.submit(a_spec(budget={"trials": 1}), quotas=quotas)
    with pytest.raises(TooMany, match="would have 3 studies that have not ended; its quota is 2"):
        store.studies.submit(a_spec(budget={"trials": 1}), quotas=quotas)
    assert store.studies.list()[1] == 2, "what was refused has left nothing"
    store.studies.submit(a_spec(owner="another", budget={"trials": 8}), quotas=quotas)
    with pytest.raises(TooMany, match="17 trials left"):
        store.studies.extend(first, 8, quotas=quotas)
    with pytest.raises(TooMany, match="17 trials left"):
        store.studies.change(first, StudyChange(budget={"trials": 16}), quotas=quotas)
    assert store.studies.get(first).budget_trials == 8
    assert store.studies.changes(first)[1] == 0
    store.studies.cancel(first)
    store.studies.submit(a_spec(budget={"trials": 8}), quotas=quotas)


def test_a_finished_study_that_goes_on_counts_again_and_what_changes_nothing_is_free(store: Store) -> None:
    lease = started(store, budget={"trials": 2})
    store.trials.record(lease, [], [complete(trial) for trial in store.trials.ask(lease, proposals(2))])
    final = store.leases.claim("worker", 60)
    assert final is not None
    store.studies.finish(final, {})
    other = store.studies.submit(a_spec())
    quotas = Quotas(running=1)
    with pytest.raises(TooMany):
        store.studies.change(lease.study_id, StudyChange(budget={"trials": 3}), quotas=quotas)
    assert store.studies.get(lease.study_id).state is StudyState.FINISHED
    tight = Quotas(running=1, trials=1)
    store.studies.change(other, StudyChange(priority=1, tags=("a",)), quotas=tight)
    store.studies.change(other, StudyChange(budget={"trials": 5}), quotas=tight)
    assert store.studies.get(other).budget_trials == 5


def test_bytes_are_limited_and_the_same_content_counts_once(store: Store) -> None:
    quotas = Quotas(size=1500, running=0)
    for _ in range(2):
        store.datasets.add(dataset("a", 1000), "ann", quotas)
    with pytest.raises(QuotaExceeded, match="ann would keep 1600 bytes of data sets and models; its quota is 1500"):
        store.datasets.add(dataset("b", 600), "ann", quotas)
    assert [record.id for record in store.datasets.list("ann")] == ["a" * 8]
    store.datasets.add(dataset("b", 600), "bob", quotas)
    store.datasets.delete("a" * 8, "ann")
    store.datasets.add(dataset("b", 600), "ann", quotas)


def test_who_keeps_too_much_submits_nothing(store: Store) -> None:
    store.datasets.add(dataset("a", 1000), "ann")
    with pytest.raises(QuotaExceeded, match="delete some first"):
        store.studies.submit(a_spec(owner="ann"), quotas=Quotas(size=999))
    store.studies.submit(a_spec(owner="ann"), quotas=Quotas(size=1000))
    store.studies.submit(a_spec(owner="bob"), quotas=Quotas(size=999))


def test_many_at_once_get_no_more_than_the_quota(store: Store) -> None:
    refused: list[TooMany] = []

    def submit() -> None:
        try:
            store.studies.submit(a_spec(), quotas=Quotas(running=3))
        except TooMany as error:
            refused.append(error)

    threads = [threading.Thread(target=submit) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (store.usage.of("default").running, len(refused)) == (3, 5)
    assert {error.retry_after for error in refused} == {60}
