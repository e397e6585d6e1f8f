"""A study as one file: archived on one server and restored on another, with everything; and what is no such file."""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import pytest
from fastapi.testclient import TestClient
from regsearch import Client

from service.api import unzipping
from service.api.app import create_app
from service.settings import Settings
from service.store import Store, open_store
from service.store.records import Report, TrialResult
from tests import results as made_up
from tests.api import test_programs
from tests.api.conftest import Serving
from tests.api.test_routes import CSV, submit
from tests.contract import conftest as databases
from tests.contract.test_trials import proposals
from tests.trained import keep_onnx, models_of

postgres = databases.postgres
"""A fixture."""

Server = tuple[TestClient, Store]
Files = dict[str, bytes]


@pytest.fixture
def other(postgres: databases.Server, tmp_path: Path) -> Iterator[Server]:
    """Another server, on PostgreSQL, with studies of its own."""
    settings = Settings(home=tmp_path / "other", db_url=next(databases._own_database(postgres, "prepared")))
    with (
        closing(open_store(settings.database_url)) as store,
        TestClient(create_app(store, settings), base_url="http://localhost") as client,
    ):
        submit(client, name="mine")
        yield client, store


def zipped(model: bytes = b"weights") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as files:
        files.writestr("weights.safetensors", model)
    return buffer.getvalue()


def archived(client: TestClient, study_id: int, **query: Any) -> bytes:
    answer = client.get(f"/v1/studies/{study_id}/archive", params=query)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/zip"
    return answer.content


def restore(client: TestClient, content: bytes) -> Any:
    return client.post("/v1/studies:restore", files={"file": ("study.zip", content)})


def unpacked(content: bytes) -> Files:
    with zipfile.ZipFile(io.BytesIO(content)) as files:
        return {name: files.read(name) for name in files.namelist()}


def packed(files: Files, **manifest: Any) -> bytes:
    """An archive of these files, whose manifest tells the truth of them."""
    whole = json.loads(files["manifest.json"]) | manifest
    rest = {name: content for name, content in files.items() if name != "manifest.json"}
    whole["files"] = {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()} for name, content in rest.items()
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {**rest, "manifest.json": json.dumps(whole).encode()}.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def changed(files: Files, name: str, change: Callable[[Any], Any]) -> bytes:
    """An archive with one document changed."""
    document = json.loads(files[name])
    return packed({**files, name: json.dumps(change(document) or document).encode()})


@pytest.fixture
def whole(client: TestClient, store: Store) -> int:
    """A finished study of an uploaded table, with everything that one may have."""
    dataset = client.post("/v1/datasets", files={"file": ("people.csv", CSV)}, data={"name": "people"}).json()["id"]
    data = {"dataset": dataset, "target": "age"}
    made = submit(client, name="whole", data=data, also=["gap"], sampler="random", tags=["a", "b"], notes="*mine*")
    study: int = made["id"]
    lease = store.leases.claim("worker", 60)
    assert lease is not None
    store.provenance.note(study, {"data_hash": "abc", "versions": {"torch": "2.13"}})
    client.patch(f"/v1/studies/{study}", json={"priority": 5})
    trials = store.trials.ask(lease, proposals(3))
    reports = [Report(trials[1].id, 0, float("nan")), Report(trials[1].id, 1, float("inf")), Report(trials[0].id, 0, 3.0)]
    results = [
        TrialResult(trials[1].id, "pruned", 2.0, 1, "pruned", 2, {"rmse": [float("nan"), 0.1 + 0.2]}, {"stack": "mlp"}),
        TrialResult(trials[0].id, "complete", 1.0, 2, "converged", 3, {"rmse": [3.0, 1.0]}, also={"gap": 0.1}),
        TrialResult(trials[2].id, "fail", None, None, "loss is not finite", 1),
    ]
    store.trials.record(lease, reports, results)
    store.studies.open_test(study, "worker", "final score")
    final = store.leases.claim("worker", 60)
    assert final is not None
    models = models_of(store)
    kept = models.keep(io.BytesIO(zipped()), "zip")
    store.studies.finish(final, made_up.result(verdict="good").to_json(), kept, note="the end")
    keep_onnx(store, models, study, b"an ONNX model")
    return study


def told(client: TestClient, study: int) -> dict[str, Any]:
    """All that a server tells of a study, but for its id and what follows from it."""

    def of(document: Any) -> Any:
        if isinstance(document, dict):
            dropped = ("id", "study_id", "links", "created_at") if "changes" in document else ("id", "study_id", "links")
            return {key: of(value) for key, value in document.items() if key not in dropped}
        return [of(each) for each in document] if isinstance(document, list) else document

    here = f"/v1/studies/{study}"
    parts = {part: client.get(f"{here}{part}") for part in ("", "/trials", "/changes", "/result")}
    parts |= {f"trial {number}": client.get(f"{here}/trials/{number}") for number in range(3)}
    found: dict[str, Any] = {name: of(answer.json()) for name, answer in parts.items()}
    for name, path in (
        ("csv", "export"),
        ("model", "model"),
        ("onnx", "model?format=onnx"),
        ("report", "report?format=markdown"),
    ):
        answer = client.get(f"{here}/{path}")
        assert answer.status_code == 200, answer.text
        found[name] = re.sub(rb"Study \d|\| study \| \d", b"Study", answer.content)
    return found


def read(store: Store, name: str) -> list[str]:
    """Its trials as stock Optuna reads them, without ids of the database; as texts, for NaN is not equal to itself."""
    study = optuna.load_study(study_name=name, storage=store.optuna_storage())
    trials = [{key: value for key, value in vars(trial).items() if key != "_trial_id"} for trial in study.get_trials()]
    best = [trial.number for trial in study.best_trials]
    return [*map(str, trials), f"{study.directions} {study.metric_names} {best}"]


def test_a_study_goes_from_sqlite_to_postgresql_and_back(
    client: TestClient, store: Store, whole: int, other: Server
) -> None:
    there, its_store = other
    content = archived(client, whole, data=True)
    assert content == archived(client, whole, data=True), "the same study makes the same bytes"
    answer = restore(there, content)
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == "/v1/studies/2"
    found = answer.json()
    assert (found["id"], found["state"], found["unchanged"], found["lacks"]) == (2, "finished", False, [])
    assert found["restored_from"] == {"id": whole, "name": "whole", "owner": "default"}
    assert told(there, 2) == told(client, whole)
    assert read(its_store, "whole") == read(store, "whole")
    data = client.get("/v1/datasets").json()[0]
    assert {**there.get("/v1/datasets").json()[0], "created_at": None} == {**data, "created_at": None}
    note = its_store.optuna_storage().get_study_system_attrs(2)
    assert note == store.optuna_storage().get_study_system_attrs(whole)
    client.delete(f"/v1/studies/{whole}")
    back = restore(client, archived(there, 2, data=True))
    assert back.status_code == 201, back.text
    assert told(client, back.json()["id"]) == told(there, 2)


def test_the_same_archive_again_is_the_same_study(client: TestClient, whole: int, other: Server) -> None:
    there, _ = other
    content = archived(client, whole)
    first, again = restore(there, content), restore(there, content)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json()["id"] == first.json()["id"]
    assert again.json()["unchanged"]
    assert there.get("/v1/studies").json()["total"] == 2
    assert there.delete(f"/v1/studies/{first.json()['id']}").status_code == 204
    assert restore(there, content).status_code == 201


def test_a_study_that_is_refused_by_a_quota_leaves_no_model(
    client: TestClient, whole: int, other: Server, tmp_path: Path
) -> None:
    _, store = other
    poor = TestClient(create_app(store, Settings(home=tmp_path / "other", quota_bytes=1)), base_url="http://localhost")
    refused = restore(poor, archived(client, whole))
    assert (refused.status_code, "its quota is 1" in refused.text) == (403, True), refused.text
    strays = store.archives.strays(9)
    assert all(strays.values()), "they are deleted at once, not in a quarter of an hour"
    assert {f"models/{path.name}" for path in (tmp_path / "other" / "models").iterdir()} <= {*strays}


def test_a_restored_study_is_replayed_where_its_data_is(client: TestClient, whole: int, other: Server) -> None:
    there, _ = other
    bare = restore(there, archived(client, whole)).json()
    assert "can't be replayed" in bare["lacks"][0]
    refused = there.post(f"/v1/studies/{bare['id']}/replay")
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "data.dataset")
    found = restore(there, archived(client, whole, data=True)).json()
    assert found["name"] == "whole-2"
    again = there.post(f"/v1/studies/{found['id']}/replay")
    assert again.status_code == 201, again.text
    assert {**again.json()["spec"], "name": ""} == {**found["spec"], "name": ""}
    refused = there.post(f"/v1/studies/{found['id']}/extend", json={"trials": 5})
    assert (refused.status_code, "restored from an archive" in refused.json()["detail"]) == (409, True)
    assert there.patch(f"/v1/studies/{found['id']}", json={"tags": ["mine"]}).json()["tags"] == ["mine"]


def test_studies_of_programs_and_cancelled_ones_are_archived_too(client: TestClient, other: Server) -> None:
    there, its_store = other
    external = test_programs.submit(client)
    test_programs.run(client, external, test=0.5)
    cancelled = submit(client, name="cancelled")["id"]
    assert client.get(f"/v1/studies/{cancelled}/archive").status_code == 409
    client.post(f"/v1/studies/{cancelled}/cancel")
    for study, state in ((external, "finished"), (cancelled, "cancelled")):
        found = restore(there, archived(client, study, data=True))
        assert (found.status_code, found.json()["state"]) == (201, state), found.text
        for part in ("trials", "result"):
            was, now = (
                each.get(f"/v1/studies/{id_}/{part}") for each, id_ in ((client, study), (there, found.json()["id"]))
            )
            if was.status_code == 200:
                assert {**now.json(), "id": 0} == {**was.json(), "id": 0}
    assert len(its_store.finals.all(2)) > 0


def bomb(files: Files) -> bytes:
    return packed({**files, "trials.jsonl": b" " * (40 << 20)})


def lying(files: Files) -> bytes:
    """Documents that are not what the manifest tells."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content.replace(b"good", b"evil"))
    return buffer.getvalue()


def of_lines(change: Callable[[list[Any]], Any]) -> Callable[[Files], bytes]:
    def broken(files: Files) -> bytes:
        lines = [json.loads(line) for line in files["trials.jsonl"].splitlines()]
        change(lines)
        return packed({**files, "trials.jsonl": "".join(f"{json.dumps(line)}\n" for line in lines).encode()})

    return broken


def of_study(**values: Any) -> Callable[[Files], bytes]:
    return lambda files: changed(files, "study.json", lambda document: {**document, **values})


def of_spec(**values: Any) -> Callable[[Files], bytes]:
    return lambda files: changed(files, "spec.json", lambda document: {**document, **values})


HOSTILE: dict[str, tuple[Callable[[Files], bytes], str]] = {
    "no ZIP": (lambda _: b"PK\x03\x04 and so on", "not a ZIP file"),
    "cut off": (lambda files: packed(files)[:-200], "not a ZIP file"),
    "another ZIP": (lambda _: zipped(), "a file that an archive of a study does not have"),
    "a path": (lambda files: packed({**files, "../../etc/cron.d/x": b"x"}), "does not have"),
    "an absolute path": (lambda files: packed({**files, "/data/0123456789abcdef.csv": b"x"}), "does not have"),
    "a data set of another name": (lambda files: packed({**files, "data/0123456789abcdef.csv": b"a\n1"}), "go together"),
    "a pickle": (lambda files: packed({**files, "data/0123456789abcdef.pkl": b"x"}), "does not have"),
    "a bomb": (bomb, "times as large as it is packed"),
    "a bomb in the model": (
        lambda files: packed({**files, "model.zip": zipped(b"0" * (40 << 20))}),
        "model.zip is more than",
    ),
    "a path in the model": (
        lambda files: packed({**files, "model.zip": zipped().replace(b"weights.safetensors", b"/eights.safetensors")}),
        "names that a model does not have",
    ),
    "another content": (lying, "was changed"),
    "another format": (lambda files: packed(files, format="something"), "is not an archive of a study"),
    "a later version": (lambda files: packed(files, version=2), "another version"),
    "nothing in it": (lambda files: packed({"manifest.json": files["manifest.json"]}), "lacks files"),
    "no JSON": (lambda files: packed({**files, "result.json": b"{"}), "result.json is not JSON"),
    "deep JSON": (lambda files: packed({**files, "advice.json": b"[" * 10**5 + b"]" * 10**5}), "not JSON"),
    "another result": (lambda files: packed({**files, "result.json": b'{"verdict": 1}'}), "result.json of regsearch"),
    "NUL": (of_study(reason="\0"), "NUL"),
    "a study that runs": (of_study(state="running"), "study.json of regsearch"),
    "a field of its own": (of_study(owner="bob"), "owner"),
    "an attribute of the dashboard": (of_study(shown={"dashboard:plotly_graph_object": '"x"'}), "system attributes"),
    "no spec": (of_spec(space={"dropout": 7}), "spec.json of regsearch"),
    "an unresolved spec": (of_spec(metric=None), "lacks its metric"),
    "a best trial that is none": (of_study(best={"number": 1, "value": 2.0, "step": 1}), "best trial"),
    "more epochs": (of_study(epochs=7), "epochs"),
    "a small budget": (of_study(budget_trials=2), "more than the budget"),
    "a trial twice": (of_lines(lambda lines: lines.append(lines[0])), "has a trial 0 where trial 3"),
    "a trial that waits": (of_lines(lambda lines: lines[0].update(state="waiting")), "trials.jsonl, line 1"),
    "an order with gaps": (of_lines(lambda lines: lines[0].update(seq=9)), "not whole"),
    "a distribution of nothing": (of_lines(lambda lines: lines[0]["params"][0].update(distribution="{}")), "distribution"),
    "an attribute that is no JSON": (of_lines(lambda lines: lines[0].update(attributes={"a": "{"})), "not JSON"),
}


def test_what_is_no_archive_is_refused_with_the_reason(client: TestClient, whole: int, other: Server) -> None:
    there, _ = other
    files = unpacked(archived(client, whole))
    assert restore(there, packed(files)).status_code == 201, "as it is made here it is one"
    for name, (break_, expected) in HOSTILE.items():
        answer = restore(there, break_(files))
        assert answer.status_code == 422, (name, answer.text)
        (error,) = answer.json()["errors"]
        assert error["field"] == "file", name
        assert expected in error["message"], (name, error["message"])
    assert there.get("/v1/studies").json()["total"] == 2
    assert there.get("/v1/datasets").json()[0]["built_in"]


def test_what_is_too_large_is_not_read(
    client: TestClient, whole: int, other: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, _ = other
    content = archived(client, whole, data=True)
    for name, size in (("MAX_DOCUMENT", 100), ("MAX_TRIALS_FILE", 100)):
        with monkeypatch.context() as patched:
            patched.setattr(unzipping, name, size)
            assert restore(there, content).status_code == 413
    broken = {**unpacked(content)}
    name = next(name for name in broken if name.startswith("data/"))
    broken[name] += b"30,a,yes\n"
    answer = restore(there, packed(broken))
    assert (answer.status_code, "content that its name tells" in answer.text) == (422, True)
    assert restore(client, b"x" * (1 << 20)).status_code == 422
    finish_and_find_nothing(there)


def finish_and_find_nothing(there: TestClient) -> None:
    """Nothing of a refused archive is kept."""
    assert there.get("/v1/studies").json()["total"] == 1
    assert there.get("/v1/datasets").json()[0]["built_in"]


def test_the_command_line_and_the_client_do_the_same(serving: Serving, tmp_path: Path) -> None:
    with Client(serving.url) as client:
        study = client.study({"data": {"dataset": "wine"}, "name": "to go"})
        path = tmp_path / "study.zip"
        assert "has ended" in serving.run("archive", str(study.id), "--out", str(path)).stderr
        assert not path.exists()
        study.cancel()
        done = serving.run("archive", str(study.id), "--data", "--out", str(path))
        assert (done.returncode, path.read_bytes()) == (0, study.archive(tmp_path / "again.zip", data=True).read_bytes())
        restored = client.restore(path)
        assert (restored.state, restored.latest["name"]) == ("cancelled", "to go-2")
        done = serving.run("restore", str(path))
        assert f"study {restored.id} is there already" in done.stdout
        path.write_bytes(b"something")
        done = serving.run("restore", str(path))
        assert (done.returncode, "not a ZIP file" in done.stderr) == (2, True)
