"""The generalization gap of a run: that of its kept weights in an ordinary module, on whole parts of the data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, root_mean_squared_error

from service.spec import StudySpec
from tests.unit.stack.runs import data, protocol, recipe, runner
from workers.plain.network import Shape, build
from workers.searching.objectives import Objectives
from workers.stack.device_data import DeviceData
from workers.stack.run import Protocol, Run

SETTINGS: list[dict[str, Any]] = [
    {"dropout": 0.5, "l2": 0.1, "weight_decay": 3.0, "label_smoothing": 0.2},
    {"lr": 0.05, "input_noise": 0.3, "averaging": "ema"},
    {},
]


def study(task: str, metric: str) -> StudySpec:
    raw = {"data": {"dataset": "wine"}, "metric": metric, "also": ["gap"]}
    return StudySpec.model_validate(raw).resolved(task)  # type: ignore[arg-type]  # one of the two


def by_hand(run: Run, weights: list[dict[str, torch.Tensor]], on: DeviceData) -> float:
    """With scikit-learn, fold by fold, validation minus training."""
    gaps = []
    for (fold, _), state in zip(run.fold_seeds, weights, strict=True):
        module = build(Shape.of(run.recipe.effective(), on.inputs, on.outputs))
        module.load_state_dict(state)
        module.eval()
        scores = []
        for rows in (on.valid[fold][on.mask[fold] > 0], on.train[fold]):
            with torch.no_grad():
                out = module(on.x[rows])
            if on.task == "regression":
                scores.append(float(on.scale[fold]) * root_mean_squared_error(on.y[rows], out.squeeze(1)))
            else:
                scores.append(log_loss(on.y[rows], out.double().softmax(1), labels=range(on.outputs)))
        gaps.append(scores[0] - scores[1])
    return float(np.mean(gaps))


@pytest.mark.parametrize(("task", "metric"), [("classification", "log_loss"), ("regression", "rmse")])
@pytest.mark.parametrize("folds", [1, 3])
def test_the_gap_is_that_of_the_kept_weights_without_noise_and_penalties(task: str, metric: str, folds: int) -> None:
    on = data(task=task, folds=folds)
    how = Protocol(metric, 6, protocol(task, patience=2).early_stopping)
    chosen = [each if task == "classification" else {**each, "label_smoothing": 0.0} for each in SETTINGS]
    runs = [
        Run(key, recipe(**each), tuple((fold, 10 * key + fold) for fold in range(folds)), how)
        for key, each in enumerate(chosen)
    ]
    stack = runner(runs[0].recipe, on)
    stack.add(runs)
    for _ in range(6):
        for run in stack.epoch():
            if run.ending:
                found = Objectives(study(task, metric), how, on).further(run, stack)
                assert found == {"gap": pytest.approx(by_hand(run, stack.best_weights(run), on), rel=1e-3, abs=1e-5)}
                stack.remove(run)
    assert not stack.runs


def test_a_metric_is_taken_where_the_weights_were_kept() -> None:
    on = data()
    how = protocol(patience=1)
    run = Run(0, recipe(lr=0.3), ((0, 1),), how)
    run.curve = {"accuracy": [0.5, 0.9, 0.8], "f1": [0.1, 0.2, 0.3]}
    run.best_epoch, run.best_value = 1, 0.9
    spec = StudySpec.model_validate({"data": {"dataset": "wine"}, "also": ["f1"]}).resolved("classification")
    assert Objectives(spec, how, on).further(run, runner(run.recipe, on)) == {"f1": 0.2}
