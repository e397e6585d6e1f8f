"""Networks of folds: each is the plain loop on all rows but its fold's, stopped by these; their score on test rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from sklearn.metrics import root_mean_squared_error

from service.report import Source, build_report, to_markdown
from service.result import Result
from service.spec import Deliver, StudySpec
from service.store.records import StudyRecord
from tests.unit.answer.test_finalizer import run
from tests.unit.answer.test_refit import RECIPE, study
from tests.unit.test_whole_studies import Bench, finished
from workers.answer.refit import Refitting
from workers.data import divide_all
from workers.data.locked import test_part as locked_part
from workers.plain.layers import dropout_of
from workers.plain.loader import Model
from workers.plain.network import Shape, build, initialize
from workers.plain.preprocessing import features
from workers.plain.training import WATCHES, Rows, train
from workers.stack.layout import Layout

FOLDS = {"method": "kfold", "folds": 3}
BUDGET = {"trials": 20, "epochs": 30, "finalists": 3, "seeds": 2}


@pytest.mark.parametrize("task", ["regression", "classification"])
@pytest.mark.parametrize("rows", ["all", "train_valid"])
def test_each_is_the_plain_loop_without_its_fold(task: str, rows: Any) -> None:
    stopping = {"patience": 3, "monitor": "loss"}
    spec, data, winner = study(task, budget=BUDGET, validation=FOLDS, early_stopping=stopping)
    done = Refitting(spec, data, winner, Deliver(rows=rows, seeds=2), lambda: None, Layout()).train("folds")
    assert done is not None
    pairs = divide_all(data.table, spec.validation, spec.seed) if rows == "all" else data.split.folds
    covered = np.sort(np.concatenate([valid for _, valid in pairs]))
    everything = np.setdiff1d(np.arange(data.table.rows), [] if rows == "all" else data.split.test)
    assert np.array_equal(covered, everything), "each row validates once"
    assert (done.folds, len(done.weights), done.rows) == (3, 6, len(everything))
    assert len(set(done.seeds)) == 6
    longest = max(len(own) for own, _ in pairs)
    epochs = []
    for place, (seed, weights) in enumerate(zip(done.seeds, done.weights, strict=True)):
        own, held = pairs[place % 3]
        own = np.resize(own, longest)  # lanes have equally many rows
        x, x_valid = (
            torch.from_numpy(features(data.table.features.iloc[each], done.fold.preprocessor)) for each in (own, held)
        )
        y, y_valid = (torch.from_numpy(data.table.target[each]) for each in (own, held))
        if task == "regression":
            y, y_valid = (torch.from_numpy(done.fold.target.standardize(each.numpy())) for each in (y, y_valid))
        network = build(done.shape, dropout_of(RECIPE.effective()))
        initialize(network, RECIPE.effective(), seed)
        there = Rows(x, y, x_valid, y_valid)
        found = train(network, RECIPE.effective(), there, epochs=30, patience=3, watch=WATCHES["loss"])
        epochs.append(found.best_epoch + 1)
        for name, value in found.network.state_dict().items():
            torch.testing.assert_close(weights[name], value, rtol=1e-3, atol=1e-4)
    assert done.epochs == round(float(np.mean(epochs)))


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_their_test_score_is_that_of_all_networks_that_have_not_seen_it(task: str) -> None:
    """By hand: of the finals' networks of every fold, in the target's unit."""
    spec, data, _, answer, accesses = run(task, validation=FOLDS, budget=BUDGET)
    assert accesses == ["test"]
    predicted = []
    for number, fold in enumerate(data.folds):
        x, _ = locked_part(data.table, data.split, fold)
        for weights in answer.winner.weights.values():
            network = build(data.shape(answer.winner.recipe))
            network.load_state_dict(dict(weights[number]))
            with torch.no_grad():
                out = network.eval()(torch.from_numpy(x)).double().numpy()
            own = (
                np.exp(out) / np.exp(out).sum(1, keepdims=True)
                if task == "classification"
                else fold.target.restore(out[:, 0])
            )
            predicted.append(own)
    assert len(predicted) == 6
    mean, truth = np.mean(predicted, axis=0), data.table.target[data.split.test]
    expected = np.mean(mean.argmax(1) == truth) if task == "classification" else root_mean_squared_error(truth, mean)
    assert answer.average.folds is not None
    assert answer.average.folds.mean == pytest.approx(expected, rel=1e-4)
    assert answer.average.folds.n == len(truth)
    assert spec.deliver is not None


def test_without_folds_there_is_no_such_score() -> None:
    assert run("regression", budget={**BUDGET, "epochs": 4})[3].average.folds is None


BAD: list[dict[str, Any]] = [
    {"validation": {"method": "holdout"}},
    {"validation": FOLDS, "data": {"dataset": "wine", "time": "x0"}},
]


@pytest.mark.parametrize("parts", BAD, ids=str)
def test_they_are_refused_where_there_are_no_folds_to_leave_out(parts: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        StudySpec.model_validate({"data": {"dataset": "wine"}, **parts, "deliver": {"networks": "folds"}})
    (error,) = caught.value.errors()
    assert error["ctx"]["key"] == "deliver.networks"
    assert error["ctx"]["value"] == "folds"


def test_they_are_refused_where_the_rows_are_too_many_for_folds() -> None:
    spec = StudySpec.model_validate({"data": {"dataset": "wine"}, "deliver": {"networks": "folds"}})
    assert spec.resolved("classification", 1000).validation.folds == 5
    with pytest.raises(ValidationError, match="needs k folds, and the validation is a holdout"):
        spec.resolved("classification", 100_000)


Delivered = tuple[Bench, StudyRecord, Path]


@pytest.fixture(scope="module")
def delivered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Delivered]:
    path = tmp_path_factory.mktemp("bagging")
    bench = Bench(path)
    record = bench.run(
        validation=FOLDS, data={"groups": "who", "drop": ["day", "part"]}, deliver={"networks": "folds", "seeds": 2}
    )
    finished(record)
    folder = bench.unpacked(record, path / "model")
    yield bench, record, folder
    bench.store.close()


def test_result_report_card_and_archive_say_how_many_of_which_kind(delivered: Delivered) -> None:
    bench, record, folder = delivered
    result = Result.model_validate(record.result)
    assert result.model is not None
    assert result.model.refit is not None
    assert (result.model.networks, result.model.refit.folds, result.model.refit.rows) == (6, 3, 178)
    trials, _ = bench.store.history.page(record.id, limit=100)
    report = to_markdown(build_report(Source(record, result, trials)))
    sentence = "The average of 6 networks of the winning recipe, 2 for each of 3 folds of all rows (178), trained again"
    card = (folder / "README.md").read_text()
    assert sentence in report
    assert sentence in card
    assert "what is in here saw all rows, each of its networks without one of 3 folds" in card
    about = json.loads((folder / "recipe.json").read_text())
    assert (about["networks"], about["chosen"]["refit"]["folds"]) == (6, 3)
    # It trains one network, with validation rows of its own to stop by.
    assert "patience" in (folder / "train.py").read_text()
    assert "split(x, y, w, SEED)" in (folder / "train.py").read_text()


def test_the_loader_averages_them(delivered: Delivered) -> None:
    bench, _, folder = delivered
    model = Model.load(folder)
    frame = pd.read_csv(bench.path)
    x = torch.from_numpy(features({name: frame[name] for name in frame}, model.preprocessing))
    weights, each = load_file(folder / "weights.safetensors"), []
    for number in range(6):
        network, start = build(Shape.from_json(model.about["model"])), f"members.{number}."
        network.load_state_dict({name.removeprefix(start): w for name, w in weights.items() if name.startswith(start)})
        with torch.no_grad():
            each.append(network.eval()(x).double().softmax(1))
    assert max(float((one - each[0]).abs().max()) for one in each) > 0.01, "they differ"
    expected = np.array(model.about["classes"])[torch.stack(each).mean(0).argmax(1).numpy()]
    assert (expected == model.predict(frame)).all()
