"""Running a study again over HTTP, and the comparison."""

from __future__ import annotations

from fastapi.testclient import TestClient

from service.store import Store
from service.store.records import Lease, Proposal, TrialResult
from tests.api.test_routes import submit
from tests.contract.test_trials import proposals
from tests.results import result


def finish(store: Store, values: tuple[float, float, float]) -> None:
    """Three trials of these values, and a result."""
    lease = claimed(store)
    store.provenance.note(lease.study_id, {"data_hash": "abc", "threads": lease.study_id})
    trials = store.trials.ask(lease, [Proposal(p.params, p.distributions) for p in proposals(3)])
    pairs = zip(trials, values, strict=True)
    store.trials.record(
        lease, [], [TrialResult(trial.id, "complete", v, 0, "epochs", 1, {"rmse": [v]}) for trial, v in pairs]
    )
    store.studies.finish(claimed(store), result().to_json())


def claimed(store: Store) -> Lease:
    lease = store.leases.claim("worker", 60)
    assert lease is not None
    return lease


def test_a_replay_is_queued_with_the_same_spec(client: TestClient, store: Store) -> None:
    first = submit(client, name="mine", seed=7)
    answer = client.post("/v1/studies/1/replay")
    assert (answer.status_code, answer.headers["location"]) == (201, "/v1/studies/2")
    again = answer.json()
    assert again["name"] == "mine (replay)"
    assert {**again["spec"], "name": "mine"} == first["spec"]
    assert store.provenance.get(2).replay_of == 1
    assert client.post("/v1/studies/9/replay").status_code == 404


def test_a_comparison_names_what_differs(client: TestClient, store: Store) -> None:
    submit(client)
    finish(store, (1.0, 2.0, 4.0))
    client.post("/v1/studies/1/replay")
    assert client.get("/v1/studies/2/comparison").status_code == 409
    finish(store, (1.0, 2.0, 5.0))
    found = client.get("/v1/studies/2/comparison").json()
    differences = found.pop("differences")
    assert found == {
        "id": 2,
        "replay_of": 1,
        "same": False,
        "same_order": True,
        "trials": 3,
        "differing": 1,
        "largest_difference": 0.25,
        "made_of": {"threads": [1, 2]},
    }
    assert differences == [{"number": 2, "field": "value", "was": 4.0, "now": 5.0}]
    assert "not a replay" in client.get("/v1/studies/1/comparison").json()["detail"]


def test_the_result_says_who_read_the_test_part(client: TestClient, store: Store) -> None:
    submit(client)
    finish(store, (1.0, 2.0, 3.0))
    store.studies.open_test(1, "worker a", "final score")
    store.studies.open_test(1, "somebody", "out of curiosity")
    found = client.get("/v1/studies/1/result").json()
    assert found["test_accesses"] == 2
    assert [(each["who"], each["purpose"]) for each in found["test_record"]] == [
        ("worker a", "final score"),
        ("somebody", "out of curiosity"),
    ]
    assert all(each["at"].endswith(("Z", "+00:00")) for each in found["test_record"])
