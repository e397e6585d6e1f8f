"""No way around a scope or an owner: every route, with a token of every scope, on own and on foreign objects."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from service.api.access import OPEN
from service.api.app import create_app
from service.settings import Settings
from service.store import Store
from tests.security.conftest import BOB, SCOPES, Owner, bearer

READS = {"read", "submit", "admin"}
CHANGES = {"submit", "admin"}
ALLOWED: dict[str, set[str]] = {
    "GET /v1/studies": READS,
    "POST /v1/studies": CHANGES,
    "POST /v1/studies/dry-run": CHANGES,
    "POST /v1/studies:restore": CHANGES,
    "GET /v1/studies/{study_id}": {*READS, "worker"},
    "PATCH /v1/studies/{study_id}": CHANGES,
    "GET /v1/studies/{study_id}/changes": READS,
    "GET /v1/studies/{study_id}/events": READS,
    "GET /v1/studies/{study_id}/archive": READS,
    "GET /v1/studies/{study_id}/export": READS,
    "GET /v1/studies/{study_id}/sharing": READS,
    "PUT /v1/studies/{study_id}/sharing": CHANGES,
    "GET /v1/datasets/{dataset_id}/sharing": READS,
    "PUT /v1/datasets/{dataset_id}/sharing": CHANGES,
    "GET /v1/events": READS,
    "GET /v1/studies/{study_id}/trials": READS,
    "GET /v1/studies/{study_id}/trials/{number}": READS,
    "POST /v1/studies/{study_id}/trials/{number}/stop": CHANGES,
    "GET /v1/studies/{study_id}/result": READS,
    "GET /v1/studies/{study_id}/report": READS,
    "GET /v1/studies/{study_id}/model": READS,
    "GET /v1/studies/{study_id}/comparison": READS,
    "POST /v1/studies/{study_id}/cancel": CHANGES,
    "POST /v1/studies/{study_id}/pause": CHANGES,
    "POST /v1/studies/{study_id}/resume": CHANGES,
    "POST /v1/studies/{study_id}/extend": CHANGES,
    "POST /v1/studies/{study_id}/replay": CHANGES,
    "DELETE /v1/studies/{study_id}": CHANGES,
    "POST /v1/studies/{study_id}/trials:ask": {*CHANGES, "worker"},
    "POST /v1/studies/{study_id}/trials:report": {*CHANGES, "worker"},
    "POST /v1/studies/{study_id}/trials:tell": {*CHANGES, "worker"},
    "POST /v1/studies/{study_id}/trials:heartbeat": {*CHANGES, "worker"},
    "POST /v1/studies/{study_id}/trials:release": {*CHANGES, "worker"},
    "GET /v1/datasets": READS,
    "POST /v1/datasets": CHANGES,
    "GET /v1/datasets/{dataset_id}": READS,
    "DELETE /v1/datasets/{dataset_id}": CHANGES,
    "GET /v1/modules": READS,
    "GET /v1/workers": {"admin"},
    "POST /v1/prune": {"admin"},
    "GET /v1/queue": READS,
    "GET /v1/compare": READS,
    "POST /v1/webhooks": CHANGES,
    "GET /v1/webhooks": CHANGES,
    "GET /v1/webhooks/{webhook_id}": CHANGES,
    "PATCH /v1/webhooks/{webhook_id}": CHANGES,
    "DELETE /v1/webhooks/{webhook_id}": CHANGES,
    "POST /v1/webhooks/{webhook_id}/rotate": CHANGES,
    "POST /v1/webhooks/{webhook_id}/test": CHANGES,
    "GET /v1/webhooks/{webhook_id}/deliveries": CHANGES,
    "POST /v1/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver": CHANGES,
    "GET /v1/audit": READS,
    "GET /v1/usage": READS,
    "GET /metrics": READS,
    "POST /v1/tokens": {"admin"},
    "GET /v1/tokens": {"admin"},
    "DELETE /v1/tokens/{token_id}": {"admin"},
    "GET /v1/token": set(SCOPES),
    "DELETE /v1/token": set(SCOPES),
}
"""Which scopes may send which request."""

BODIES: dict[str, Any] = {
    "POST /v1/studies": {"json": {"data": {"dataset": "wine"}}},
    "POST /v1/studies/dry-run": {"json": {"data": {"dataset": "wine"}}},
    "PATCH /v1/studies/{study_id}": {"json": {"priority": 1}},
    "POST /v1/studies/{study_id}/extend": {"json": {"trials": 1}},
    "POST /v1/studies:restore": {"files": {"file": ("a.zip", b"PK")}},
    **{
        f"PUT /v1/{kind}/{{{key}_id}}/sharing": {"json": {}} for kind, key in (("studies", "study"), ("datasets", "dataset"))
    },
    "POST /v1/prune": {"json": {"studies": 1, "dry_run": True}},
    "POST /v1/webhooks": {"json": {"url": "https://127.0.0.1/hook"}},
    "PATCH /v1/webhooks/{webhook_id}": {"json": {"description": "a hook"}},
    "POST /v1/webhooks/{webhook_id}/rotate": {"json": {}},
    "POST /v1/datasets": {"files": {"file": ("a.csv", "a,b\n1,2\n3,4\n5,6\n")}},
    "POST /v1/tokens": {"json": {"owner": "eve", "scope": "read"}},
    **{f"POST /v1/studies/{{study_id}}/trials:{verb}": {"json": {"client": "program-one"}} for verb in ("ask", "heartbeat")},
}


def routes(app: FastAPI) -> Iterator[str]:
    for path, operations in app.openapi()["paths"].items():
        if path not in OPEN:
            yield from (f"{method.upper()} {path}" for method in operations)


def send(client: TestClient, route: str, owner: Owner, headers: dict[str, str]) -> Any:
    method, path = route.split(" ")
    study = owner.external if "trials:" in path else owner.ended if path.endswith("/events") else owner.study
    names = {"study_id": study, "dataset_id": owner.dataset, "number": 0, "token_id": 999}
    names |= {"webhook_id": owner.webhook, "delivery_id": 1}
    address = re.sub(r"{(\w+)}", lambda place: str(names[place[1]]), path)
    address += {"/v1/compare": f"?ids={owner.study},{owner.ended}", "/v1/events": "?seconds=0"}.get(path, "")
    return client.request(method, address, headers=headers, **BODIES.get(route, {}))


def test_the_table_has_every_route(app: FastAPI) -> None:
    assert set(routes(app)) == set(ALLOWED)


@pytest.mark.parametrize("scope", SCOPES)
def test_a_token_does_what_its_scope_allows_and_nothing_else(client: TestClient, ann: Owner, scope: str) -> None:
    before = client.get("/v1/studies", headers=ann.headers("admin")).json()["total"]
    for route in sorted(ALLOWED):
        status = send(client, route, ann, ann.headers(scope)).status_code
        assert (status != 403) == (scope in ALLOWED[route]), (route, scope, status)
        assert status not in (401, 500), route
        if scope in ("read", "worker"):
            assert client.get("/v1/studies", headers=ann.headers("admin")).json()["total"] == before, route


@pytest.mark.parametrize("scope", [scope for scope in SCOPES if scope != "admin"])
def test_what_belongs_to_another_owner_does_not_exist(client: TestClient, ann: Owner, bob: Owner, scope: str) -> None:
    state = client.get(f"/v1/studies/{bob.study}", headers=bob.headers("read")).json()["state"]
    for route in sorted(ALLOWED):
        if re.search("{(study|dataset|webhook)_id}", route):
            answer = send(client, route, bob, ann.headers(scope))
            assert answer.status_code == (404 if scope in ALLOWED[route] else 403), route
            assert BOB not in answer.text
    assert client.get(f"/v1/studies/{bob.study}", headers=bob.headers("read")).json()["state"] == state


@pytest.mark.parametrize("whom", [{"owners": ["ann"]}, {"everybody": True}], ids=["one", "everybody"])
@pytest.mark.parametrize("scope", [scope for scope in SCOPES if scope != "admin"])
def test_what_is_shared_can_be_read_and_not_changed(
    client: TestClient, ann: Owner, bob: Owner, scope: str, whom: dict[str, Any]
) -> None:
    things = [f"studies/{each}" for each in (bob.study, bob.external, bob.ended)] + [f"datasets/{bob.dataset}"]
    for thing in things:
        answer = client.put(f"/v1/{thing}/sharing", json=whom, headers=bob.headers("submit"))
        assert (answer.status_code, answer.json()) == (200, {"owners": [], "everybody": False} | whom)
    before = [client.get(f"/v1/{thing}", headers=bob.headers("read")).json() for thing in things]
    own = {route: send(client, route, bob, bob.headers("read")).status_code for route in ALLOWED if route.startswith("GET")}
    for route in sorted(ALLOWED):
        if not re.search("{(study|dataset|webhook)_id}", route):
            continue
        status = send(client, route, bob, ann.headers(scope)).status_code
        if scope not in ALLOWED[route]:
            assert status == 403, route
        elif "{webhook_id}" in route:
            assert status == 404, route
        elif route.startswith("GET") and not route.endswith("/sharing"):
            assert status == own[route], route
            assert status != 403, route
        else:
            assert status == 403, route
    after = [client.get(f"/v1/{thing}", headers=bob.headers("read")).json() for thing in things]
    for earlier, later in zip(before, after, strict=True):
        assert {name: later.get(name) for name in ("state", "tags", "trials")} == {
            name: earlier.get(name) for name in ("state", "tags", "trials")
        }


def test_what_is_shared_is_in_lists_pages_and_studies_until_it_is_not(
    client: TestClient, ann: Owner, bob: Owner, store: Store
) -> None:
    mine, theirs = ann.headers("submit"), bob.headers("submit")
    using = {"data": {"dataset": bob.dataset, "target": "y"}}
    for given in (True, False):
        for thing in (f"studies/{bob.study}", f"datasets/{bob.dataset}"):
            whom = {"owners": ["ann"] if given else []}
            assert client.put(f"/v1/{thing}/sharing", json=whom, headers=theirs).status_code == 200
        studies = client.get("/v1/studies", headers=mine).json()
        assert (bob.study in [each["id"] for each in studies["studies"]]) is given
        assert studies["total"] == 3 + given
        assert client.get("/v1/studies", params={"owner": "bob"}, headers=mine).json()["total"] == given
        page = client.get("/", headers={**mine, "accept": "text/html"}).text
        assert ("of bob" in page) is given
        for path in (f"/studies/{bob.study}", f"/v1/compare?ids={ann.study},{bob.study}", f"/v1/studies/{bob.study}/trials"):
            assert client.get(path, headers=mine).status_code == (200 if given else 404), path
        names = [each["id"] for each in client.get("/v1/datasets", headers=mine).json()]
        assert (bob.dataset in names) is given
        assert client.post("/v1/studies/dry-run", json=using, headers=mine).status_code == (200 if given else 422)
        told = client.get("/v1/events", params={"since": 0, "seconds": 0}, headers=mine).text
        assert ("of bob" in told) is given
        hooks = client.get("/v1/webhooks", headers=ann.headers("submit")).json()
        assert "bob" not in {each["owner"] for each in hooks}
    record = client.get(f"/v1/studies/{bob.study}/changes", headers=theirs).json()["changes"]
    assert [each["what"]["shared"] for each in record] == [[["ann"], []], [[], ["ann"]]]
    logged = client.get("/v1/audit", params={"under": f"studies/{bob.study}"}, headers=theirs).json()["entries"]
    assert [each["method"] for each in logged][:2] == ["PUT", "PUT"]


@pytest.mark.parametrize("spelling", ["{}", "+{}", "0{}", " {}", "{}.0", "%2B{}", "0_{}"])
def test_another_spelling_of_an_id_leads_nowhere_else(client: TestClient, ann: Owner, bob: Owner, spelling: str) -> None:
    for rest in ("", "/trials", "/result"):
        path = f"/v1/studies/{spelling.format(bob.study)}{rest}"
        answer = client.get(path, headers=ann.headers("submit"))
        assert answer.status_code in (404, 422), path
        assert "of bob" not in answer.text


def test_lists_have_what_is_the_owners_only(client: TestClient, ann: Owner, bob: Owner) -> None:
    mine = client.get("/v1/studies", headers=ann.headers("read")).json()
    assert {study["owner"] for study in mine["studies"]} == {"ann"}
    assert mine["total"] == 3
    names = [each["id"] for each in client.get("/v1/datasets", headers=ann.headers("read")).json()]
    assert ann.dataset in names
    assert bob.dataset not in names
    assert client.get("/v1/studies", headers=ann.headers("admin")).json()["total"] == 6


def test_a_study_can_t_use_what_is_another_owners(client: TestClient, ann: Owner, bob: Owner, store: Store) -> None:
    headers = ann.headers("submit")
    foreign: list[tuple[dict[str, Any], str]] = [
        ({"data": {"dataset": bob.dataset, "target": "y"}}, "data.dataset"),
        ({"data": {"dataset": "wine"}, "model": {"start_from": bob.study}}, "model.start_from"),
        ({"data": {"dataset": "wine"}, "search_from": [bob.study]}, "search_from"),
        ({"data": {"dataset": "wine"}, "owner": "bob"}, "owner"),
        ({"executor": "external", "metric": "rmse", "space": {"dropout": [0, 0.1]}, "owner": "bob"}, "owner"),
    ]
    for spec, field in foreign:
        answer = client.post("/v1/studies", json=spec, headers=headers)
        assert answer.status_code == 422, spec
        assert answer.json()["errors"][0]["field"].startswith(field)
        assert bob.dataset not in str(answer.json()["errors"][0]["allowed"])
        if field == "search_from":  # told as if it did not exist
            unknown = {**spec, "search_from": [999]}
            again = client.post("/v1/studies", json=unknown, headers=headers).json()["errors"][0]["message"]
            assert again.replace("999", str(bob.study)) == answer.json()["errors"][0]["message"]


def test_an_admin_may_submit_for_anybody(client: TestClient, ann: Owner) -> None:
    for owner, expected in ((None, "ann"), ("carol", "carol")):
        spec = {"data": {"dataset": "wine"}, **({"owner": owner} if owner else {})}
        assert client.post("/v1/studies", json=spec, headers=ann.headers("admin")).json()["owner"] == expected


def test_a_name_and_a_source_are_their_owners_own(client: TestClient, ann: Owner, bob: Owner) -> None:
    rows = "a,b,y\n" + "".join(f"{n},{n * n},{n % 2}\n" for n in range(50))
    for owner, name in ((ann, "of-ann"), (bob, "of-bob")):
        file = {"file": (f"file-{name}.csv", rows)}
        made = client.post("/v1/datasets", headers=owner.headers("submit"), files=file, data={"name": name}).json()
    for owner, own, foreign in ((ann, "of-ann", "of-bob"), (bob, "of-bob", "of-ann")):
        for path in ("/v1/datasets", f"/v1/datasets/{made['id']}"):
            told = client.get(path, headers=owner.headers("read")).text
            assert f"file-{own}.csv" in told
            assert foreign not in told
        assert client.get(f"/v1/datasets/{made['id']}", headers=owner.headers("read")).json()["owners"] == [own[3:]]
    whole = client.get(f"/v1/datasets/{made['id']}", headers=ann.headers("admin")).json()
    assert set(whole["owners"]) == {"ann", "bob"}


def test_the_same_rows_are_each_owners_own(client: TestClient, ann: Owner, bob: Owner, settings: Settings) -> None:
    rows = {"file": ("same.csv", "a,b,y\n" + "".join(f"{n},{n * n},{n % 2}\n" for n in range(50)))}
    first, second = (
        client.post("/v1/datasets", files=rows, headers=owner.headers("submit")).json()["id"] for owner in (ann, bob)
    )
    assert first == second
    assert client.delete(f"/v1/datasets/{first}", headers=ann.headers("submit")).status_code == 204
    assert client.get(f"/v1/datasets/{first}", headers=ann.headers("read")).status_code == 404
    assert client.get(f"/v1/datasets/{first}", headers=bob.headers("read")).status_code == 200
    assert [*settings.datasets_dir.glob(f"{first}*")]
    assert client.delete(f"/v1/datasets/{first}", headers=bob.headers("submit")).status_code == 204
    assert not [*settings.datasets_dir.glob(f"{first}*")]


def test_the_dashboard_shows_everybodys_studies_so_only_to_admins(client: TestClient, ann: Owner) -> None:
    for path, scope in itertools.product(("/dashboard", "/api/studies", "/static/bundle.js"), SCOPES):
        status = client.get(path, headers=ann.headers(scope)).status_code
        assert (status == 403) == (scope != "admin"), (path, scope)


def test_a_dashboard_of_its_own_asks_for_tokens_too(store: Store, settings: Settings, ann: Owner) -> None:
    only = settings.model_copy(update={"dashboard": "only"})
    with TestClient(create_app(store, only), base_url="http://localhost") as client:
        assert client.get("/api/studies").status_code == 401
        assert client.get("/api/studies", headers=ann.headers("admin")).status_code == 200
        assert client.get("/v1/studies", headers=ann.headers("admin")).status_code == 404
        assert client.get("/login").status_code == 200


def test_the_log_tells_who_did_what(client: TestClient, ann: Owner, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="regsearch.access"):
        client.post(f"/v1/studies/{ann.study}/cancel", headers=ann.headers("submit"))
    record = caplog.records[-1].__dict__
    assert (record["owner"], record["path"], record["status"]) == ("ann", f"/v1/studies/{ann.study}/cancel", 200)
    assert record["token"] > 0
    assert ann.tokens["submit"] not in str(record)


def test_the_description_has_the_security_schemes(client: TestClient, ann: Owner) -> None:
    document = client.get("/openapi.json").json()
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert ("security" in operation) == (path not in OPEN), path
            if path not in OPEN:
                assert {"401", "403"} <= set(operation["responses"])


def test_an_id_that_no_database_can_hold_is_no_way_round(client: TestClient, ann: Owner) -> None:
    for path in ("/v1/studies/99999999999999999999", "/v1/studies/-1", "/v1/datasets/%00", "/v1/studies/%00"):
        assert client.get(path, headers=ann.headers("read")).status_code in (404, 422), path
    assert client.get("/v1/studies", headers=bearer("\x00")).status_code in (400, 401)


def test_studies_of_another_owner_can_t_be_compared(client: TestClient, ann: Owner, bob: Owner) -> None:
    for path in ("/v1/compare", "/compare"):
        for ids, status in ((f"{ann.study},{bob.study}", 404), (f"{bob.study}", 404), (f"{ann.study},{ann.ended}", 200)):
            answer = client.get(path, params={"ids": ids}, headers=ann.headers("read"))
            assert answer.status_code == status, (path, ids)
            assert BOB not in answer.text
        assert client.get(path, params={"ids": bob.study}, headers=ann.headers("admin")).status_code == 200
        assert client.get(path, params={"ids": ann.study}, headers=ann.headers("worker")).status_code == 403
