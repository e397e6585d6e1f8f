"""Networks on several devices: which worker a study of one goes to, and which workers are wanted for it."""

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


def test_only_workers_that_can_take_it_are_wanted_for_it(store: Store) -> None:
    two = store.studies.submit(a_spec(model={"devices": 2}, budget={"trials": 25}))
    assert store.demand.read(10) == Demand(0, 0, 0, larger=1, devices=2)
    assert store.demand.read(10, 2) == store.demand.read(10, 3) == Demand(1, 25, 3)
    store.studies.submit(a_spec(budget={"trials": 5}))
    store.studies.submit(a_spec(model={"devices": 4}, budget={"trials": 5}))
    assert store.demand.read(10) == Demand(1, 5, 1, larger=2, devices=4)
    assert store.demand.read(10, 2) == Demand(2, 30, 4, larger=1, devices=4)
    assert store.demand.read(10, 4) == Demand(3, 35, 5)
    store.studies.pause(two)
    assert store.demand.read(10) == Demand(1, 5, 1, larger=1, devices=4)
