"""A study's utilization, summed over its workers."""

from __future__ import annotations

import threading

from service.store import Store
from tests.contract.conftest import a_spec


def test_shares_are_weighted_by_the_length_of_leases_and_kept_per_study(store: Store) -> None:
    one, other = store.studies.submit(a_spec()), store.studies.submit(a_spec())
    assert store.utilization.get(one) == {}
    store.utilization.add(one, 30.0, {"training": 0.8, "other": 0.2})
    store.utilization.add(other, 5.0, {"training": 0.5})
    store.utilization.add(one, 10.0, {"training": 0.4, "idle": 0.6})
    assert store.utilization.get(one) == {"training": 0.7, "other": 0.15, "idle": 0.15}
    assert store.utilization.get(other) == {"training": 0.5}


def test_simultaneous_additions_are_all_counted(store: Store) -> None:
    study = store.studies.submit(a_spec())

    def add(share: float) -> None:
        for _ in range(5):
            store.utilization.add(study, 2.0, {"training": share})

    threads = [threading.Thread(target=add, args=(share,)) for share in (0.2, 0.4, 0.6, 0.8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.utilization.get(study) == {"training": 0.5}


def test_utilization_is_deleted_with_its_study(store: Store) -> None:
    study = store.studies.submit(a_spec())
    store.utilization.add(study, 1.0, {"training": 1.0})
    store.studies.cancel(study)
    store.studies.delete(study)
    store.utilization.add(study, 1.0, {"training": 1.0})
    assert store.utilization.get(study) == {}
