"""Lists: tags and other filters, their order, and links to their other parts; notes are escaped wherever they are shown."""

from __future__ import annotations

import re
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.store import Store
from tests.api.test_routes import finish, submit


def names(client: TestClient, **query: Any) -> list[str]:
    answer = client.get("/v1/studies", params=query)
    assert answer.status_code == 200, answer.text
    return [study["name"] for study in answer.json()["studies"]]


def test_studies_are_found_by_their_tags(client: TestClient) -> None:
    submit(client, name="a", tags=["credit risk", "v2"])
    submit(client, name="b", tags=["v2", "v2"])
    submit(client, name="c")
    assert names(client, tag="v2") == ["b", "a"]
    assert names(client, tag=["v2", "credit risk"]) == ["a"]
    assert names(client, tag="v") == []
    assert client.get("/v1/studies/2").json()["tags"] == ["v2"]
    client.patch("/v1/studies/2", json={"tags": ["ünïcode/3.1", "v2"]})
    assert names(client, tag="ünïcode/3.1") == ["b"]
    client.patch("/v1/studies/2", json={"tags": []})
    assert names(client, tag="v2") == ["a"]
    assert [each["what"] for each in client.get("/v1/studies/2/changes").json()["changes"]] == [
        {"tags": [["ünïcode/3.1", "v2"], []]},
        {"tags": [["v2"], ["ünïcode/3.1", "v2"]]},
    ]
    client.post("/v1/studies/1/cancel")
    client.delete("/v1/studies/1")
    assert names(client, tag="v2") == []


@pytest.mark.parametrize("tags", [["a,b"], [""], [" a"], ["a\nb"], ["x" * 51], ["t"] * 21, "v2", ["<b>"]])
def test_what_is_no_tag_is_refused(client: TestClient, tags: Any) -> None:
    for send in (client.post, client.patch):
        submit(client)
        path = "/v1/studies" if send == client.post else "/v1/studies/1"
        answer = send(path, json={"tags": tags, **({"data": {"dataset": "diabetes"}} if send == client.post else {})})
        assert answer.status_code == 422, answer.text
        assert answer.json()["errors"][0]["field"].startswith("tags")


def test_tags_and_notes_of_an_ended_study_may_be_changed(client: TestClient, store: Store) -> None:
    submit(client)
    finish(store)
    found = client.patch("/v1/studies/1", json={"tags": ["good"], "notes": "*Keep*"}).json()
    assert (found["state"], found["tags"], found["notes"]) == ("finished", ["good"], "*Keep*")
    assert found["spec"]["notes"] == "*Keep*"
    assert client.patch("/v1/studies/1", json={"tags": ["better"], "priority": 5}).status_code == 409
    assert client.get("/v1/studies/1").json()["tags"] == ["good"]


def test_a_replay_keeps_the_tags(client: TestClient, store: Store) -> None:
    submit(client, tags=["v2"], notes="the first")
    finish(store)
    client.post("/v1/studies/1/replay")
    assert len(names(client, tag="v2")) == 2


def test_notes_are_escaped_wherever_they_are_shown(client: TestClient, store: Store) -> None:
    notes = "<script>alert(1)</script>\n\n# Title [x](javascript:alert(1))"
    submit(client, notes=notes, tags=["v2"])
    for end in (False, True):
        if end:
            finish(store)
        page = client.get("/studies/1").text
        assert "<script>alert" not in page
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
        assert not re.search(r"href=.javascript", page)
    assert "<script>alert" not in client.get("/v1/studies/1/report").text
    assert client.get("/v1/studies/1").json()["notes"] == notes
    assert client.patch("/v1/studies/1", json={"notes": "x" * 20_001}).status_code == 422
    assert client.patch("/v1/studies/1", json={"notes": "a\u0000"}).status_code == 422


def test_the_page_of_all_studies_has_their_tags(client: TestClient) -> None:
    submit(client, name="tagged", tags=["a+b c"])
    submit(client, name="plain")
    assert 'href="/?tag=a%2Bb%20c">a+b c</a>' in client.get("/").text
    page = client.get("/", params={"tag": "a+b c"}).text
    assert "tagged" in page
    assert "plain" not in page
    assert "No study has the tag “<" not in client.get("/", params={"tag": "<b>"}).text
    assert "No study has the tag “&lt;b&gt;”" in client.get("/", params={"tag": "<b>"}).text


def test_studies_are_filtered_by_metric_and_sorted(client: TestClient, store: Store) -> None:
    submit(client, name="b", priority=1)
    finish(store)
    submit(client, name="A", metric="mae")
    submit(client, name="c", priority=9)
    assert names(client) == ["c", "A", "b"]
    assert names(client, sort="oldest") == ["b", "A", "c"]
    assert names(client, sort="name") == ["A", "b", "c"]
    assert names(client, sort="priority") == ["c", "b", "A"]
    assert names(client, sort="finished") == ["b", "c", "A"]
    assert names(client, metric="rmse", sort="best") == ["b", "c"]
    assert names(client, metric="rmse", state="finished") == ["b"]
    answer = client.get("/v1/studies", params={"sort": "best"})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "sort")
    assert client.get("/v1/studies", params={"sort": "worst"}).status_code == 422


def test_the_best_of_a_metric_comes_first_in_its_direction(client: TestClient, store: Store) -> None:
    for name, value in (("low", 0.25), ("high", 0.75)):
        body = {
            "executor": "external",
            "name": name,
            "metric": "score",
            "direction": "maximize",
            "space": {"dropout": [0, 0.1]},
        }
        study = client.post("/v1/studies", json=body).json()["id"]
        (trial,) = client.post(f"/v1/studies/{study}/trials:ask", json={"client": "program-1"}).json()["trials"]
        told = {"client": "program-1", "trials": [{"trial": trial["trial"], "value": value}]}
        assert client.post(f"/v1/studies/{study}/trials:tell", json=told).status_code == 200
    assert names(client, metric="score", sort="best") == ["high", "low"]


def test_lists_link_to_their_other_parts(client: TestClient, store: Store) -> None:
    for number in range(5):
        submit(client, name=f"study {number}", tags=["v 2"])
    seen, path = [], "/v1/studies?limit=2&tag=v+2"
    while path:
        answer = client.get(path)
        seen += [study["name"] for study in answer.json()["studies"]]
        found = {name: url for url, name in re.findall(r'<([^>]*)>; rel="(\w+)"', answer.headers["link"])}
        assert found["first"] == "/v1/studies?tag=v+2&offset=0&limit=2"
        assert found["last"] == "/v1/studies?tag=v+2&offset=4&limit=2"
        path = found.get("next", "")
    assert seen == [f"study {number}" for number in (4, 3, 2, 1, 0)]
    assert found["prev"] == "/v1/studies?tag=v+2&offset=2&limit=2"
    finish(store)
    assert 'rel="next"' in client.get("/v1/studies/1/trials?limit=2").headers["link"]
    alone = client.get("/v1/studies/1/changes").headers["link"]
    assert re.findall(r'rel="(\w+)"', alone) == ["first", "last"]
