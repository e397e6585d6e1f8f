"""Studies that begin with the network of an earlier one: a chain through the API, its answer, and what is refused."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from safetensors.numpy import load

from service.api.app import create_app
from service.settings import Settings
from service.store import Store, open_store
from service.store.records import StudyState
from tests.trained import archive_of, models_of, replace
from tests.unit.test_whole_studies import UntilItEnds, wine
from workers.plain.loader import Model
from workers.worker import Worker

MODEL = {"widths": [8, 8], "embedding": 3}
SPACE = {"preset": "off", "normalization": "batch", "lr": 0.01, "batch_size": 32, "dropout": [0.1, 0.2]}
BUDGET = {"trials": 3, "epochs": 4, "finalists": 1, "seeds": 2}
STILL = {**SPACE, "lr": 1e-7}
"""A learning rate at which what is begun with stays."""


class Bench:
    """The API and a worker, in this process."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.settings = Settings(home=home / "home", data_roots=(home,), cache=home / "cache")
        self.settings.home.mkdir()
        self.store: Store = open_store(self.settings.database_url, create=True)
        self.client = TestClient(create_app(self.store, self.settings), base_url="http://localhost")
        frame = wine().drop(columns=["who", "day", "part"])
        frame.to_csv(home / "wine.csv", index=False)
        frame["class"] = np.where(frame["x0"] > 13, "strong", "weak")
        frame.to_csv(home / "strength.csv", index=False)
        frame["class"] = frame["x1"] + 0.01 * np.arange(len(frame))
        frame.to_csv(home / "acid.csv", index=False)
        frame.drop(columns="x7").assign(new=1.5).to_csv(home / "other.csv", index=False)

    def spec(self, start: int | None = None, file: str = "wine", **parts: Any) -> dict[str, Any]:
        """With parts that replace, or for ``model`` add to, the usual ones."""
        begin = {} if start is None else {"start_from": start}
        usual = {"space": SPACE, "budget": BUDGET, "early_stopping": "off", "deliver": "off"}
        data = {"path": str(self.home / f"{file}.csv"), "target": "class", **parts.pop("data", {})}
        return {**usual, "data": data, "model": {**MODEL, **begin, **parts.pop("model", {})}, **parts}

    def submit(self, **given: Any) -> int:
        answer = self.client.post("/v1/studies", json=self.spec(**given))
        assert answer.status_code == 201, answer.text
        return int(answer.json()["id"])

    def run(self, study_id: int) -> int:
        """Search and finalize."""
        Worker(self.store, self.settings, "cpu", UntilItEnds(self.store, study_id)).run()
        record = self.store.studies.get(study_id)
        assert (record.state, record.reason) == (StudyState.FINISHED, None)
        return study_id

    def refused(self, **given: Any) -> dict[str, Any]:
        """The one issue of a refused submit."""
        answer = self.client.post("/v1/studies", json=self.spec(**given))
        assert answer.status_code == 422, answer.text
        (issue,) = answer.json()["errors"]
        found: dict[str, Any] = issue
        return found

    def result(self, study_id: int) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get(f"/v1/studies/{study_id}/result").json()
        return found

    def files(self, study_id: int) -> zipfile.ZipFile:
        return zipfile.ZipFile(io.BytesIO(archive_of(self.store, study_id)))

    def model(self, study_id: int) -> Model:
        directory = self.home / f"model-{study_id}"
        self.files(study_id).extractall(directory)
        return Model.load(directory)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    made = Bench(tmp_path_factory.mktemp("bench"))
    yield made
    made.store.close()


@pytest.fixture(scope="module")
def earlier(bench: Bench) -> int:
    return bench.run(bench.submit())


def test_a_study_begins_with_the_earlier_network_head_and_preprocessing_included(bench: Bench, earlier: int) -> None:
    study = bench.run(bench.submit(start=earlier, space=STILL, model={"fine_tune": "head"}))
    rows = bench.home / "wine.csv"
    was, now = bench.model(earlier), bench.model(study)
    np.testing.assert_allclose(now.probabilities(rows), was.probabilities(rows), atol=1e-5)
    assert now.preprocessing == was.preprocessing
    sha = bench.store.archives.get(earlier).sha256
    assert now.about["start"] == {"study": earlier, "sha256": sha}
    assert bench.store.studies.get(study).spec["model"]["start_sha256"] == sha
    assert "started from" in bench.client.get(f"/v1/studies/{study}/report?format=markdown").text


def test_an_architecture_that_is_not_named_is_the_earlier_networks(bench: Bench) -> None:
    tabular = {"preset": "tabular", "batch_size": 32}
    first = bench.run(bench.submit(space=tabular, model={"widths": None, "embedding": None}))
    still = {"lr": 1e-7, "batch_size": 32}
    study = bench.run(bench.submit(start=first, space=still, model={"widths": None, "embedding": None}))
    rows = bench.home / "wine.csv"
    np.testing.assert_allclose(bench.model(study).probabilities(rows), bench.model(first).probabilities(rows), atol=0.02)
    other = {"widths": [9], "embedding": None}
    assert bench.refused(start=first, space=still, model=other)["field"] == "model.widths"


def test_the_answer_says_what_fine_tuning_earned(bench: Bench, earlier: int) -> None:
    study = bench.run(bench.submit(start=earlier, model={"fine_tune": "head"}))
    result = bench.result(study)
    recipes = {each["name"]: each["recipe"] for each in (result["baseline"], *result["others"])}
    assert set(recipes) == {"unregularized", "early stopping only", "framework defaults", "trained from scratch"}
    tuned = {name: recipe.get("fine_tune") for name, recipe in recipes.items()}
    assert tuned == {
        "unregularized": "all",
        "early stopping only": "all",
        "framework defaults": "all",
        "trained from scratch": None,
    }
    assert {recipe["normalization"] for recipe in recipes.values()} == {"batch"}
    assert {row["without"] for row in result["ablation"]} == {"dropout", "freezing"}
    assert "without the earlier study's weights" in result["verdict"]


def test_another_target_gets_a_last_layer_of_its_own(bench: Bench, earlier: int) -> None:
    asked: dict[str, Any] = {"start": earlier, "space": STILL, "model": {"fine_tune": ["all", "head"]}}
    warned = bench.client.post("/v1/studies", json=bench.spec(file="strength", **asked)).json()
    assert any("trained on other data" in warning for warning in warned["warnings"])
    study = bench.run(int(warned["id"]))
    was, now = (load(bench.files(each).read("weights.safetensors")) for each in (earlier, study))
    assert now["head.weight"].shape == (2, 8)
    for name in was.keys() - {"head.weight", "head.bias"}:
        if "running" not in name:
            np.testing.assert_allclose(now[name], was[name], atol=1e-5)


def test_a_regression_goes_on_in_its_own_unit(bench: Bench, earlier: int) -> None:
    first = bench.run(bench.submit(file="acid", task="regression"))
    second = bench.run(bench.submit(file="acid", task="regression", start=first, space=STILL, model={"fine_tune": "head"}))
    rows = bench.home / "acid.csv"
    np.testing.assert_allclose(bench.model(second).predict(rows), bench.model(first).predict(rows), rtol=1e-4)
    assert bench.model(second).about["target_scale"] == bench.model(first).about["target_scale"]


REFUSED: list[tuple[dict[str, Any], str, Any]] = [
    ({"start": 999}, "model.start_from", "a finished study"),
    ({"model": {"fine_tune": "all"}, "start": None}, "model.fine_tune", None),
    ({"model": {"fine_tune": "hed"}}, "model.fine_tune", "all, head, or off"),
    ({"model": {"widths": [8]}}, "model.widths", [8, 8]),
    ({"model": {"activation": "tanh"}}, "model.activation", "relu"),
    ({"model": {"embedding": "off"}}, "model.embedding", 3),
    ({"space": {**SPACE, "normalization": ["batch", "none"]}}, "space.normalization", "batch"),
    ({"space": {**SPACE, "skip_connections": True}}, "space.skip_connections", False),
    ({"data": {"drop": ["x7"]}}, "data", None),
    ({"data": {"scaling": "log"}}, "data.scaling", "standard"),
    ({"seed": 3}, "seed", 0),
    ({"validation": {"method": "holdout"}}, "validation", None),
    ({"model": {"start_sha256": "0" * 64}}, "model.start_sha256", None),
]


@pytest.mark.parametrize(("given", "field", "allowed"), REFUSED)
def test_what_does_not_fit_is_refused(bench: Bench, earlier: int, given: dict[str, Any], field: str, allowed: Any) -> None:
    issue = bench.refused(**{"start": earlier, **given})
    assert issue["field"] == field
    assert issue["allowed"] is not None
    if allowed is not None:
        assert issue["allowed"] == allowed


def test_other_columns_and_an_unfinished_study_are_refused(bench: Bench, earlier: int) -> None:
    answer = bench.client.post("/v1/studies", json=bench.spec(file="other", start=earlier, task="regression"))
    fields = {issue["field"]: issue["message"] for issue in answer.json()["errors"]}
    assert set(fields) == {"data", "data.drop"}
    assert "x7" in fields["data"]
    assert "new" in fields["data.drop"]
    waiting = bench.submit()
    assert f"study {waiting} is queued" in bench.refused(start=waiting)["message"]
    bench.store.studies.cancel(waiting)


def test_a_network_that_was_replaced_or_deleted_is_not_begun_with(bench: Bench) -> None:
    first = bench.run(bench.submit())
    second = bench.submit(start=first)
    replace(bench.store, models_of(bench.store), first, archive_of(bench.store, first) + b"more")
    assert "has changed since the submission" in _failure(bench, second)
    third = bench.submit(start=first)
    bench.store.studies.delete(first)
    assert "does not exist" in _failure(bench, third)


def _failure(bench: Bench, study: int) -> str:
    Worker(bench.store, bench.settings, "cpu", UntilItEnds(bench.store, study)).run()
    record = bench.store.studies.get(study)
    assert record.state is StudyState.FAILED
    return str(record.reason)


def test_the_spec_names_what_a_replay_needs(bench: Bench, earlier: int) -> None:
    study = bench.submit(start=earlier)
    again = bench.client.post(f"/v1/studies/{study}/replay").json()
    assert again["spec"]["model"]["start_sha256"] == bench.store.archives.get(earlier).sha256
    for each in (study, int(again["id"])):
        bench.store.studies.cancel(each)


def test_a_network_that_has_seen_all_rows_is_none_to_begin_with_on_the_same_data(bench: Bench) -> None:
    delivered = bench.run(bench.submit(deliver="on"))
    issue = bench.refused(start=delivered)
    assert (issue["field"], issue["value"]) == ("model.start_from", delivered)
    assert "deliver: off" in issue["allowed"]
    elsewhere = bench.run(bench.submit(start=delivered, file="strength"))
    assert bench.result(elsewhere)["model"]["networks"] == 1
