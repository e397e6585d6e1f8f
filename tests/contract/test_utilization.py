"""Where a study's time went belongs to the study, whichever workers spent it."""

from __future__ import annotations

import threading

from service.store import Store
from tests.contract.conftest import a_spec


def test_leases_count_by_their_length_and_every_study_for_itself(store: Store) -> None:
    one, other = store.studies.submit(a_spec()), store.studies.submit(a_spec())
    assert store.utilization.get(one) == {}
    store.utilization.add(one, 30.0, {"training": 0.8, "other": 0.2})
    store.utilization.add(other, 5.0, {"training": 0.5})
    store.utilization.add(one, 10.0, {"training": 0.4, "idle": 0.6})
    assert store.utilization.get(one) == {"training": 0.7, "other": 0.15, "idle": 0.15}
    assert store.utilization.get(other) == {"training": 0.5}


def test_what_several_workers_add_at_a_time_is_all_counted(store: Store) -> None:
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


def test_it_goes_with_its_study(store: Store) -> None:
    study = store.studies.submit(a_spec())
    store.utilization.add(study, 1.0, {"training": 1.0})
    store.studies.cancel(study)
    store.studies.delete(study)
    store.utilization.add(study, 1.0, {"training": 1.0})
    assert store.utilization.get(study) == {}
