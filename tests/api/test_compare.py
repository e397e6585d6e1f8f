"""Studies beside each other: as JSON, as a page, at every point, and only one's own."""

from __future__ import annotations

import re
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.store import Store
from tests import results as made_up
from tests.api import test_programs
from tests.api.test_routes import finish, submit


def compared(client: TestClient, ids: str) -> dict[str, Any]:
    answer = client.get("/v1/compare", params={"ids": ids})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_finished_studies_have_their_scores_and_curves(client: TestClient, store: Store) -> None:
    submit(client, name="first", tags=["v1"])
    finish(store)
    submit(client, name="second")
    found = compared(client, "2,1")
    assert [study["id"] for study in found["studies"]] == [2, 1]
    queued, first = found["studies"]
    expected = made_up.result(verdict="good")
    assert (first["name"], first["state"], first["tags"], first["verdict"]) == ("first", "finished", ["v1"], "good")
    assert (first["best"]["number"], first["best"]["value"], first["best"]["curve"]) == (0, 1.0, [3.0, 2.0, 1.0])
    assert first["validation"] == expected.winner.valid.mean
    test = expected.winner.test
    assert first["test"] == {"mean": test.mean, "low": test.low, "high": test.high}
    assert expected.baseline.test is not None
    assert first["unregularized"]["mean"] == expected.baseline.test.mean
    assert (queued["best"], queued["test"], queued["verdict"]) == (None, None, None)
    assert found["doubts"] == []
    assert found["differences"] == [], "nothing is known of one of them"


def test_recipes_differ_where_they_differ(client: TestClient) -> None:
    ids = []
    for dropout in (0.1, 0.3):
        body = {"space": {"dropout": [dropout], "weight_decay": [0.01], "custom": {"hidden": [8, 16]}}}
        study = test_programs.submit(client, **body, budget={"trials": 1, "epochs": 6}, finals=False)
        (trial,) = test_programs.ask(client, study)
        given = [{"trial": trial["trial"], "step": step, "value": 1 - step / 10} for step in range(3)]
        test_programs.send(client, study, "report", values=given)
        test_programs.send(client, study, "tell", trials=[{"trial": trial["trial"]}])
        ids.append(study)
    found = compared(client, ",".join(map(str, ids)))
    settings = {each["setting"]: each["values"] for each in found["differences"]}
    assert settings["dropout"] == [0.1, 0.3]
    assert "weight_decay" not in settings
    assert [study["best"]["curve"] for study in found["studies"]] == [[1.0, 0.9, 0.8]] * 2


def test_why_values_may_not_be_compared_is_told(client: TestClient) -> None:
    submit(client)
    submit(client, metric="mae")
    submit(client, data={"dataset": "wine"})
    assert compared(client, "1")["doubts"] == []
    (metrics,) = compared(client, "1,2")["doubts"]
    assert "different metrics (rmse, mae)" in metrics
    assert len(compared(client, "1,3")["doubts"]) == 2


def test_the_page_shows_the_same(client: TestClient, store: Store) -> None:
    submit(client, name="<b>first</b>")
    finish(store)
    submit(client, name="second")
    answer = client.get("/compare", params={"ids": "1, 2"})
    assert answer.status_code == 200
    assert "<b>first" not in answer.text
    assert "&lt;b&gt;first" in answer.text
    for part in ("Study 1 and study 2", "Scores", "Curves of the best trials", "<svg", 'href="/studies/2"'):
        assert part in answer.text, part
    assert "<script" not in answer.text
    assert re.search(r"\d \(.* to .*\)", answer.text), "a test score with its interval"
    assert 'action="/compare"' in client.get("/").text
    assert "Study 2" in client.get("/compare", params={"ids": "2"}).text


@pytest.mark.parametrize("ids", ["", "a", "1,", "-1", "0", "1;2", "99999999999", "1,2,3,4,5,6,7,8,9,10,11", "²"])
def test_what_are_no_ids_is_refused(client: TestClient, ids: str) -> None:
    for path in ("/v1/compare", "/compare"):
        answer = client.get(path, params={"ids": ids})
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "ids"), answer.text


def test_a_study_that_is_not_there_is_not_found(client: TestClient) -> None:
    submit(client)
    assert client.get("/v1/compare?ids=1,9").status_code == 404
