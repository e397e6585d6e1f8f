"""Modules of the users' own: what workers publish, and which worker a study of one goes to."""

from __future__ import annotations

from typing import Any

from service.store import Store
from tests.contract.conftest import a_spec

NET = {"module": "mynets:Net"}


def worker(store: Store, *documents: dict[str, Any]) -> str:
    worker_id = store.workers.register(name="w", host="h", pid=1, device="cpu")
    store.modules.publish(worker_id, documents)
    return worker_id


def document(name: str = "mynets:Net", **more: Any) -> dict[str, Any]:
    return {"name": name, "about": "", "error": None, **more}


def test_a_study_of_a_module_goes_to_a_worker_that_has_it(store: Store) -> None:
    study_id = store.studies.submit(a_spec(model=NET))
    without, having = worker(store), worker(store, document())
    assert store.leases.claim(without, 60) is None
    lease = store.leases.claim(having, 60)
    assert lease is not None
    assert lease.study_id == study_id


def test_other_studies_go_to_every_worker(store: Store) -> None:
    store.studies.submit(a_spec(model=NET, priority=5))
    ours = store.studies.submit(a_spec())
    lease = store.leases.claim(worker(store), 60)
    assert lease is not None
    assert lease.study_id == ours


def test_each_module_is_listed_once_as_the_latest_worker_that_can_use_it_has_it(store: Store) -> None:
    worker(store, document(about="old"), document("mynets:Zebra"))
    worker(store, document(about="new"))
    worker(store, document(about="broken", error="ImportError: nobody has it"), document("mynets:Broken", error="no"))
    assert [(each["name"], each["about"], each["error"]) for each in store.modules.list()] == [
        ("mynets:Broken", "", "no"),
        ("mynets:Net", "new", None),
        ("mynets:Zebra", "", None),
    ]


def test_what_a_worker_publishes_replaces_what_it_had(store: Store) -> None:
    worker_id = worker(store, document("mynets:Old"))
    store.modules.publish(worker_id, [document("mynets:New")])
    assert [each["name"] for each in store.modules.list()] == ["mynets:New"]
    store.modules.publish(worker_id, [])
    assert not store.modules.list()
