"""The whole service from the outside: command line, HTTP, processes, stock Optuna, a browser."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import optuna
import pandas as pd
import psutil
import pytest
from playwright.sync_api import Page, expect
from sklearn.datasets import load_diabetes

from tests.acceptance.conftest import STUDY, Service, wait_for


def test_the_budget_is_exact_and_every_trial_has_its_reason(service: Service, study: dict[str, Any]) -> None:
    assert study["state"] == "finished"
    assert study["trials"]["finished"] == study["trials"]["budget"] == 30
    trials = service.client.get(f"/v1/studies/{study['id']}/trials", limit=100)["trials"]
    assert [trial["number"] for trial in trials] == list(range(30))
    assert {trial["stop_reason"] for trial in trials} <= {"pruned", "converged", "epochs"}
    one = service.client.get(f"/v1/studies/{study['id']}/trials/{study['best']['number']}")
    assert one["value"] == min(one["curve"]["rmse"]) == one["curve"]["rmse"][one["best_step"]]
    assert len(one["curve"]["train_loss"]) == one["epochs"]


def test_the_result_is_whole(service: Service, study: dict[str, Any]) -> None:
    result = json.loads(service.run("result", str(study["id"]), "--json").stdout)
    assert result["rows"] == {"train": 266, "valid": 88, "test": 88, "duplicates": 0}
    names = [setting["name"] for setting in (result["winner"], result["baseline"], *result["others"])]
    assert {"unregularized", "early stopping only", "framework defaults"} < set(names)
    for setting in (result["winner"], result["baseline"]):
        assert setting["test"]["low"] <= setting["test"]["mean"] <= setting["test"]["high"]
        assert setting["valid"]["n"] == result["seeds"]
    assert result["baseline"]["regularizers"] == []
    assert {row["without"] for row in result["ablation"]} == set(result["winner"]["regularizers"])
    purposes = [reading["purpose"] for reading in result["test_record"]]
    assert purposes == ["final score", "training of the delivered networks, after the final score"]
    assert 0 < result["utilization"]["training"] <= 1


def test_commands_show_what_is_there(service: Service, study: dict[str, Any]) -> None:
    assert "acceptance" in service.run("list").stdout
    assert "30 of 30 finished" in service.run("show", str(study["id"])).stdout
    assert "(winner)" in service.run("result", str(study["id"])).stdout
    assert service.run("doctor").returncode == 0


def test_the_model_predicts_new_rows(service: Service, study: dict[str, Any], tmp_path: Path) -> None:
    x, y = load_diabetes(return_X_y=True)
    columns = [f"x{index}" for index in range(x.shape[1])]
    rows = tmp_path / "new.csv"
    pd.DataFrame(x, columns=columns).to_csv(rows, index=False)
    done = service.run("predict", str(study["id"]), str(rows), "--out", str(tmp_path / "predictions.csv"))
    assert done.returncode == 0, done.stderr
    predicted = pd.read_csv(tmp_path / "predictions.csv")["prediction"].to_numpy()
    assert np.sqrt(np.mean((predicted - y) ** 2)) < 70 < np.std(y)
    model = service.client.get(f"/v1/studies/{study['id']}/result")["model"]
    assert (model["networks"], model["refit"]["rows"], model["refit"]["of"]) == (5, len(y), "all")
    assert service.run("model", str(study["id"]), "--out", str(tmp_path / "model.zip")).returncode == 0
    exported = service.run("model", str(study["id"]), "--onnx", "--out", str(tmp_path / "model.onnx"))
    assert exported.returncode == 0, exported.stderr
    (found,) = onnxruntime.InferenceSession(tmp_path / "model.onnx").run(None, {"numbers": x})
    np.testing.assert_allclose(found, predicted, rtol=1e-4)
    pd.DataFrame(x[:, 1:], columns=columns[1:]).to_csv(rows, index=False)
    refused = service.run("predict", str(study["id"]), str(rows))
    assert (refused.returncode, "there is no column 'x0'" in refused.stderr) == (1, True)
    assert "does not exist" in service.run("predict", "999", str(rows)).stderr


def test_mistakes_are_told_without_a_traceback(service: Service, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("data: {dataset: diabetes}\nspace: {dropuot: 0.5}\n")
    refused = service.run("submit", str(bad))
    assert refused.returncode == 2
    assert "space.dropuot" in refused.stderr
    assert "did you mean" in refused.stderr
    bad.write_text("data: [")
    unreadable = service.run("submit", str(bad))
    assert (unreadable.returncode, "is not YAML" in unreadable.stderr) == (1, True)
    missing = service.run("show", "999")
    assert (missing.returncode, "does not exist" in missing.stderr) == (2, True)
    nobody = service.run("show", "1", "--url", "http://127.0.0.1:9")
    assert nobody.returncode == 1
    assert "regsearch up" in nobody.stderr
    taken = service.run("up")
    assert (taken.returncode, "--port" in taken.stderr + taken.stdout) == (1, True)
    for done in (refused, unreadable, missing, nobody, taken):
        assert "Traceback" not in done.stdout + done.stderr


def test_stock_optuna_reads_the_study(service: Service, study: dict[str, Any]) -> None:
    storage = f"sqlite:///{service.home / 'regsearch.db'}"
    loaded = optuna.load_study(study_name="acceptance", storage=storage)
    assert loaded.best_trial.number == study["best"]["number"]
    assert loaded.best_value == study["best"]["value"]
    assert len(loaded.trials) == 30
    assert all(trial.state.is_finished() for trial in loaded.trials)
    assert loaded.best_params == study["best"]["params"]
    storage_of = loaded._storage
    storage_of.remove_session()
    storage_of._backend.engine.dispose()  # type: ignore[attr-defined]  # the cache in front of the database


def test_the_api_stays_small_and_loads_no_torch(service: Service) -> None:
    (api,) = [child for child in service.children() if "serve" in child.cmdline()]
    assert api.memory_info().rss < 200 * 2**20
    assert not [each.path for each in api.memory_maps() if "/torch/" in each.path or "/sklearn/" in each.path]


@pytest.mark.browser
def test_the_dashboard_shows_the_study(service: Service, study: dict[str, Any], page: Page) -> None:
    page.goto(f"{service.url}/dashboard")
    expect(page.get_by_role("link", name="acceptance").first).to_be_visible()
    page.goto(service.url + study["links"]["dashboard"])
    expect(page.get_by_text("acceptance").first).to_be_visible()
    expect(page.get_by_text("rmse").first).to_be_visible()
    page.goto(f"{service.url}{study['links']['dashboard']}/note")
    expect(page.get_by_text("Objective: validation").first).to_be_visible()
    page.goto(f"{service.url}{study['links']['dashboard']}/trials?numbers={study['best']['number']}")
    expect(page.get_by_text("stop_reason").first).to_be_visible()


@pytest.mark.browser
def test_the_dashboard_can_only_be_read(service: Service, study: dict[str, Any], page: Page) -> None:
    page.goto(f"{service.url}/dashboard")
    status = page.evaluate(f"fetch('/api/studies/{study['id']}', {{method: 'DELETE'}}).then(answer => answer.status)")
    assert status == 403
    assert service.client.get(f"/v1/studies/{study['id']}")["state"] == "finished"


def test_a_killed_worker_comes_back_and_nothing_is_lost(tmp_path: Path) -> None:
    running = Service(tmp_path / "home")
    try:
        spec: dict[str, Any] = {"data": {"dataset": "diabetes"}, "model": {"widths": [32]}}
        spec["budget"] = {"trials": 40, "epochs": 30, "finalists": 1, "seeds": 2}
        study = running.client.post("/v1/studies", spec | {"pruner": "none", "early_stopping": "off"})
        path = f"/v1/studies/{study['id']}"
        wait_for(lambda: running.client.get(path)["trials"]["finished"] >= 5)
        (worker,) = running.worker_pids()
        os.kill(worker, signal.SIGKILL)
        wait_for(lambda: running.client.get(path)["state"] == "finished")
        found = running.client.get(path)
        assert found["trials"]["finished"] == found["trials"]["complete"] == 40
        trials = running.client.get(f"{path}/trials", limit=100)["trials"]
        assert [trial["number"] for trial in trials] == list(range(40))
        assert {trial["attempt"] for trial in trials} == {0, 1}
        for trial in trials:
            curve = running.client.get(f"{path}/trials/{trial['number']}")["curve"]
            assert len(curve["rmse"]) == 30
        children = running.children()
    finally:
        code = running.stop()
    assert code == 0
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []
    assert "was killed by signal 9; it will be restarted" in running.output.read_text()


def test_several_workers_share_a_device_and_a_study(tmp_path: Path) -> None:
    running = Service(tmp_path / "home", per_device=2)
    try:
        client = running.client
        wait_for(lambda: len([each for each in client.get("/v1/workers") if each["state"] == "alive"]) == 2)
        shared = [psutil.Process(pid).cmdline() for pid in running.worker_pids()]
        assert all(each[each.index("--memory-share") + 1] == "0.5" for each in shared)
        data, budget = {"dataset": "wine"}, {"trials": 12, "epochs": 3, "finalists": 1, "seeds": 2}
        number = client.post("/v1/studies", {"data": data, "model": {"widths": [8]}, "budget": budget})["id"]
        wait_for(lambda: client.get(f"/v1/studies/{number}")["state"] == "finished")
        assert client.get(f"/v1/studies/{number}")["trials"]["finished"] == 12
        refused = running.run("up", "--workers", "1", "--workers-per-device", "2")
        assert refused.returncode == 2
        assert "give one of the two" in refused.stderr
    finally:
        running.stop()


def test_the_same_seed_gives_the_same_trials_and_values(service: Service, study: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "again.yaml"
    path.write_text(STUDY.replace("name: acceptance", "name: again"))
    assert service.run("submit", str(path), "--watch").returncode == 0
    (again,) = [each for each in service.client.get("/v1/studies")["studies"] if each["name"] == "again"]
    keys = ("number", "state", "value", "best_step", "epochs", "params")
    first, second = (
        [{key: trial[key] for key in keys} for trial in service.client.get(f"/v1/studies/{i}/trials", limit=100)["trials"]]
        for i in (study["id"], again["id"])
    )
    assert first == second
