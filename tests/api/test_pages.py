"""The pages for people: all studies, one as it goes, the form for a new one."""

from __future__ import annotations

import re

import pytest
from fastapi.testclient import TestClient

from service.api.pages import PRESETS, policy_for
from service.store import Store
from tests.api.test_programs import run, submit


def test_a_service_without_studies_tells_how_to_begin(client: TestClient) -> None:
    page = client.get("/")
    assert page.status_code == 200
    assert "There are no studies yet" in page.text
    assert 'href="/new"' in page.text


def test_all_studies_are_listed_newest_first_and_found_by_name(client: TestClient) -> None:
    for name in ("first of all", "100% <b>bold</b>", "the last"):
        submit(client, name=name)
    text = client.get("/").text
    assert text.index("the last") < text.index("first of all")
    assert "<b>bold" not in text
    assert "100% &lt;b&gt;bold" in text
    assert "0 of 12 trials" in text
    found = client.get("/", params={"name": "LAST"}).text
    assert "the last" in found
    assert "first of all" not in found
    assert "&lt;b&gt;bold" in client.get("/", params={"name": "0%"}).text
    assert "No study has" in client.get("/", params={"name": "_"}).text


def test_lists_are_filtered_over_rest_too(client: TestClient) -> None:
    submit(client, name="one", owner="ann")
    submit(client, name="two", owner="bob")
    for query, names in (({"name": "O"}, ["two", "one"]), ({"owner": "ann"}, ["one"]), ({"owner": "eve"}, [])):
        studies = client.get("/v1/studies", params=query).json()
        assert [study["name"] for study in studies["studies"]] == names
        assert studies["total"] == len(names)
    assert client.get("/v1/studies", params={"name": "\0"}).status_code == 422
    assert client.get("/", params={"name": "\0"}).status_code == 422


def test_a_long_study_shows_its_latest_trials(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    study_id = submit(client)
    run(client, study_id)
    monkeypatch.setattr("service.api.pages._MOST_TRIALS", 3)
    page = client.get(f"/studies/{study_id}").text
    assert "The latest 3 of 12 trials." in page
    assert "trial 11" in page
    assert "trial 8<" not in page


def test_a_study_is_shown_at_every_point(client: TestClient, store: Store) -> None:
    study_id = submit(client)
    queued = client.get(f"/studies/{study_id}").text
    assert "waits for a program that asks for trials" in queued
    assert "<script>" in queued
    run(client, study_id)
    finished = client.get(f"/studies/{study_id}").text
    for part in ("regularization", "12 / 12", "How the search goes", "Latest trials", f"/v1/studies/{study_id}/report"):
        assert part in finished
    assert "<script>" not in finished
    failed = submit(client, budget={"trials": 2, "max_failed_trials": 0})
    store.studies.cancel(failed)
    assert "is cancelled" in client.get(f"/studies/{failed}").text
    assert client.get("/studies/99").status_code == 404


@pytest.mark.parametrize("path", ["/", "/new", "/studies/1"])
def test_a_page_runs_its_own_script_only(client: TestClient, path: str) -> None:
    submit(client)
    page = client.get(path)
    (script,) = re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL)
    assert page.headers["content-security-policy"] == policy_for(script)
    assert "unsafe-inline" not in page.headers["content-security-policy"].split("script-src")[1]
    assert page.headers["cache-control"] == "no-store"
    assert not re.findall(r"(?:src|href)=\"(?:https?:)?//", page.text)


def test_the_form_offers_every_preset(client: TestClient) -> None:
    assert len(PRESETS) > 5
    assert all(f"<option>{preset}</option>" in client.get("/new").text for preset in PRESETS)
