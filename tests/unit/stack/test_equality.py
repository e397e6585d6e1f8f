"""A lane of a stack is the trial alone: against a stack of one, and against plain PyTorch with torch.optim."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from service.objects.local import LocalObjects
from service.spec import Recipe
from service.spec.groups.lr_schedule import SCHEDULES
from service.spec.groups.optimizer import OPTIMIZERS
from tests.unit.stack.reference import alone
from tests.unit.stack.runs import data, protocol, recipe, runner, train
from workers.plain.layers import WeightNormLinear
from workers.plain.mlp import Mlp
from workers.plain.network import build
from workers.searching.checkpoints import Checkpoints
from workers.stack import stack as stack_module
from workers.stack.dropout import LaneDropout
from workers.stack.run import Run
from workers.stack.stack import Stack, StackKey


def eight(first: int = 0, **common: Any) -> list[Recipe]:
    """Eight settings, different in everything that a lane may have of its own; schedules from the ``first`` on."""
    schedules = SCHEDULES[first:] + SCHEDULES[:first]
    return [
        recipe(
            l1=1e-3 * lane,
            l2=2e-3 * (lane % 3),
            weight_decay=0.5 * (lane % 4),
            proximal_l1=0.2 * (lane % 3),
            max_norm=(0.0, 0.7, 1.3)[lane % 3],
            label_smoothing=0.05 * (lane % 4),
            class_weights=0.5 * (lane % 3),
            focal_gamma=(0.0, 0.5, 2.0)[lane % 3],
            mixup=0.2 * (lane % 3),
            input_noise=0.1 * ((lane + 1) % 3),
            feature_masking=0.1 * (lane % 4),
            averaging=("none", "ema", "swa")[lane % 3],
            ema_decay=0.8,
            swa_start=0.1 * lane,
            dropout=(0.1 * lane, 0.05 * lane) if lane % 2 else 0.08 * lane,
            input_dropout=0.03 * lane,
            lr=0.002 * (lane + 1),
            momentum=0.1 * lane,
            nesterov=lane % 2 == 1,
            adam_beta1=0.9 - 0.1 * lane,
            adam_beta2=0.9 + 0.01 * lane,
            clip_norm=0.5 * (lane % 3),
            clip_value=0.02 * (lane % 4),
            lr_schedule=schedules[lane],
            warmup_epochs=lane % 3,
            dropout_schedule="flat_cosine" if lane % 3 else "constant",
            weight_decay_schedule="flat_cosine" if lane % 2 else "constant",
            step_every=2,
            restart_period=2,
            plateau_patience=1,
            init=("he", "xavier", "normal", "orthogonal")[lane % 4],
            init_distribution="normal" if lane % 3 else "uniform",
            **common,
        )
        for lane in range(8)
    ]


NORMALIZATIONS = ["none", "batch", "layer", "group", "weight"]
CASES = [*((name, "sgd") for name in NORMALIZATIONS), *(("layer", name) for name in OPTIMIZERS if name != "sgd")]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("normalization", ["none", "batch"])
def test_a_lane_with_skip_connections_is_its_trial_alone(normalization: str, optimizer: str) -> None:
    settings = eight(
        normalization=normalization, normalization_position="after", skip_connections=True, optimizer=optimizer
    )[:3]
    together = train(settings, [1, 2, 3], data(), protocol())
    for lane, setting in enumerate(settings):
        (alone,) = train([setting], [lane + 1], data(), protocol())
        np.testing.assert_allclose(together[lane].curve["loss"], alone.curve["loss"], rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize(("normalization", "optimizer"), CASES)
def test_a_lane_has_the_curve_of_its_trial_alone(normalization: str, optimizer: str) -> None:
    first = len(normalization + optimizer) % len(SCHEDULES)
    settings = eight(first, normalization=normalization, optimizer=optimizer, normalization_groups=4)
    seeds = [100 + lane for lane in range(8)]
    together = train(settings, seeds, data(), protocol())
    for lane, setting in enumerate(settings):
        (alone,) = train([setting], [seeds[lane]], data(), protocol())
        for name, curve in alone.curve.items():
            np.testing.assert_allclose(together[lane].curve[name], curve, rtol=2e-4, atol=2e-5, err_msg=f"{lane} {name}")


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize(("optimizer", "averaging"), [("sgd", "swa"), ("adamw", "ema"), ("sgd", "none")])
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_a_lane_is_plain_pytorch(normalization: str, optimizer: str, averaging: str, task: str) -> None:
    setting = recipe(
        normalization=normalization,
        optimizer=optimizer,
        normalization_groups=4,
        l1=1e-3,
        l2=1e-2,
        weight_decay=1.0,
        dropout=(0.3, 0.2),
        input_dropout=0.1,
        clip_norm=1.0,
        clip_value=0.05,
        proximal_l1=0.05,
        max_norm=0.8,
        nesterov=True,
        label_smoothing=0.1 if task == "classification" else 0.0,
        class_weights=0.7 if task == "classification" else 0.0,
        focal_gamma=1.5 if task == "classification" else 0.0,
        huber_delta=0.6 if task == "regression" else 0.0,
        mixup=1.0,
        input_noise=0.3,
        feature_masking=0.2,
        averaging=averaging,
        ema_decay=0.8,
        swa_start=0.3,
        lr_schedule="step",
        step_every=2,
    )
    how = protocol(task, epochs=5)
    stack = runner(setting, data(task=task))
    run = Run(0, setting, ((0, 7),), how)
    stack.add([Run(1, recipe(**{**setting, "l1": 0.1}), ((0, 1),), how), run])
    for _ in range(5):
        stack.epoch()
    found = alone(setting, 7, data(task=task), epochs=5)
    np.testing.assert_allclose(run.curve["train_loss"], found.losses, rtol=1e-4, atol=1e-5)
    (ours,) = stack.best_weights(run)
    for name, value in found.network.state_dict().items():
        if "num_batches_tracked" not in name:
            np.testing.assert_allclose(ours[name], value, rtol=5e-3, atol=5e-4, err_msg=name)


BASE: dict[str, Any] = {
    "numeric_embedding": "periodic",
    "feature_scaling": True,
    "learnt_activation": True,
    "bias_lr_factor": 0.1,
    "embedding_lr_factor": 0.3,
    "scaling_lr_factor": 6.0,
    "activation_lr_factor": 0.2,
    "fan_in_lr": True,
    "adam_beta2": 0.95,
    "lr_schedule": "coslog4",
    "dropout": 0.3,
    "dropout_schedule": "flat_cosine",
    "weight_decay": 2.0,
    "weight_decay_schedule": "flat_cosine",
    "proximal_l1": 0.02,
    "max_norm": 0.9,
}


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize(("activation", "optimizer"), [("mish", "adamw"), ("selu", "sgd")])
def test_a_lane_with_the_strong_base_is_plain_pytorch(activation: str, optimizer: str, task: str) -> None:
    setting = recipe(activation=activation, optimizer=optimizer, **BASE)
    how, on = protocol(task, epochs=5), data(task=task)
    stack = runner(setting, on)
    run = Run(0, setting, ((0, 7),), how)
    stack.add([Run(1, recipe(**{**setting, "l1": 0.1}), ((0, 1),), how), run])
    for _ in range(5):
        stack.epoch()
    found = alone(setting, 7, on, epochs=5)
    np.testing.assert_allclose(run.curve["train_loss"], found.losses, rtol=1e-4, atol=1e-5)
    (ours,) = stack.best_weights(run)
    for name, value in found.network.state_dict().items():
        np.testing.assert_allclose(ours[name], value, rtol=5e-3, atol=5e-4, err_msg=name)


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("fold", [0, 1])
def test_a_lane_of_members_with_bins_is_plain_pytorch(task: str, fold: int) -> None:
    extra = {"label_smoothing": 0.1, "focal_gamma": 1.0} if task == "classification" else {"huber_delta": 0.5}
    shape = {"members": 4, "numeric_embedding": "piecewise_linear", "normalization": "layer", "unit_variance": True}
    on_as_well = {"weight_decay": 1.0, "max_norm": 0.9, "averaging": "ema", "ema_decay": 0.7}
    setting = recipe(dropout=0.2, mixup=0.8, cutmix=0.3, **on_as_well, **shape, **extra)
    how, on = protocol(task, epochs=4), data(task=task, folds=2)
    stack = runner(setting, on)
    run = Run(0, setting, ((fold, 7),), how)
    stack.add([Run(1, recipe(**{**setting, "l1": 0.1}), ((0, 1),), how), run])
    for _ in range(4):
        stack.epoch()
    found = alone(setting, 7, on, epochs=4, fold=fold)
    np.testing.assert_allclose(run.curve["train_loss"], found.losses, rtol=1e-4, atol=1e-5)
    (ours,) = stack.best_weights(run)
    for name, value in found.network.state_dict().items():
        if "num_batches_tracked" not in name:
            np.testing.assert_allclose(ours[name], value, rtol=5e-3, atol=5e-4, err_msg=name)


@pytest.mark.parametrize(
    ("settings", "looks"),
    [({}, False), ({"numeric_embedding": "piecewise_linear"}, True), ({"unit_variance": True}, True)],
    ids=str,
)
def test_examples_are_copied_only_for_networks_that_look_at_them(settings: dict[str, Any], looks: bool) -> None:
    setting, on = recipe(**settings), data()
    stack = runner(setting, on)
    stack.add([Run(0, setting, ((0, 1),), protocol())])
    stack.epoch()
    assert ("_seen" in vars(on)) == looks


def test_a_frozen_body_of_members_is_that_of_plain_pytorch() -> None:
    setting, on = recipe(fine_tune="head", members=5, normalization="batch", dropout=0.2), data()
    stack, how = runner(setting, on), protocol(epochs=3)
    run = Run(0, setting, ((0, 3),), how)
    stack.add([Run(1, recipe(**{**setting, "fine_tune": "all"}), ((0, 1),), how), run])
    for _ in range(3):
        stack.epoch()
    np.testing.assert_allclose(run.curve["train_loss"], alone(setting, 3, on, epochs=3).losses, rtol=1e-4, atol=1e-5)


def test_cutmix_of_rows_is_that_of_plain_pytorch() -> None:
    on = data()
    found = {}
    for alpha in (0.0, 0.5):
        setting = recipe(cutmix=alpha)
        stack = runner(setting, on)
        run = Run(0, setting, ((0, 3),), protocol(epochs=4))
        stack.add([Run(1, recipe(l1=0.1), ((0, 1),), protocol(epochs=4)), run])
        for _ in range(4):
            stack.epoch()
        found[alpha] = run.curve["train_loss"]
        np.testing.assert_allclose(found[alpha], alone(setting, 3, on, epochs=4).losses, rtol=1e-4, atol=1e-5)
    assert max(np.abs(np.subtract(found[0.0], found[0.5]))) > 0.01


def test_lanes_come_and_go_without_touching_others() -> None:
    settings = eight()
    how = protocol(epochs=8)
    on = data()
    stack = runner(settings[0], on)
    kept = Run(0, settings[3], ((0, 3),), how)
    stack.add([Run(1, settings[1], ((0, 1),), how), kept, Run(2, settings[2], ((0, 2),), how)])
    for epoch in range(8):
        if epoch in (2, 5):
            stack.remove(next(run for run in stack.runs if run is not kept))
            stack.add([Run(10 + epoch, settings[epoch], ((0, epoch),), how)])
        stack.epoch()
    (alone,) = train([settings[3]], [3], on, how)
    np.testing.assert_allclose(kept.curve["loss"], alone.curve["loss"], rtol=2e-4, atol=2e-5)


def test_folds_are_lanes_and_their_mean_is_the_value() -> None:
    on = data(folds=3)
    how = protocol(epochs=4)
    setting = recipe(dropout=0.2)
    stack = runner(setting, on)
    run = Run(0, setting, ((0, 5), (1, 6), (2, 7)), how)
    stack.add([run])
    for _ in range(4):
        stack.epoch()
    curves = []
    for fold, seed in ((0, 5), (1, 6), (2, 7)):
        single = runner(setting, on)
        part = Run(0, setting, ((fold, seed),), how)
        single.add([part])
        for _ in range(4):
            single.epoch()
        curves.append(part.curve["log_loss"])
    np.testing.assert_allclose(run.curve["log_loss"], np.mean(curves, axis=0), rtol=1e-4)


def test_a_lane_that_is_not_finite_ends_and_leaves_others_alone() -> None:
    wild, calm = recipe(lr=10.0, optimizer="sgd", momentum=0.999, init="he"), recipe(optimizer="sgd")
    how = protocol("regression", epochs=30)
    on = data(task="regression")
    runs = train([wild, calm], [1, 2], on, how)
    assert runs[0].ending == "not_finite"
    assert runs[1].ending == "epochs"
    (alone,) = train([calm], [2], on, how)
    np.testing.assert_allclose(runs[1].curve["loss"], alone.curve["loss"], rtol=1e-4)


def test_patience_converges_and_keeps_the_best_weights() -> None:
    setting = recipe(lr=0.05)
    on = data()
    stack = runner(setting, on)
    run = Run(0, setting, ((0, 1),), protocol(epochs=200, patience=5))
    stack.add([run])
    while not run.ending:
        stack.epoch()
    assert run.ending == "converged"
    assert run.best_value == min(run.curve["log_loss"])
    assert run.epoch == run.best_epoch + 1 + 5
    (weights,) = stack.best_weights(run)
    module = build(stack.blocks[0].stack.key.shape)
    module.load_state_dict(weights)
    module.eval()
    loss = F.cross_entropy(module(on.x[on.valid[0]]), on.y[on.valid[0]])
    assert loss.item() == pytest.approx(run.best_value, rel=1e-5)


def test_weight_normalization_is_torchs() -> None:
    ours = WeightNormLinear(5, 4)
    weight = torch.randn(4, 5)
    ours.adopt(weight)
    theirs = nn.utils.parametrizations.weight_norm(nn.Linear(5, 4))
    theirs.weight = weight
    with torch.no_grad():
        theirs.bias.zero_()
    x = torch.randn(3, 5)
    torch.testing.assert_close(ours(x), theirs(x))
    ours(x).sum().backward()
    theirs(x).sum().backward()
    original = theirs.parametrizations.weight
    torch.testing.assert_close(ours.weight_g.grad, original.original0.grad)
    torch.testing.assert_close(ours.weight_v.grad, original.original1.grad)


def test_dropout_has_its_rate_and_rescales() -> None:
    layer = LaneDropout("dropout")
    layer.rate.fill_(0.3)
    x = torch.ones(400, 500)
    out = layer(x)
    assert (out == 0).float().mean().item() == pytest.approx(0.3, abs=0.005)
    assert out.max().item() == pytest.approx(1 / 0.7)
    assert torch.equal(layer(x), out)
    layer.key.fill_(1)
    assert not torch.equal(layer(x), out)
    layer.eval()
    assert torch.equal(layer(x), x)


def test_the_linear_model_has_no_hidden_layer() -> None:
    module = Mlp((4,), 2)
    assert [p.shape for p in module.parameters()] == [torch.Size([2, 4]), torch.Size([2])]
    runs = train([recipe(depth=0)], [1], data(), protocol())
    assert runs[0].curve["log_loss"][-1] < runs[0].curve["log_loss"][0]


def test_a_run_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    setting = recipe(
        dropout=0.2,
        normalization="batch",
        lr_schedule="plateau",
        plateau_patience=0,
        plateau_factor=0.5,
        lr=0.05,
        mixup=0.3,
        averaging="swa",
        swa_start=0.2,
    )
    on, how = data(folds=2), protocol(epochs=9)
    seeds = ((0, 5), (1, 6))
    whole = Run(0, setting, seeds, how)
    straight = runner(setting, on)
    straight.add([whole])
    while not whole.ending:
        straight.epoch()
    broken = Run(0, setting, seeds, how)
    first = runner(setting, on)
    first.add([Run(9, setting, ((0, 1),), how), broken])
    for _ in range(4):
        first.epoch()
    checkpoints = Checkpoints(LocalObjects(tmp_path))
    checkpoints.save(0, first.checkpoint(broken))
    saved = checkpoints.load(0)
    assert saved is not None
    again = Run(0, setting, seeds, how)
    again.resume(saved)
    assert again.epoch == 4
    second = runner(setting, on)
    second.add([again])
    while not again.ending:
        second.epoch()
    for name, curve in whole.curve.items():
        np.testing.assert_allclose(again.curve[name], curve, rtol=1e-4, atol=1e-6, err_msg=name)
    assert again.best_epoch == whole.best_epoch
    checkpoints.forget(0)
    assert checkpoints.load(0) is None


def test_a_broken_checkpoint_or_one_of_another_version_is_no_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / "trial-3.pt").write_bytes(b"garbage")
    torch.save({"run": {"epoch": 2}, "lanes": []}, folder / "trial-4.pt")
    assert [Checkpoints(LocalObjects(tmp_path)).load(number) for number in (3, 4)] == [None, None]


@pytest.mark.parametrize("folds", [1, 2])
def test_an_evaluation_in_parts_is_the_same(monkeypatch: pytest.MonkeyPatch, folds: int) -> None:
    """Parts have one size, so the last one begins before the one before it has ended."""
    on = data(folds=folds)
    stack = Stack(StackKey.of(recipe(), on.inputs, on.outputs), on)
    stack.resize([], 4)
    for lane in range(4):
        stack.load(lane, recipe(), seed=lane, fold=lane % folds)
    whole = stack.evaluate()
    for elements in (1, 64, 64 * 7, 64 * 11):
        monkeypatch.setattr(stack_module, "_EVALUATION_ELEMENTS", elements)
        torch.testing.assert_close(stack.evaluate(), whole)
