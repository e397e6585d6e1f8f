"""`PATCH` of a study: what may be changed, what may not and why, and what is written down of it."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.store import Store
from tests.api import test_programs
from tests.api.test_routes import finish, submit
from tests.contract.test_trials import proposals


def patch(client: TestClient, body: Any, study_id: int = 1, **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.patch(f"/v1/studies/{study_id}", json=body, headers=named)


def test_what_is_named_is_changed_and_nothing_else(client: TestClient) -> None:
    before = submit(client)
    found = patch(client, {"priority": 7, "budget": {"trials": 9, "seconds": 600, "seeds": 3}}).json()
    assert (found["priority"], found["trials"]["budget"]) == (7, 9)
    assert found["spec"]["priority"] == 7
    expected = {**before["spec"]["budget"], "trials": 9, "seconds": 600, "seeds": 3}
    assert found["spec"]["budget"] == expected
    assert patch(client, {"budget": {"seconds": None}}).json()["spec"]["budget"]["seconds"] is None
    assert {**found["spec"], "budget": 0, "priority": 0} == {**before["spec"], "budget": 0, "priority": 0}
    assert client.get("/v1/studies/1").json()["spec"]["budget"] == {**expected, "seconds": None}


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        ({"space": {"dropout": 0.5}}, "space", "can't be changed, as the study's trials have it in common"),
        ({"budget": {"max_retries": 9}}, "budget.max_retries", "can't be changed"),
        ({"metric": "rmse"}, "metric", "can't be changed"),
        ({"prioriti": 5}, "prioriti", "did you mean priority?"),
        ({"budget": {"trails": 5}}, "budget.trails", "did you mean trials?"),
        ({"priority": 101}, "priority", "≤ 100"),
        ({"priority": None}, "priority", "must not be null"),
        ({"budget": {"trials": None}}, "budget.trials", "must not be null"),
        ({"budget": {"trials": 0}}, "budget.trials", "≥ 1"),
        ({"budget": {"seconds": -1}}, "budget.seconds", "> 0"),
        ([], "body", "an object"),
    ],
)
def test_what_can_t_be_changed_is_refused_with_its_field(client: TestClient, body: Any, field: str, message: str) -> None:
    submit(client)
    answer = patch(client, body)
    assert answer.status_code == 422, answer.text
    (issue,) = answer.json()["errors"]
    assert issue["field"] == field
    assert message in issue["message"]
    assert client.get("/v1/studies/1/changes").json()["total"] == 0


def test_a_grid_can_t_be_given_more_trials_than_points(client: TestClient) -> None:
    grid = {"sampler": {"name": "grid", "points": 2}, "space": {"preset": "off", "dropout": [0, 0.1, 0.2]}}
    submit(client, **grid)
    assert patch(client, {"budget": {"trials": 2}}).status_code == 200
    answer = patch(client, {"budget": {"trials": 50}})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "budget.trials")


def test_a_state_that_does_not_allow_it_is_a_conflict(client: TestClient, store: Store) -> None:
    submit(client)
    finish(store)
    answer = patch(client, {"priority": 2})
    assert (answer.status_code, "all of its 3 trials are done" in answer.json()["detail"]) == (409, True)
    assert patch(client, {"budget": {"epochs": 9}}).status_code == 409
    found = patch(client, {"budget": {"trials": 5}, "priority": 2}).json()
    assert (found["state"], found["trials"]["budget"], found["priority"]) == ("queued", 5, 2)
    assert patch(client, {"priority": 2}, study_id=9).status_code == 404


def test_if_match_refuses_what_somebody_else_has_changed(client: TestClient, store: Store) -> None:
    submit(client)
    tag = client.get("/v1/studies/1").headers["etag"]
    lease = store.leases.claim("worker", 60)
    assert lease is not None
    store.trials.ask(lease, proposals(1))
    assert client.get("/v1/studies/1").headers["etag"] != tag
    mine = patch(client, {"priority": 1}, if_match=tag)
    assert mine.status_code == 200, "what workers add does not count"
    assert mine.headers["etag"] == client.get("/v1/studies/1").headers["etag"]
    theirs = patch(client, {"priority": 2}, if_match=tag)
    assert (theirs.status_code, theirs.headers["content-type"]) == (412, "application/problem+json")
    assert patch(client, {"priority": 2}, if_match='"something else"').status_code == 412
    assert client.get("/v1/studies/1").json()["priority"] == 1
    assert patch(client, {"priority": 3}, if_match=f"{tag}, {mine.headers['etag']}").status_code == 200
    assert patch(client, {"priority": 4}, if_match="*").status_code == 200


def test_a_change_is_sent_twice_with_a_key(client: TestClient) -> None:
    submit(client)
    tag = client.get("/v1/studies/1").headers["etag"]
    answers = [patch(client, {"priority": 1}, if_match=tag, idempotency_key="a") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert patch(client, {"priority": 2}, idempotency_key="a").status_code == 422
    assert client.get("/v1/studies/1/changes").json()["total"] == 1


def test_changes_are_listed_latest_first(client: TestClient) -> None:
    submit(client)
    patch(client, {"priority": 1})
    client.post("/v1/studies/1/pause")
    page = client.get("/v1/studies/1/changes").json()
    assert [each["what"] for each in page["changes"]] == [{"state": ["queued", "paused"]}, {"priority": [0, 1]}]
    assert [(each["owner"], each["token"]) for each in page["changes"]] == [(None, None)] * 2
    assert client.get("/v1/studies/1/changes", params={"limit": 1, "offset": 1}).json()["changes"] == page["changes"][1:]
    assert client.get("/v1/studies/9/changes").status_code == 404


def test_a_program_goes_on_with_the_budget_that_was_changed(client: TestClient) -> None:
    """Its number of trials, its time, and the seeds of its finals are those of the study now."""
    study_id = test_programs.submit(client, budget={"trials": 2, "epochs": 6, "finalists": 1, "seeds": 2})
    first = test_programs.ask(client, study_id, n=5)
    assert len(first) == 2
    assert patch(client, {"budget": {"trials": 4, "seeds": 3}}, study_id).status_code == 200
    later = test_programs.ask(client, study_id, n=5)
    assert [trial["number"] for trial in later] == [2, 3]
    told = [{"trial": trial["trial"], "value": test_programs.value(trial)} for trial in (*first, *later)]
    test_programs.send(client, study_id, "tell", trials=told)
    finals = test_programs.ask(client, study_id, n=50)
    assert [trial["purpose"] for trial in finals] == ["finalist"] * 3
