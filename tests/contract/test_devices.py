"""Networks on several devices: which worker a study of one goes to, and that no launcher starts others for it."""

from __future__ import annotations

from service.store import Store
from service.store.demand import Demand
from tests.contract.conftest import a_spec


def worker(store: Store, devices: int) -> str:
    return store.workers.register(name="w", host="h", pid=1, device="cpu", devices=devices)


def test_a_study_goes_to_a_worker_that_has_as_many_devices(store: Store) -> None:
    study_id = store.studies.submit(a_spec(model={"devices": 2}))
    assert store.leases.claim(worker(store, 1), 60) is None
    large = worker(store, 4)
    assert [each.devices for each in store.workers.list() if each.id == large] == [4]
    lease = store.leases.claim(large, 60)
    assert lease is not None
    assert lease.study_id == study_id
    ours = store.studies.submit(a_spec(priority=5))
    assert store.leases.others_wait(lease)
    other = store.leases.claim(large, 60)
    assert other is not None
    assert other.study_id == ours


def test_workers_of_one_device_are_not_wanted_for_it(store: Store) -> None:
    store.studies.submit(a_spec(model={"devices": 2}))
    assert store.demand.read(10) == Demand(0, 0, 0)
