"""Requests that are sent twice with one `Idempotency-Key` change something once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi.testclient import TestClient

SPEC = {"name": "once", "data": {"dataset": "wine"}, "budget": {"trials": 5}}


def submit(client: TestClient, key: str | None, spec: Any = SPEC) -> Any:
    return client.post("/v1/studies", json=spec, headers={"idempotency-key": key} if key else {})


def total(client: TestClient) -> int:
    found: int = client.get("/v1/studies").json()["total"]
    return found


def test_one_key_makes_one_study(client: TestClient) -> None:
    first, second = submit(client, "a"), submit(client, "a")
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json()["id"] == second.json()["id"]
    assert first.headers["location"] == second.headers["location"]
    assert total(client) == 1
    assert submit(client, "b").json()["id"] != first.json()["id"]
    submit(client, None)
    submit(client, None)
    assert total(client) == 4


def test_requests_at_the_same_time_make_one_study(client: TestClient) -> None:
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: submit(client, "together"), range(6)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert total(client) == 1


def test_a_key_is_that_of_one_request(client: TestClient) -> None:
    study_id = submit(client, "a").json()["id"]
    other = submit(client, "a", {**SPEC, "seed": 3})
    elsewhere = client.post(f"/v1/studies/{study_id}/pause", headers={"idempotency-key": "a"})
    for answer in (other, elsewhere):
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["field"] == "Idempotency-Key"
    assert total(client) == 1
    assert client.get(f"/v1/studies/{study_id}").json()["state"] == "queued"


def test_a_request_that_failed_may_be_sent_again(client: TestClient) -> None:
    assert submit(client, "a", {**SPEC, "data": {"dataset": "wines"}}).status_code == 422
    assert submit(client, "a").status_code == 201


def test_trials_are_added_once(client: TestClient) -> None:
    study_id = submit(client, "a").json()["id"]
    for _ in range(3):
        answer = client.post(f"/v1/studies/{study_id}/extend", json={"trials": 7}, headers={"idempotency-key": "more"})
        assert answer.json()["trials"]["budget"] == 12
    again = client.post(f"/v1/studies/{study_id}/extend", json={"trials": 7}, headers={"idempotency-key": "yet more"})
    assert again.json()["trials"]["budget"] == 19


def test_a_repeated_command_is_no_conflict(client: TestClient) -> None:
    study_id = submit(client, "a").json()["id"]
    for verb in ("pause", "resume", "cancel"):
        for _ in range(2):
            answer = client.post(f"/v1/studies/{study_id}/{verb}", headers={"idempotency-key": verb})
            assert answer.status_code == 200, verb


def test_a_replay_is_one(client: TestClient) -> None:
    study_id = submit(client, "a").json()["id"]
    ids = {
        client.post(f"/v1/studies/{study_id}/replay", headers={"idempotency-key": "again"}).json()["id"] for _ in range(2)
    }
    assert len(ids) == 1


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_a_key_has_bounds(client: TestClient, key: str) -> None:
    answer = client.post("/v1/studies", json=SPEC, headers={"idempotency-key": key})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "idempotency-key"
