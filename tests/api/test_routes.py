"""Every route, with a real store behind it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.errors import InvalidInput
from service.result import Result
from service.settings import Settings
from service.store import Store
from service.store.records import Proposal, Report, TrialResult
from service.trained import TrainedModels
from tests import results as made_up
from tests.contract.test_trials import proposals
from tests.trained import keep_onnx, models_of

SMALL = {"data": {"dataset": "diabetes"}, "budget": {"trials": 3, "epochs": 4}}
CSV = "age,job,class\n" + "".join(f"{20 + i},{'ab'[i % 2]},{'yes' if i % 3 else 'no'}\n" for i in range(60))


def submit(client: TestClient, **parts: Any) -> dict[str, Any]:
    answer = client.post("/v1/studies", json=SMALL | parts)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def finish(
    store: Store, result: Result | None = None, archive: bytes | None = None, models: TrainedModels | None = None
) -> None:
    """Three trials and a result, as a worker would write them."""
    lease = store.leases.claim("worker", 60)
    assert lease is not None
    trials = store.trials.ask(lease, [Proposal(p.params, p.distributions) for p in proposals(3)])
    reports = [Report(trial.id, step, 3.0 - step) for trial in trials for step in range(2)]
    results = [
        TrialResult(trials[0].id, "complete", 1.0, 2, "converged", 3, {"rmse": [3.0, 2.0, 1.0], "loss": [1.0, 1.0, 1.0]}),
        TrialResult(trials[1].id, "pruned", 2.0, 1, "pruned", 2, {"rmse": [3.0, 2.0]}),
        TrialResult(trials[2].id, "fail", None, None, "loss is not finite", 1),
    ]
    store.trials.record(lease, reports, results)
    final = store.leases.claim("worker", 60)
    assert final is not None
    kept = None if archive is None else (models or models_of(store)).keep(io.BytesIO(archive), "zip")
    store.studies.finish(final, (result or made_up.result(verdict="good")).to_json(), kept)


def test_a_submit_is_created_with_its_location_plan_and_warnings(client: TestClient) -> None:
    answer = client.post("/v1/studies", json=SMALL | {"space": {"preset": "default"}})
    assert (answer.status_code, answer.headers["location"]) == (201, "/v1/studies/1")
    found = answer.json()
    assert (found["state"], found["metric"], found["trials"]["budget"]) == ("queued", "rmse", 3)
    assert found["spec"]["task"] == "regression"
    assert found["plan"]["stacks"] == 3
    assert any("Li et al." in warning for warning in found["warnings"])
    assert client.get(answer.headers["location"]).json()["name"] == "study"


def uploaded(client: TestClient, text: str) -> dict[str, Any]:
    answer = client.post("/v1/datasets", files={"file": ("rows.csv", text.encode())})
    assert answer.status_code == 201
    found: dict[str, Any] = answer.json()
    return found


def test_what_may_be_read_otherwise_than_meant_is_told_at_upload_and_submit(client: TestClient) -> None:
    rows = "\n".join(f"{row if row % 9 else '?'},{row % 15 if row % 4 else ''}" for row in range(200))
    data = uploaded(client, f"a,y\n{rows}\n")
    (doubt,) = data["warnings"]
    assert "'a' is read as 178 categories, because of the words '?' among its numbers" in doubt
    body = SMALL | {"data": {"dataset": data["id"], "target": "y"}}
    told = " ".join(client.post("/v1/studies", json=body).json()["warnings"])
    assert doubt in told
    assert "50 of 200 rows have no value in the target 'y' and are left out" in told
    assert "15 distinct whole numbers and is read as a quantity" in told
    body = body | {"data": {"dataset": data["id"], "target": "y", "missing": ["?"]}, "task": "regression"}
    told = " ".join(client.post("/v1/studies", json=body).json()["warnings"])
    assert "categories" not in told
    assert "read as a quantity" not in told


def test_words_for_missing_values_need_a_file_that_has_words(client: TestClient) -> None:
    answer = client.post("/v1/studies", json=SMALL | {"data": {"dataset": "diabetes", "missing": ["?"]}})
    assert answer.status_code == 422
    assert "data.missing: applies to tables in files only" in answer.json()["detail"]


def test_a_study_reports_where_it_is(client: TestClient, store: Store) -> None:
    submit(client, name="mine")
    assert client.get("/v1/studies/1/result").json()["detail"] == "study 1 is queued: it has no result"
    finish(store)
    found = client.get("/v1/studies/1").json()
    assert found["state"] == "finished"
    assert found["trials"] == {
        "waiting": 0,
        "running": 0,
        "complete": 1,
        "pruned": 1,
        "fail": 1,
        "finished": 3,
        "budget": 3,
        "searches": 1,
    }
    assert (found["best"]["number"], found["best"]["value"], found["best"]["step"]) == (0, 1.0, 2)
    assert found["remaining_seconds"] == 0
    assert found["elapsed_seconds"] >= 0
    result = client.get(found["links"]["result"]).json()
    assert (result["verdict"], result["name"]) == ("good", "mine")


def test_trials_page_by_page_and_one_with_its_curves(client: TestClient, store: Store) -> None:
    submit(client)
    finish(store)
    page = client.get("/v1/studies/1/trials", params={"offset": 1, "limit": 1}).json()
    assert (page["total"], [trial["number"] for trial in page["trials"]]) == (3, [1])
    (pruned,) = client.get("/v1/studies/1/trials", params={"state": "pruned"}).json()["trials"]
    assert (pruned["stop_reason"], pruned["value"], pruned["best_step"], pruned["curve"]) == ("pruned", 2.0, 1, None)
    assert pruned["params"] == {"lr": 0.002, "norm": "batch", "step": 2}
    one = client.get("/v1/studies/1/trials/0").json()
    assert one["curve"] == {"rmse": [3.0, 2.0, 1.0], "loss": [1.0, 1.0, 1.0]}


def test_a_study_of_several_objectives_shows_all_of_them(client: TestClient, store: Store) -> None:
    made = submit(client, also=["gap", "r2"])
    assert made["objectives"] == {"rmse": "minimize", "gap": "minimize", "r2": "maximize"}
    assert made["spec"]["pruner"] == {"name": "none"}
    lease = store.leases.claim("worker", 60)
    assert lease is not None
    (trial,) = store.trials.ask(lease, proposals(1))
    result = TrialResult(trial.id, "complete", 1.0, 0, "epochs", 1, {"rmse": [1.0]}, {}, {"gap": 0.5, "r2": 0.25})
    store.trials.record(lease, [], [result])
    assert client.get("/v1/studies/1/trials").json()["trials"][0]["also"] == {"gap": 0.5, "r2": 0.25}
    assert client.get("/v1/studies/1/trials/0").json()["also"] == {"gap": 0.5, "r2": 0.25}
    assert client.get("/v1/studies").json()["studies"][0]["objectives"] == made["objectives"]
    shown = client.get("/api/studies/1").json()
    assert shown["directions"] == ["minimize", "minimize", "maximize"]
    assert shown["objective_names"] == ["rmse", "gap", "r2"]
    assert shown["trials"][0]["values"] == [1.0, 0.5, 0.25]
    assert "and validation **r2**, to be maximized" in shown["note"]["body"]


@pytest.mark.parametrize(
    ("parts", "field", "allowed"),
    [
        ({"also": ["gap"], "sampler": "cma_es"}, "sampler", "tpe, random, gp, nsga2, grid, qmc"),
        ({"also": ["gap"], "pruner": "hyperband"}, "pruner", "none"),
        ({"also": ["rmse"]}, "also", "each objective once, without `metric`"),
    ],
)
def test_objectives_that_can_not_be_searched_are_refused(
    client: TestClient, parts: dict[str, Any], field: str, allowed: str
) -> None:
    answer = client.post("/v1/studies", json=SMALL | parts)
    assert answer.status_code == 422
    (issue,) = answer.json()["errors"]
    assert (issue["field"], issue["allowed"]) == (field, allowed)


def test_lists_page_and_filter(client: TestClient) -> None:
    for number in range(4):
        submit(client, name=f"s{number}")
    client.post("/v1/studies/2/cancel")
    page = client.get("/v1/studies", params={"limit": 2}).json()
    assert (page["total"], [study["name"] for study in page["studies"]]) == (4, ["s3", "s2"])
    page = client.get("/v1/studies", params={"state": "cancelled"}).json()
    assert [study["id"] for study in page["studies"]] == [2]


def test_transitions(client: TestClient, store: Store) -> None:
    submit(client)
    assert client.post("/v1/studies/1/pause").json()["state"] == "paused"
    assert client.post("/v1/studies/1/resume").json()["state"] == "queued"
    assert client.post("/v1/studies/1/extend", json={"trials": 2}).json()["trials"]["budget"] == 5
    assert client.delete("/v1/studies/1").status_code == 409
    assert client.post("/v1/studies/1/cancel").json()["state"] == "cancelled"
    assert client.delete("/v1/studies/1").status_code == 204
    assert client.get("/v1/studies/1").status_code == 404


def test_a_data_set_is_uploaded_described_and_searched(client: TestClient) -> None:
    answer = client.post("/v1/datasets", files={"file": ("people.csv", CSV)}, data={"name": "people"})
    assert answer.status_code == 201
    dataset = answer.json()
    assert (dataset["name"], dataset["rows"]) == ("people", 60)
    assert {column["name"]: column["kind"] for column in dataset["columns"]} == {
        "age": "numeric",
        "job": "categorical",
        "class": "categorical",
    }
    assert (dataset.pop("unchanged"), dataset.pop("others")) == (False, [])
    assert client.get(answer.headers["location"]).json() == dataset
    assert [each["id"] for each in client.get("/v1/datasets").json()][:2] == [dataset["id"], "diabetes"]
    study = submit(client, data={"dataset": dataset["id"], "target": "class"})
    assert (study["metric"], study["spec"]["task"]) == ("accuracy", "classification")


def test_a_file_under_an_allowed_directory_is_searched(client: TestClient, tmp_path: Path) -> None:
    path = tmp_path / "allowed" / "people.csv"
    path.write_text(CSV)
    assert submit(client, data={"path": str(path), "target": "age"})["metric"] == "rmse"


def test_operations(client: TestClient, store: Store) -> None:
    submit(client)
    store.workers.register(name="w", host="h", pid=1, device="cpu")
    assert client.get("/healthz").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready"}
    assert [worker["device"] for worker in client.get("/v1/workers").json()] == ["cpu"]
    text = client.get("/metrics").text
    assert 'regsearch_studies{state="queued"} 1.0' in text
    assert "regsearch_workers 1.0" in text
    assert "regsearch_queue_depth 3.0" in text
    assert "regsearch_leases_lost_total 0.0" in text
    assert "regsearch_database_latency_seconds" in text
    assert "/v1/studies" in client.get("/openapi.json").json()["paths"]
    assert client.get("/docs").status_code == 200


def test_a_model_is_downloaded_when_there_is_one(client: TestClient, store: Store) -> None:
    submit(client)
    assert client.get("/v1/studies/1/model").json()["detail"] == "study 1 is queued: it has no result"
    finish(store, made_up.result(), b"PK archive")
    answer = client.get("/v1/studies/1/model")
    assert (answer.status_code, answer.content, answer.headers["content-type"]) == (200, b"PK archive", "application/zip")
    assert 'filename="regsearch-1.zip"' in answer.headers["content-disposition"]
    submit(client)
    finish(store, made_up.result(model=made_up.delivered(available=False, reason="the model has 9 bytes")))
    answer = client.get("/v1/studies/2/model")
    assert (answer.status_code, answer.json()["detail"]) == (409, "study 2 has no model: the model has 9 bytes")
    assert client.get("/v1/studies/3/model").status_code == 404


def test_a_report_is_a_page_that_may_load_and_run_nothing(client: TestClient, store: Store) -> None:
    submit(client, name="<b>mine</b>")
    answer = client.get("/v1/studies/1/report")
    assert (answer.status_code, answer.json()["detail"]) == (409, "study 1 is queued: it has no result")
    finish(store, made_up.result(verdict="good & <i>clear</i>"))
    page = client.get("/v1/studies/1/report")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "good &amp; &lt;i&gt;clear&lt;/i&gt;" in page.text
    assert "<b>mine" not in page.text
    text = client.get("/v1/studies/1/report", params={"format": "markdown"})
    assert text.headers["content-type"] == "text/markdown; charset=utf-8"
    assert text.text.startswith("# \\<b\\>mine\\</b\\>\n")
    pdf = client.get("/v1/studies/1/report", params={"format": "pdf"})
    assert (pdf.headers["content-type"], pdf.content[:5]) == ("application/pdf", b"%PDF-")
    assert client.get("/v1/studies/1/report", params={"format": "docx"}).status_code == 422
    assert client.get("/v1/studies/1").json()["links"]["report"] == "/v1/studies/1/report"


def test_an_onnx_model_is_there_once_a_worker_has_made_it(client: TestClient, store: Store) -> None:
    def asked(study_id: int) -> Any:
        return client.get(f"/v1/studies/{study_id}/model", params={"format": "onnx"})

    submit(client)
    assert asked(1).json()["detail"] == "study 1 is queued: it has no result"
    finish(store, made_up.result(), b"PK archive")
    answer = asked(1)
    assert (answer.status_code, answer.headers["retry-after"]) == (409, "5")
    assert answer.json()["detail"].startswith("the ONNX model of study 1 is not there yet: a worker with regsearch[onnx]")
    keep_onnx(store, models_of(store), 1, b"a model")
    answer = asked(1)
    assert (answer.status_code, answer.content) == (200, b"a model")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert 'filename="regsearch-1.onnx"' in answer.headers["content-disposition"]
    submit(client)
    finish(store, made_up.result(), b"PK another")
    keep_onnx(store, models_of(store), 2, None, "its network is too strange")
    answer = asked(2)
    assert (answer.status_code, "retry-after" in answer.headers) == (409, False)
    assert answer.json()["detail"] == "study 2 has no ONNX model: its network is too strange"


def test_an_upload_that_cannot_be_read_does_not_delete_the_one_of_another(client: TestClient, settings: Settings) -> None:
    data = uploaded(client, "a,y\n1,2\n3,4\n")
    path = settings.datasets_dir / f"{data['id']}.csv"
    with pytest.MonkeyPatch.context() as patched:

        def crashes(*_: object) -> None:
            raise InvalidInput.one("file", "could not be read: the reader ran out of memory or crashed")

        patched.setattr("service.api.datasets.inspect_apart", crashes)
        for text, kept in (("a,y\n1,2\n3,4\n", 1), ("a,y\n5,6\n7,8\n", 1)):
            answer = client.post("/v1/datasets", files={"file": ("rows.csv", text.encode())})
            assert answer.status_code == 422
            assert [each.name for each in settings.datasets_dir.iterdir()] == [path.name] * kept


@pytest.mark.parametrize("number", [10**30, 3_000_000_000])
def test_numbers_beyond_the_database_are_refused(client: TestClient, number: int) -> None:
    for body in ({"max_parallel_trials": number}, {"budget": {"max_failed_trials": number}}):
        answer = client.post("/v1/studies", json=SMALL | body)
        assert answer.status_code == 422
        assert str(number) in answer.text
    assert client.get(f"/csv/{number}").status_code == 404
    assert client.get(f"/api/studies/{number}").status_code == 404


@pytest.mark.parametrize(
    ("body", "field", "hint"),
    [
        ({"space": {"learning_rate": 0.1}}, "space.learning_rate", "lr"),
        ({"space": {"dropuot": 0.1}}, "space.dropuot", "dropout"),
        ({"space": {"lr": {"min": 0.1, "max": 1.0}}}, "space.lr.min", "low"),
        ({"budget": {"n_trials": 5}}, "budget.n_trials", "trials"),
        ({"data": {"dataset": "diabetes", "label": "y"}}, "data.label", "target"),
    ],
)
def test_a_name_of_another_library_is_understood(client: TestClient, body: dict[str, Any], field: str, hint: str) -> None:
    found = {each["field"]: each["message"] for each in client.post("/v1/studies", json=SMALL | body).json()["errors"]}
    assert found[field] == f"is not a known key; did you mean {hint}?"


def test_an_answer_lists_the_first_of_many_errors(client: TestClient) -> None:
    answer = client.post(
        "/v1/studies", json=SMALL | {"space": {f"k{index}": 1 for index in range(2000)} | {"a" * 40_000: 1}}
    )
    assert answer.status_code == 422
    assert len(answer.json()["errors"]) == 51
    assert answer.json()["errors"][-1]["message"] == "has more errors; these are the first 50"


def test_a_study_is_not_extended_beyond_what_could_be_submitted(client: TestClient) -> None:
    grid = {"sampler": {"name": "grid", "points": 2}, "space": {"preset": "off", "lr": [0.1, 0.2, 0.3]}}
    for number, (more, body) in enumerate(((1_000_000, {}), (1, grid)), start=1):
        study = client.post("/v1/studies", json=SMALL | body)
        assert study.status_code == 201, study.text
        answer = client.post(f"/v1/studies/{number}/extend", json={"trials": more})
        assert answer.status_code == 422
        (error,) = answer.json()["errors"]
        assert error["field"] == "trials"
        assert "with the 3 trials that the study has" in error["message"]
        assert client.get(f"/v1/studies/{number}").json()["trials"]["budget"] == 3


def test_a_trial_is_stopped_once_and_only_while_it_is_open(client: TestClient, store: Store) -> None:
    submit(client)
    assert client.post("/v1/studies/1/trials/0/stop").status_code == 404
    lease = store.leases.claim("worker", 60)
    assert lease is not None
    first, second = store.trials.ask(lease, proposals(2))
    stopped = client.post("/v1/studies/1/trials/0/stop").json()
    assert (stopped["state"], stopped["stopping"]) == ("running", True)
    assert client.post("/v1/studies/1/trials/0/stop").status_code == 200
    store.trials.record(lease, [], [TrialResult(first.id, "complete", 1.0, 0, "stopped", 1)])
    again = client.post("/v1/studies/1/trials/0/stop")
    assert (again.status_code, "has ended already: it is complete" in again.json()["detail"]) == (409, True)
    store.leases.release(lease)
    ended = client.post(f"/v1/studies/1/trials/{second.number}/stop").json()
    assert (ended["state"], ended["stopping"], ended["stop_reason"]) == ("pruned", False, "stopped")
    for path in ("/v1/studies/9/trials/0/stop", "/v1/studies/1/trials/9/stop"):
        assert client.post(path).status_code == 404
    assert client.post("/v1/studies/1/trials/-1/stop").status_code == 422
