"""What is handed out: the winner's recipe on all rows, for the epochs that the search found best."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from service.spec import Deliver, Recipe, StudySpec
from tests.benchmarks.coverage import ROWS, prepared, spec_of, table
from workers.answer.candidates import Candidate
from workers.answer.finalizer import Averaged
from workers.answer.refit import Refitting, epochs_of, kind_of
from workers.plain.layers import dropout_of
from workers.plain.network import build, initialize
from workers.plain.training import Rows, train
from workers.stack.layout import Layout
from workers.stack.run import Protocol, Run
from workers.study_data import Prepared

# A batch of all rows: the order of the rows, which is the lane's own, makes no difference.
RECIPE = Recipe({"widths": (16,), "batch_size": 16384, "lr": 0.01, "weight_decay": 0.3, "l1": 1e-4, "lr_schedule": "cosine"})


def study(task: str, **changes: Any) -> tuple[StudySpec, Prepared, Candidate]:
    spec = StudySpec.model_validate(spec_of(task, seed=3).model_dump(mode="json") | changes)
    data = prepared(table(task, ROWS, np.random.default_rng(3)), spec)
    winner = Candidate("trial 1", "finalist", RECIPE)
    for seed, best in enumerate((2, 5, 4)):
        winner.runs[seed] = Run(seed, RECIPE, ((0, seed),), Protocol("loss", spec.budget.epochs, None), best_epoch=best)
    return spec, data, winner


@pytest.mark.parametrize("task", ["regression", "classification"])
@pytest.mark.parametrize("rows", ["all", "train_valid"])
def test_it_is_the_plain_loop_on_those_rows(task: str, rows: Any) -> None:
    spec, data, winner = study(task, budget={"trials": 20, "epochs": 9, "finalists": 3, "seeds": 2})
    done = Refitting(spec, data, winner, Deliver(rows=rows, seeds=2), lambda: None, Layout()).train("ensemble")
    assert done is not None
    assert done.folds is None
    own = np.concatenate([*data.split.folds[0], *([data.split.test] if rows == "all" else [])])
    assert (done.rows, done.epochs, len(done.weights)) == (len(own), 5, 2)
    fold = done.fold
    assert len(fold.y_train) == len(own)
    if task == "regression":
        assert fold.target.mean == pytest.approx(data.table.target[own].mean())
    x, y = torch.from_numpy(fold.x_train), torch.from_numpy(fold.y_train)
    for seed, weights in zip(done.seeds, done.weights, strict=True):
        network = build(done.shape, dropout_of(RECIPE.effective()))
        initialize(network, RECIPE.effective(), seed)
        train(network, RECIPE.effective(), Rows(x, y, x, y), epochs=9, stop_after=5)
        for name, value in network.state_dict().items():
            torch.testing.assert_close(weights[name], value, rtol=1e-3, atol=1e-4)


def test_nothing_is_handed_out_where_no_loss_stays_finite() -> None:
    spec, data, winner = study("regression")
    winner.recipe = Recipe({**RECIPE, "lr": 1e30})
    refitting = Refitting(spec, data, winner, Deliver(seeds=2), lambda: None, Layout())
    assert refitting.train("ensemble") is None
    assert refitting.train("folds") is None


def test_epochs_are_the_mean_of_the_best_ones() -> None:
    assert epochs_of(study("regression")[2]) == 5  # of 3, 6 and 5


@pytest.mark.parametrize(
    ("networks", "gain", "expected"),
    [
        ("auto", 0.1, "ensemble"),
        ("auto", -0.1, "single"),
        ("single", 0.1, "single"),
        ("ensemble", -0.1, "ensemble"),
        ("folds", -0.1, "folds"),
    ],
)
def test_several_networks_are_trained_where_that_lowers_the_loss(networks: Any, gain: float, expected: str) -> None:
    scores = Averaged(0.8, 0.7, gain, None)  # type: ignore[arg-type]
    assert kind_of(Deliver(networks=networks, seeds=4), scores) == expected


def test_a_single_network_is_one_whatever_the_number_of_seeds() -> None:
    spec, data, winner = study("regression")
    done = Refitting(spec, data, winner, Deliver(seeds=4), lambda: None, Layout()).train("single")
    assert done is not None
    assert len(done.weights) == len(done.seeds) == 1
