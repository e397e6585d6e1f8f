"""Studies from their spec to their answer, in this process on SQLite: every way to divide and to prepare the rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn import datasets

from service.api.inspection import Inspections
from service.api.submission import check
from service.errors import TrialError
from service.settings import Settings
from service.spec import StudySpec
from service.store import Store, StudyState, open_store
from service.store.records import StudyRecord
from tests.trained import archive_of
from tests.unit.archives import unpacked
from tests.unit.data.fitted import names_of
from workers.liveness import Stop
from workers.plain.loader import Model
from workers.study_data import Prepared, StudyData
from workers.worker import Worker

ROWS = 178
SMALL = {
    "model": {"width": 8, "depth": 1},
    "space": {"preset": "off", "lr": {"low": 1e-3, "high": 1e-1, "log": True}, "batch_size": 32},
    "budget": {"trials": 4, "epochs": 3},
}


class UntilItEnds(Stop):
    """Stops the worker when its study has come to an end."""

    def __init__(self, store: Store, study_id: int) -> None:
        super().__init__()
        self._store = store
        self._study_id = study_id

    def __call__(self) -> bool:
        if self._store.studies.get(self._study_id).finished_at is not None:
            self.asked.set()
        return self.asked.is_set()


class Bench:
    """Studies on scikit-learn's wine, with more columns, submitted as by the API to a worker in this process."""

    def __init__(self, tmp_path: Path) -> None:
        self.path = tmp_path / "wine.csv"
        self._settings = Settings(home=tmp_path / "home", data_roots=(tmp_path,), cache=tmp_path / "cache")
        self._settings.home.mkdir()
        self.store = open_store(self._settings.database_url, create=True)
        wine().to_csv(self.path, index=False)

    def submit(self, **parts: Any) -> tuple[StudyRecord, Worker]:
        usual = {"path": str(self.path), "target": "class", "drop": ["who", "day", "part"]}
        raw = StudySpec.model_validate({**SMALL, **parts, "data": {**usual, **parts.get("data", {})}})
        study_id = self.store.studies.submit(check(raw, self.store, self._settings, Inspections()).spec)
        worker = Worker(self.store, self._settings, "cpu", UntilItEnds(self.store, study_id))
        return self.store.studies.get(study_id), worker

    def load(self, **parts: Any) -> Prepared:
        """The data as the worker prepares it."""
        record, _ = self.submit(**parts)
        self.store.studies.cancel(record.id)
        data = StudyData(self.store, self._settings, torch.device("cpu"))
        return data.of(record, StudySpec.model_validate(record.spec))

    def run(self, **parts: Any) -> StudyRecord:
        """Search and finalize."""
        record, worker = self.submit(**parts)
        worker.run()
        return self.store.studies.get(record.id)

    def unpacked(self, record: StudyRecord, folder: Path) -> Path:
        """The folder, with what is in a study's archive."""
        return unpacked(archive_of(self.store, record.id), folder)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    made = Bench(tmp_path_factory.mktemp("bench"))
    yield made
    made.store.close()


def wine() -> pd.DataFrame:
    """Its 13 numbers; a word, gaps, a group of three rows each, a day, and a division of its own."""
    bunch = datasets.load_wine()
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(bunch.data, columns=[f"x{index}" for index in range(13)])
    frame["kind"] = np.array(["a", "b", None], dtype=object)[rng.integers(3, size=ROWS)]
    frame.loc[rng.random(ROWS) < 0.2, "x3"] = np.nan
    frame["who"] = rng.permutation(ROWS) // 3
    frame["day"] = pd.date_range("2024-01-01", periods=ROWS).astype(str).to_numpy()[rng.permutation(ROWS)]
    frame["part"] = rng.choice(["Train", "valid", "TEST"], size=ROWS, p=[0.6, 0.2, 0.2])
    frame["class"] = bunch.target
    return frame


def finished(record: StudyRecord) -> None:
    assert (record.state, record.reason) == (StudyState.FINISHED, None)
    assert record.result is not None


def test_a_study_that_searches_embeddings_hands_out_a_model_with_them(bench: Bench, tmp_path: Path) -> None:
    for_model = {"width": 8, "depth": 1, "embedding": [2, 3]}
    record = bench.run(model=for_model, data={"categorical": ["x0"]}, validation={"method": "kfold", "folds": 3})
    finished(record)
    bench.unpacked(record, tmp_path)
    model = Model.load(tmp_path)
    tables = [value.shape for name, value in model.network.named_parameters() if name.startswith("members.0.embeddings.")]
    numbers, kinds = tables
    assert kinds[0] in (3, 4)
    assert numbers[0] > 40  # of the 126 distinct values of x0 the frequent ones
    assert kinds[1] == min(model.about["recipe"]["embedding"], 3)
    assert model.about["model"]["categories"] == [numbers[0], kinds[0]]
    assert set(model.predict(bench.path)) == {"0", "1", "2"}


def test_repeated_folds_are_lanes_and_share_one_test_part(bench: Bench) -> None:
    asked = {"validation": {"method": "kfold", "folds": 3, "repeats": 2}}
    finished(bench.run(**asked))
    prepared = bench.load(**asked)
    assert len(prepared.folds) == 6
    rest = set(range(ROWS)) - set(prepared.split.test.tolist())
    for repeat in (prepared.split.folds[:3], prepared.split.folds[3:]):
        assert sorted(row for _, valid in repeat for row in valid.tolist()) == sorted(rest)
    assert not np.array_equal(prepared.split.folds[0][1], prepared.split.folds[3][1])


def test_repeated_holdouts_differ(bench: Bench) -> None:
    prepared = bench.load(validation={"method": "holdout", "repeats": 3})
    assert len({tuple(valid.tolist()) for _, valid in prepared.split.folds}) == 3


@pytest.mark.parametrize("method", ["holdout", "kfold"])
def test_no_group_is_divided(bench: Bench, method: str) -> None:
    prepared = bench.load(data={"groups": "who", "drop": ["day", "part"]}, validation={"method": method, "folds": 3})
    groups = wine()["who"].to_numpy()
    for train, valid in prepared.split.folds:
        parts = [set(groups[rows].tolist()) for rows in (train, valid, prepared.split.test)]
        assert parts[0].isdisjoint(parts[1])
        assert parts[2].isdisjoint(parts[0] | parts[1])
    assert "who" not in prepared.table.features


@pytest.mark.parametrize("method", ["holdout", "kfold"])
def test_later_rows_validate_and_test_earlier_ones(bench: Bench, method: str) -> None:
    prepared = bench.load(data={"time": "day", "drop": ["who", "part"]}, validation={"method": method, "folds": 3})
    days = wine()["day"].to_numpy()
    assert len(prepared.split.folds) == (3 if method == "kfold" else 1)
    for train, valid in prepared.split.folds:
        assert max(days[train]) < min(days[valid])
        assert max(days[valid]) < min(days[prepared.split.test])
    assert "day" not in prepared.table.features


def test_a_column_may_divide_the_rows(bench: Bench) -> None:
    prepared = bench.load(data={"split": "part", "drop": ["who", "day"]})
    part = wine()["part"].to_numpy()
    (train, valid), test = prepared.split.folds[0], prepared.split.test
    assert [np.flatnonzero(part == name).tolist() for name in ("Train", "valid", "TEST")] == [
        rows.tolist() for rows in (train, valid, test)
    ]


def test_folds_behind_a_given_test_part(bench: Bench) -> None:
    prepared = bench.load(data={"split": "part", "drop": ["who", "day"]}, validation={"method": "kfold", "folds": 2})
    assert prepared.split.test.tolist() == np.flatnonzero(wine()["part"] == "TEST").tolist()
    assert len(prepared.split.folds) == 2


def test_preparing_is_the_studys_own_choice(bench: Bench) -> None:
    plain = bench.load()
    asked = {"scaling": "minmax", "impute": "mean", "flag_missing": True, "impute_categories": "most_frequent"}
    prepared = bench.load(data=asked)
    frame = wine()
    train = prepared.split.folds[0][0]
    numbers = frame.loc[train, [f"x{index}" for index in range(13)]]
    filled = numbers.fillna(numbers.mean())
    expected = (filled - filled.min()) / (filled.max() - filled.min())
    np.testing.assert_allclose(prepared.folds[0].x_train[:, :13], expected, atol=1e-5)
    assert names_of(prepared.folds[0].preprocessor)[13:] == ("x3 is missing", "kind = a", "kind = b")
    assert names_of(plain.folds[0].preprocessor)[13:] == ("kind = a", "kind = b", "kind = missing")


def test_an_area_under_a_curve_may_be_the_objective_and_early_stopping_may_watch_another(bench: Bench) -> None:
    stopping = {"monitor": "roc_auc", "patience": 2}
    record = bench.run(metric="pr_auc", early_stopping=stopping, validation={"method": "kfold", "folds": 2})
    finished(record)
    assert record.result is not None
    winner, baseline = record.result["winner"], record.result["baseline"]
    curves = record.result["discrimination"]
    assert set(curves) == {winner["name"], "unregularized"}
    for said in (winner, baseline):
        areas = [curve["area"] for curve in curves[said["name"]]["pr"]]
        assert np.mean(areas) == pytest.approx(said["test"]["mean"], abs=1e-5)
        assert np.sum(curves[said["name"]]["confusion"]["counts"]) == pytest.approx(record.result["rows"]["test"])
    assert bench.load(metric="pr_auc", early_stopping=stopping).device.wanted == ("pr_auc", "roc_auc")


def test_several_objectives_have_a_front_and_finalists_from_it(bench: Bench) -> None:
    """The front is compared with the definition of dominance, written out."""
    folds = {"method": "kfold", "folds": 2}
    record = bench.run(
        metric="log_loss",
        also=["gap", "roc_auc"],
        validation=folds,
        space={"preset": "off", "lr": {"low": 1e-3, "high": 0.1, "log": True}, "dropout": {"low": 0.0, "high": 0.6}},
        budget={"trials": 24, "epochs": 4, "finalists": 3, "seeds": 2},
    )
    finished(record)
    assert record.result is not None
    page, _ = bench.store.history.page(record.id, state="complete")
    values = {trial.number: (trial.value or np.nan, trial.also["gap"], -trial.also["roc_auc"]) for trial in page}
    assert len(values) == 24
    beaten = {a for a in values for b in values if values[b] != values[a] and all(np.less_equal(values[b], values[a]))}
    front = record.result["front"]
    assert {each["trial"] for each in front} == set(values) - beaten
    assert [each["trial"] for each in front] == sorted(set(values) - beaten, key=lambda number: values[number])
    for each in front:
        assert [*each["values"]] == ["log_loss", "gap", "roc_auc"]
        assert each["values"]["roc_auc"] == -values[each["trial"]][2]
        assert set(each["regularizers"]) <= {"dropout"}
    others = [each for each in record.result["others"] if each["role"] == "finalist"]
    chosen = [each["trial"] for each in (record.result["winner"], *others)]
    assert len(front) >= 3
    assert set(chosen) == {each["trial"] for each in front[:3]}
    for said in (record.result["winner"], record.result["baseline"]):
        assert said["also"]["gap"]["mean"] == pytest.approx(said["gap"]["train_valid"], abs=1e-6)
        assert 0.0 <= said["also"]["roc_auc"]["mean"] <= 1.0
    assert record.result["winner"]["valid"]["mean"] == min(
        each["valid"]["mean"] for each in (record.result["winner"], *others)
    )


def test_a_metric_that_is_undefined_on_a_part_fails_the_study_at_once(bench: Bench) -> None:
    frame = wine()
    spare = frame.index[frame["part"] == "valid"][1:]
    frame.loc[spare, "part"] = "Train"  # one row to validate, whose variance R2 is divided by
    data = {"path": str(bench.path.with_name("flat.csv")), "target": "x0", "split": "part", "drop": ["who", "day", "class"]}
    frame.to_csv(bench.path.with_name("flat.csv"), index=False)
    with pytest.raises(TrialError, match="r2 is undefined: all validation rows of fold 1 have the same target"):
        bench.load(data=data, task="regression", metric="rmse", also=["gap", "r2"])
    bench.load(data=data, task="regression", metric="rmse")


@pytest.mark.parametrize(("metric", "target"), [("roc_auc", "class"), ("r2", "x0")])
def test_the_test_part_is_looked_at_too(bench: Bench, metric: str, target: str) -> None:
    frame = wine()
    frame.loc[frame["part"].str.lower() == "test", target] = 1
    frame.to_csv(bench.path.with_name("flat.csv"), index=False)
    task = "classification" if target == "class" else "regression"
    data = {"path": str(bench.path.with_name("flat.csv")), "target": target, "split": "part", "drop": ["who", "day"]}
    with pytest.raises(TrialError, match=f"{metric} is undefined: all test rows"):
        bench.load(data=data, task=task, metric=metric)


def test_an_area_without_a_value_fails_the_study_at_once(bench: Bench) -> None:
    frame = wine()
    frame.loc[frame["part"] == "valid", "class"] = 1
    frame.to_csv(bench.path.with_name("one.csv"), index=False)
    data = {"path": str(bench.path.with_name("one.csv")), "split": "part", "drop": ["who", "day"]}
    with pytest.raises(TrialError, match="roc_auc is undefined: all validation rows of fold 1 belong to one class"):
        bench.load(data=data, metric="roc_auc")
    bench.load(data=data, metric="balanced_accuracy")


def test_a_positive_class_is_one_of_the_classes(bench: Bench) -> None:
    frame = wine()
    frame["class"] = np.where(frame["class"] == 0, "good", "bad")
    frame.to_csv(bench.path.with_name("two.csv"), index=False)
    two = {"path": str(bench.path.with_name("two.csv"))}
    assert [bench.load(data=two | say).device.positive for say in ({}, {"positive": "bad"})] == [1, 0]
    record = bench.run(data=two | {"positive": "worst"}, metric="recall")
    assert record.state is StudyState.FAILED
    assert record.reason is not None
    assert "no class 'worst'; allowed: bad, good" in record.reason


def test_pruners_samplers_and_known_settings_work_together(bench: Bench) -> None:
    record = bench.run(
        sampler={"name": "grid", "points": 3},
        enqueue=[{"lr": 0.02}, {"lr": 0.05}],
        pruner={"name": "patient", "pruner": "hyperband", "patience": 1},
        budget={"trials": 5, "epochs": 6},
    )
    finished(record)
    trials, _ = bench.store.history.page(record.id)
    rates = [trial.params["lr"] for trial in trials]
    assert rates[:2] == [0.02, 0.05]
    assert sorted(rates[2:]) == pytest.approx([0.001, 0.01, 0.1])


def test_of_many_classes_no_picture_grows_with_their_number(bench: Bench) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"a": rng.normal(size=400), "b": rng.normal(size=400), "sku": [f"sku {row % 40}" for row in range(400)]}
    )
    frame.to_csv(bench.path.with_name("many.csv"), index=False)
    record = bench.run(data={"path": str(bench.path.with_name("many.csv")), "target": "sku", "drop": []})
    assert record.state is StudyState.FINISHED
    assert record.result is not None
    assert "discrimination" not in record.result
    assert record.result["pictures"]["test"].get("confusion") is None
