"""Promises to whoever shares the service: owners have, keep and send no more than their quota, and see their own usage."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from service.api.app import create_app
from service.api.rates import Buckets
from service.settings import Settings
from service.store import Store
from tests.security.conftest import Owner

SPEC = {"data": {"dataset": "wine"}, "budget": {"trials": 5}}
ROWS = "a,b,y\n" + "".join(f"{n},{n % 7},{n % 2}\n" for n in range(1000))


@pytest.fixture
def limits() -> dict[str, int]:
    return {"quota_running": 3, "quota_trials": 100, "quota_bytes": 5000}


@pytest.fixture
def limited(store: Store, settings: Settings, limits: dict[str, int]) -> Iterator[TestClient]:
    app: FastAPI = create_app(store, settings.model_copy(update=limits))
    with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as opened:
        yield opened


def test_an_owner_has_no_more_open_than_its_quota(limited: TestClient, ann: Owner, bob: Owner) -> None:
    """Two are open from the beginning. Another owner's count for that one, and admins are not held up."""
    assert limited.post("/v1/studies", json=SPEC, headers=ann.headers("submit")).status_code == 201
    answer = limited.post("/v1/studies", json=SPEC, headers=ann.headers("submit"))
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "60")
    assert answer.json()["detail"] == "ann would have 4 studies that have not ended; its quota is 3"
    assert limited.post("/v1/studies", json=SPEC, headers=bob.headers("submit")).status_code == 201
    assert limited.post("/v1/studies", json=SPEC, headers=ann.headers("admin")).status_code == 201
    for study in (ann.study, ann.external):
        limited.post(f"/v1/studies/{study}/cancel", headers=ann.headers("submit"))
    assert limited.post("/v1/studies", json=SPEC, headers=ann.headers("submit")).status_code == 201


def test_no_way_round_the_trials(limited: TestClient, ann: Owner) -> None:
    """62 trials are left: neither a submit nor any change of a study gets more than 100."""
    headers = ann.headers("submit")
    many = {**SPEC, "budget": {"trials": 39}}
    attempts = [
        limited.post("/v1/studies", json=many, headers=headers),
        limited.post(f"/v1/studies/{ann.study}/extend", json={"trials": 39}, headers=headers),
        limited.patch(f"/v1/studies/{ann.study}", json={"budget": {"trials": 99}}, headers=headers),
        limited.post(f"/v1/studies/{ann.study}/replay", headers=headers),
    ]
    assert [answer.status_code for answer in attempts] == [429] * 4
    assert {answer.json()["detail"] for answer in attempts[:3]} == {
        "ann would have 101 trials left in its studies; its quota is 100"
    }
    assert limited.get(f"/v1/studies/{ann.study}", headers=headers).json()["trials"]["budget"] == 60
    fits = limited.patch(f"/v1/studies/{ann.study}", json={"budget": {"trials": 98}}, headers=headers)
    assert fits.status_code == 200


def test_an_upload_above_the_quota_leaves_nothing(limited: TestClient, ann: Owner, settings: Settings) -> None:
    before = {path.name for path in settings.datasets_dir.iterdir()}
    answer = limited.post("/v1/datasets", files={"file": ("a.csv", ROWS)}, headers=ann.headers("submit"))
    assert (answer.status_code, "its quota is 5000: delete some first" in answer.json()["detail"]) == (403, True)
    assert {path.name for path in settings.datasets_dir.iterdir()} == before
    assert limited.post(
        "/v1/datasets", files={"file": ("a.csv", "\n".join(ROWS.splitlines()[:60]))}, headers=ann.headers("submit")
    ).is_success


def test_owners_see_their_own_usage(limited: TestClient, ann: Owner, bob: Owner) -> None:
    (mine,) = limited.get("/v1/usage", headers=ann.headers("read")).json()
    assert (mine["owner"], mine["studies"], mine["running"], mine["trials_left"]) == ("ann", 3, 2, 62)
    assert mine["dataset_bytes"] > 0
    assert mine["quotas"] == {"running": 3, "trials": 100, "bytes": 5000, "requests": None}
    everybody = limited.get("/v1/usage", headers=ann.headers("admin")).json()
    assert [each["owner"] for each in everybody] == ["ann", "bob"]


@pytest.mark.parametrize(("scope", "seen"), [("read", {"ann"}), ("submit", {"ann"}), ("admin", {"ann", "bob"})])
def test_metrics_name_no_other_owner(limited: TestClient, ann: Owner, bob: Owner, scope: str, seen: set[str]) -> None:
    text = limited.get("/metrics", headers=ann.headers(scope)).text
    samples = [each for family in text_string_to_metric_families(text) for each in family.samples]
    assert {each.labels["owner"] for each in samples if "owner" in each.labels} == seen
    assert [each.value for each in samples if each.name == "regsearch_owner_running" and each.labels["owner"] == "ann"] == [
        2
    ]


@pytest.mark.parametrize("limits", [{"quota_requests": 4}])
def test_an_owner_sends_no_more_requests_than_its_quota(limited: TestClient, ann: Owner, bob: Owner) -> None:
    """Whichever of its tokens it uses; what is not asked for a token is not counted."""
    answers = [
        limited.get("/v1/studies", headers=ann.headers(scope)) for scope in ("read", "submit", "admin", "read", "read")
    ]
    assert [answer.status_code for answer in answers] == [200] * 4 + [429]
    refused = answers[-1]
    assert refused.headers["content-type"] == "application/problem+json"
    assert 1 <= int(refused.headers["retry-after"]) <= 15
    assert limited.get("/v1/studies", headers=bob.headers("read")).status_code == 200
    assert [limited.get("/healthz").status_code for _ in range(9)] == [200] * 9
    assert limited.get("/v1/studies").status_code == 401


def test_a_bucket_is_filled_evenly() -> None:
    now = 1000.0
    limit = Buckets(30, clock=lambda: now)
    assert [limit.take("ann") for _ in range(31)] == [0] * 30 + [2]
    assert limit.take("bob") == 0
    now += 1.0
    assert limit.take("ann") == 1
    now += 1.0
    assert [limit.take("ann") for _ in range(2)] == [0, 2]
    now += 10_000.0
    assert [limit.take("ann") for _ in range(31)] == [0] * 30 + [2]
