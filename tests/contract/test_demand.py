"""How many workers the queue has work for, from none to none."""

from __future__ import annotations

from service.store import Store
from service.store.demand import Demand
from service.store.records import TrialResult
from tests.contract.conftest import a_spec
from tests.contract.test_trials import proposals


def test_demand_follows_the_trials_that_are_left(store: Store) -> None:
    assert store.demand.read(10) == Demand(0, 0, 0)
    study = store.studies.submit(a_spec(budget={"trials": 25, "epochs": 3}))
    assert store.demand.read(10) == Demand(1, 25, 3)
    store.studies.submit(a_spec(budget={"trials": 25, "epochs": 3}, max_parallel_trials=2))
    assert store.demand.read(10) == Demand(2, 50, 5)
    assert store.demand.read(1) == Demand(2, 50, 27)
    store.studies.cancel(2)
    lease = store.leases.claim("worker", 60)
    assert lease is not None
    asked = store.trials.ask(lease, proposals(25))
    assert store.demand.read(10) == Demand(1, 25, 3)  # those in training count
    told = [TrialResult(trial.id, "complete", 1.0, 0, "epochs", 1) for trial in asked]
    store.trials.record(lease, [], told[:16])
    assert store.demand.read(10) == Demand(1, 9, 1)
    store.studies.pause(study)
    assert store.demand.read(10) == Demand(0, 0, 0)
    store.studies.resume(study)
    store.trials.record(lease, [], told[16:])
    assert store.demand.read(10) == Demand(1, 0, 1)  # it is to be finalized
    final = store.leases.claim("worker", 60)
    assert final is not None
    store.studies.finish(final, {"verdict": ""})
    assert store.demand.read(10) == Demand(0, 0, 0)
