"""What is old is deleted, by the settings and on demand, and nothing that is needed."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient
from sqlalchemy import func, select

from service.api.retention import prune_by_settings
from service.leftovers import Leftovers
from service.objects import open_objects
from service.settings import Settings
from service.store import Store
from service.store import tables as t
from service.store.records import Report, TrialResult
from tests.api.conftest import Serving
from tests.api.test_routes import CSV
from tests.contract.test_trials import proposals
from tests.results import result
from tests.trained import models_of

YEAR = 365 * 86_400.0


def submitted(client: TestClient, **spec: Any) -> int:
    answer = client.post("/v1/studies", json={"data": {"dataset": "wine"}, "budget": {"trials": 1}, **spec})
    assert answer.status_code == 201, answer.text
    return int(answer.json()["id"])


def finished(client: TestClient, store: Store, **spec: Any) -> int:
    """A study with a model and values after single epochs."""
    study_id = submitted(client, **spec)
    lease = store.leases.claim("worker", 600)
    assert lease is not None
    assert lease.study_id == study_id
    (trial,) = store.trials.ask(lease, proposals(1))
    reports = [Report(trial.id, step, 0.5) for step in range(4)]
    store.trials.record(lease, reports, [TrialResult(trial.id, "complete", 0.5, 0, "epochs", 4, {"rmse": [0.5] * 4})])
    final = store.leases.claim("worker", 600)
    assert final is not None
    store.studies.finish(final, result().model_dump(mode="json"), models_of(store).keep(io.BytesIO(b"PK a model"), "zip"))
    return study_id


def age(store: Store) -> None:
    """Let a year pass for everything that is there."""
    with store.database.engine.begin() as connection:
        for table, names in (
            (t.studies, ("created_at", "started_at", "finished_at")),
            (t.datasets, ("created_at",)),
            (t.dataset_owners, ("created_at",)),
        ):
            connection.execute(table.update().values({name: table.c[name] - YEAR for name in names}))


def count(store: Store, table: Any) -> int:
    query = select(func.count()).select_from(table)
    return int(store.database.read(lambda connection: connection.execute(query).scalar_one()))


def uploaded(client: TestClient, more: str = "") -> str:
    files = {"file": ("a.csv", io.BytesIO((CSV + more).encode()))}
    return str(client.post("/v1/datasets", files=files).json()["id"])


def test_what_is_old_is_deleted_unless_it_is_kept_or_needed(client: TestClient, store: Store, settings: Settings) -> None:
    unused, used = uploaded(client), uploaded(client, CSV.splitlines()[-1] + "\n")
    old, kept, begun_with = (finished(client, store, **more) for more in ({}, {"tags": ["keep"]}, {}))
    target = client.get(f"/v1/datasets/{used}").json()["columns"][-1]["name"]
    age(store)
    new = finished(client, store)
    running = submitted(client, search_from=[begun_with], data={"dataset": used, "target": target})
    store.database.write(
        lambda connection: connection.execute(
            t.studies.update().where(t.studies.c.study_id == running).values(created_at=1.0)
        )
    )
    ages = {"studies": 300, "models": 300, "datasets": 300, "steps": 300}
    told = client.post("/v1/prune", json={**ages, "dry_run": True}).json()
    assert told == {"studies": [old], "models": [], "datasets": [unused], "steps": [begun_with], "dry_run": True}
    assert client.get(f"/v1/studies/{old}").status_code == 200
    done = client.post("/v1/prune", json=ages).json()
    assert done == {**told, "dry_run": False}
    assert client.get(f"/v1/studies/{old}").status_code == 404
    for study_id in (kept, begun_with, new):
        assert client.get(f"/v1/studies/{study_id}/model").status_code == 200
    assert client.get(f"/v1/studies/{running}").json()["state"] == "queued"
    assert [each["id"] for each in client.get("/v1/datasets").json() if not each["built_in"]] == [used]
    assert [path.name.partition(".")[0] for path in settings.datasets_dir.glob("*.csv")] == [used]
    logged = client.get("/v1/audit", params={"limit": 20}).json()["entries"]
    deleted = {each["object"] for each in logged if each["route"] == "/v1/prune" and each["method"] == "DELETE"}
    assert deleted == {f"studies/{old}", f"datasets/{unused}", f"studies/{begun_with}/steps"}
    assert set(client.post("/v1/prune", json=ages).json()["studies"]) == set()


def test_the_settings_delete_models_and_values_first(client: TestClient, store: Store, settings: Settings) -> None:
    study_id, leftovers = finished(client, store), Leftovers(open_objects(settings), store)
    age(store)
    prune_by_settings(store, settings, leftovers)
    assert client.get(f"/v1/studies/{study_id}/model").status_code == 200, "nothing is deleted without a setting"
    chosen = settings.model_copy(update={"retention_models": 100.0, "retention_steps": 100.0, "retention_studies": 1000.0})
    assert count(store, t.o_steps) == 4
    prune_by_settings(store, chosen, leftovers)
    assert count(store, t.o_steps) == 0
    assert client.get(f"/v1/studies/{study_id}/model").status_code in (404, 409)
    assert client.get(f"/v1/studies/{study_id}/result").status_code == 200
    assert len(client.get(f"/v1/studies/{study_id}/trials/0").json()["curve"]["rmse"]) == 4
    prune_by_settings(store, settings.model_copy(update={"retention_studies": 100.0}), leftovers)
    assert client.get(f"/v1/studies/{study_id}").status_code == 404


def test_the_command_line_prunes(serving: Serving, tmp_path: Path) -> None:
    found = serving.run("prune", "--older-than", "90d", "--dry-run", "--what", "studies", "--json")
    assert json.loads(found.stdout)["studies"] == []
    assert "would be deleted" in serving.run("prune", "--older-than", "2w", "--dry-run").stdout
    for words in (("--older-than", "soon"), ("--older-than", "1d", "--what", "everything")):
        assert serving.run("prune", *words).returncode == 2
