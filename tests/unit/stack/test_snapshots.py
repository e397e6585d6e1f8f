"""Snapshots in a stack: alone, beside others and plain PyTorch; kept, moved, saved, predicted with and handed out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, root_mean_squared_error

from service.objects.local import LocalObjects
from service.spec import Recipe
from tests.unit.stack.reference import alone
from tests.unit.stack.runs import data, protocol, recipe, runner
from workers.plain.network import build, parts, trained
from workers.plain.schedules import Schedule, ends_cycle
from workers.searching.checkpoints import Checkpoints
from workers.stack.device_data import DeviceData
from workers.stack.layout import Layout, Threads
from workers.stack.run import Run
from workers.stack.runner import StackRunner
from workers.stack.stack import StackKey

EPOCHS = 8
"""Cycles of 2 and 4 epochs, and two epochs of the third."""


def cyclic(**values: Any) -> Recipe:
    cycles = {"lr_schedule": "warm_restarts", "restart_period": 2, "restart_mult": 2, "snapshots": True}
    return recipe(**{**cycles, **values})


def run_of(setting: Recipe, on: DeviceData, key: int = 0, seed: int = 7) -> Run:
    return Run(key, setting, tuple((fold, seed + fold) for fold in range(on.folds)), protocol(on.task, EPOCHS))


def to_the_end(stack: StackRunner, run: Run) -> None:
    while not run.ending:
        stack.epoch()


def test_a_cycle_ends_where_the_rate_is_high_again() -> None:
    """Beside torch's own scheduler, with and without warmup."""
    for period, mult, warmup in ((1, 2, 0), (2, 2, 0), (3, 1, 0), (4, 3, 0), (2, 2, 3)):
        setting = cyclic(restart_period=period, restart_mult=mult, warmup_epochs=warmup)
        rule = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        theirs = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(rule, T_0=period, T_mult=mult)
        for epoch in range(60):
            rule.step()
            theirs.step()
            restarted = theirs.T_cur == 0
            assert ends_cycle(setting, epoch + warmup) == restarted, (period, mult, epoch)
        assert not any(ends_cycle(setting, epoch) for epoch in range(warmup))
        ours = Schedule(setting, 60)
        assert ours.rates(warmup, 1)[0] == pytest.approx(setting["lr"])
    assert not any(ends_cycle(recipe(lr_schedule="cosine"), epoch) for epoch in range(60))


EXTRA: list[dict[str, Any]] = [
    {"dropout": 0.2, "weight_decay": 0.5},
    {"normalization": "batch", "mixup": 0.5},
    {"averaging": "ema", "ema_decay": 0.7, "optimizer": "sgd"},
    {"averaging": "swa", "swa_start": 0.3},
    {"members": 3, "numeric_embedding": "piecewise_linear"},
]


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("extra", EXTRA, ids=str)
def test_a_lane_is_plain_pytorch_alone_and_in_a_stack(extra: dict[str, Any], task: str) -> None:
    on, setting = data(task=task), cyclic(**extra)
    plain = alone(setting, 7, on, epochs=EPOCHS)
    for beside in (False, True):
        stack, run = runner(setting, on), run_of(setting, on)
        others = [cyclic(**{**extra, "snapshots": False, "l1": 0.1}), cyclic(**{**extra, "restart_period": 3})]
        stack.add([*(run_of(each, on, 1 + place) for place, each in enumerate(others) if beside), run])
        to_the_end(stack, run)
        np.testing.assert_allclose(run.curve["train_loss"], plain.losses, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(run.curve["loss"], plain.watched, rtol=2e-4, atol=2e-5)
        (ours,) = stack.best_weights(run)
        assert len(parts(ours)) == 3, "of two whole cycles, and the last weights"
        theirs = plain.network.state_dict()
        for name, value in ours.items():
            np.testing.assert_allclose(value, theirs[name], rtol=5e-3, atol=5e-4, err_msg=name)


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("folds", [1, 2])
def test_the_value_is_that_of_the_average_of_the_predictions(task: str, folds: int) -> None:
    """By hand with ordinary modules and scikit-learn, from the weights that are kept."""
    on, setting = data(task=task, folds=folds), cyclic()
    stack, run = runner(setting, on), run_of(setting, on)
    stack.add([run])
    shape, values, single = StackKey.of(setting, on.inputs, on.outputs).shape, [], []
    to_the_end(stack, run)
    rows = [on.valid[fold][on.mask[fold] > 0] for fold in range(folds)]
    predicted = stack.predict(run, rows)
    for fold, weights in enumerate(stack.best_weights(run)):
        outs = []
        for state in parts(weights):
            network = build(shape)
            network.load_state_dict(state)
            with torch.no_grad():
                out = network.eval()(on.x[rows[fold]]).double()
            outs.append(out.softmax(1).numpy() if task == "classification" else out[:, 0].numpy())
        y, mean = on.y[rows[fold]].numpy(), np.mean(outs, axis=0)
        scores = []
        for each in (mean, outs[0]):
            scale = float(on.scale[fold])
            error = (
                log_loss(y, each, labels=range(3)) if task == "classification" else scale * root_mean_squared_error(y, each)
            )
            scores.append(error)
        values.append(scores[0])
        single.append(scores[1])
        with torch.no_grad():
            together = trained(shape, weights, task).eval()(on.x[rows[fold]])
        torch.testing.assert_close(predicted[fold][0], together, rtol=1e-4, atol=1e-5)
    assert run.best_epoch == EPOCHS - 1
    assert run.value == pytest.approx(np.mean(values), rel=1e-4)
    assert abs(np.mean(values) - np.mean(single)) > 1e-4


def test_lanes_without_snapshots_are_left_as_they_are() -> None:
    on, setting = data(), cyclic(snapshots=False)
    curves = []
    for others in ([], [cyclic()]):
        stack, run = runner(setting, on), run_of(setting, on)
        stack.add([run, *(run_of(each, on, 1) for each in others)])
        to_the_end(stack, run)
        curves.append(run.curve["loss"])
        assert len(parts(stack.best_weights(run)[0])) == 1
    np.testing.assert_allclose(curves[1], curves[0], rtol=2e-4, atol=2e-5)


def test_snapshots_move_with_their_lanes() -> None:
    """Of blocks of two lanes some are given up as runs end; a lane that is used again begins without any."""
    on, threads = data(), Threads(1)
    settings = [cyclic(lr=0.002 * (lane + 1)) for lane in range(5)]
    stack = StackRunner(StackKey.of(settings[0], on.inputs, on.outputs), on, layout=Layout(2, threads=threads))
    runs = [run_of(each, on, key) for key, each in enumerate(settings)]
    stack.add(runs)
    for epoch in range(EPOCHS):
        stack.epoch()
        if epoch == 3:
            stack.remove(runs[0])
            stack.remove(runs[2])
            late = run_of(settings[0], on, 9)
            stack.add([late])
    for run in (runs[1], runs[3], runs[4]):
        by_itself, same = runner(run.recipe, on), run_of(run.recipe, on)
        by_itself.add([same])
        to_the_end(by_itself, same)
        np.testing.assert_allclose(run.curve["loss"], same.curve["loss"], rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(late.curve["loss"], runs[0].curve["loss"], rtol=2e-4, atol=2e-5)
    threads.close()


@pytest.mark.parametrize("pause", [1, 2, 6, 7])
def test_a_run_goes_on_from_its_checkpoint_with_them(tmp_path: Path, pause: int) -> None:
    on, setting = data(folds=2), cyclic(dropout=0.2)
    straight, whole = runner(setting, on), run_of(setting, on)
    straight.add([whole])
    to_the_end(straight, whole)
    first, broken = runner(setting, on), run_of(setting, on)
    first.add([broken])
    for _ in range(pause):
        first.epoch()
    Checkpoints(LocalObjects(tmp_path)).save(0, first.checkpoint(broken))
    saved = Checkpoints(LocalObjects(tmp_path)).load(0)
    assert saved is not None
    second, again = runner(setting, on), run_of(setting, on)
    again.resume(saved)
    second.add([again])
    to_the_end(second, again)
    np.testing.assert_allclose(again.curve["loss"], whole.curve["loss"], rtol=1e-4, atol=1e-6)
    for ours, theirs in zip(second.best_weights(again), straight.best_weights(whole), strict=True):
        assert len(parts(ours)) == len(parts(theirs)) == 3
        for name, value in theirs.items():
            np.testing.assert_allclose(ours[name], value, rtol=1e-3, atol=1e-5, err_msg=name)


def test_they_help_a_quantile_too() -> None:
    on = replace(data(task="regression"), quantile=0.77, wanted=("pinball",))
    setting = cyclic(quantile=0.77)
    stack, run = runner(setting, on), run_of(setting, on)
    stack.add([run])
    to_the_end(stack, run)
    np.testing.assert_allclose(run.curve["loss"], alone(setting, 7, on, epochs=EPOCHS).watched, rtol=2e-4, atol=2e-5)
