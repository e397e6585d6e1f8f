"""Several labels and several numbers: the losses beside torch's own, a lane beside plain PyTorch, alone and in a stack."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor

from service.spec import Metric, Recipe
from tests.unit.stack.reference import alone
from tests.unit.stack.runs import FEATURES, recipe
from workers.data import Fold, TargetScale
from workers.plain.members import MEANS
from workers.plain.update import balanced
from workers.stack.blueprint import Part, StackKey
from workers.stack.device_data import DeviceData
from workers.stack.gradient import EXAMPLE_LOSSES
from workers.stack.layout import Layout, Threads
from workers.stack.run import Protocol, Run
from workers.stack.runner import StackRunner
from workers.stack.techniques import TECHNIQUES
from workers.stack.workshop import Workshop

TARGETS = 4
METRIC: Mapping[str, Metric] = {"multilabel": "log_loss", "regression": "rmse"}


def fold(task: str, seed: int) -> Fold:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(80 - seed, FEATURES)).astype(np.float32)
    signal = x @ rng.normal(size=(FEATURES, TARGETS)) + rng.normal(size=(len(x), TARGETS))
    y: Any = (signal > [0.0, 1.0, 2.0, -1.0]).astype(np.int64) if task == "multilabel" else signal.astype(np.float32)
    scale = TargetScale() if task == "multilabel" else TargetScale((0.0,) * TARGETS, (1.0,) * TARGETS)
    return Fold(x[:60], y[:60], x[60:], y[60:], scale, {"kind": "array", "layout": "sequence"})


def rows(task: str, folds: int = 1) -> DeviceData:
    parts = [fold(task, seed) for seed in range(folds)]
    return DeviceData.of(parts, task=task, outputs=TARGETS, device=torch.device("cpu"))


def key_of(setting: Recipe, on: DeviceData) -> StackKey:
    return StackKey.of(setting, on.inputs, on.outputs, on.categories, on.several)


def trained(settings: list[Recipe], on: DeviceData, epochs: int, fold: int = 0) -> list[Run]:
    stack = StackRunner(key_of(settings[0], on), on)
    how = Protocol(METRIC[on.task], epochs, None)
    runs = [Run(place, each, ((fold, 7 + place),), how) for place, each in enumerate(settings)]
    stack.add(runs)
    for _ in range(epochs):
        stack.epoch()
    return runs


def counted(out: Tensor, labels: Tensor, columns: dict[str, Tensor]) -> Tensor:
    """(k, b, t) losses of labels as the techniques of ``columns`` count them, one after the other."""
    losses = EXAMPLE_LOSSES["multilabel"](out, labels)
    for technique in TECHNIQUES:
        if technique.name in columns:
            losses = technique.on_losses(losses, out, labels, columns, frozenset(columns))
    return losses


def test_the_loss_of_labels_is_torchs_and_that_of_a_label_as_two_classes() -> None:
    generator = torch.Generator().manual_seed(3)
    out = 3.0 * torch.randn(2, 40, TARGETS, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 2, out.shape, generator=generator)
    plain = F.binary_cross_entropy_with_logits(out, labels.double(), reduction="none")
    torch.testing.assert_close(counted(out, labels, {}), plain)

    smoothing, weights = torch.tensor([0.0, 0.2]).double(), torch.rand(2, 2 * TARGETS, generator=generator).double()
    found = counted(out, labels, {"class_weights": weights, "label_smoothing": smoothing})
    for lane, label in ((lane, label) for lane in range(2) for label in range(TARGETS)):
        logits = torch.stack([torch.zeros(40).double(), out[lane, :, label]], 1)
        pair, spread = weights[lane, [label, TARGETS + label]], float(smoothing[lane])
        theirs = F.cross_entropy(logits, labels[lane, :, label], pair, reduction="none", label_smoothing=spread)
        torch.testing.assert_close(found[lane, :, label], theirs)

    gamma = torch.tensor([0.0, 2.0]).double()
    likely = torch.where(labels > 0, out.sigmoid(), (-out).sigmoid())
    torch.testing.assert_close(counted(out, labels, {"focal_gamma": gamma}), (1 - likely) ** gamma[:, None, None] * plain)


def test_each_label_is_balanced_as_scikit_learn_balances_two_classes() -> None:
    y = rows("multilabel").y
    for label, weights in enumerate(balanced(y, TARGETS).T):
        theirs = compute_class_weight("balanced", classes=np.array([0, 1]), y=y[:, label].numpy())
        np.testing.assert_allclose(weights, theirs, rtol=1e-6)
    empty = balanced(torch.zeros(9, 2, dtype=torch.int64), 2)
    assert empty[1].tolist() == [1.0, 1.0], "labels that no row has"


EXTRA: list[tuple[str, dict[str, Any]]] = [
    ("multilabel", {"lr_schedule": "plateau", "plateau_patience": 0, "weight_decay": 1.0}),
    ("multilabel", {"mixup": 0.8, "cutmix": 0.4, "class_weights": 0.7, "label_smoothing": 0.1}),
    ("multilabel", {"members": 3, "focal_gamma": 1.5, "micro_batches": 3}),
    ("regression", {"mixup": 0.8, "cutmix": 0.4, "averaging": "ema", "ema_decay": 0.7}),
    ("regression", {"members": 3, "huber_delta": 0.6, "numeric_embedding": "piecewise_linear"}),
    ("regression", {"quantile": 0.77, "dropout": 0.2, "micro_batches": 3}),
]


@pytest.mark.parametrize(("task", "extra"), EXTRA, ids=str)
def test_a_lane_is_plain_pytorch_alone_and_in_a_stack(task: str, extra: dict[str, Any]) -> None:
    on, setting = rows(task, folds=2), recipe(**extra)
    beside, _ = trained([setting, recipe(**{**extra, "l1": 0.1})], on, 5, fold=1)
    (by_itself,) = trained([setting], on, 5, fold=1)
    plain = alone(setting, 7, on, epochs=5, fold=1)
    for run in (beside, by_itself):
        np.testing.assert_allclose(run.curve["train_loss"], plain.losses, rtol=2e-4, atol=1e-5)
        if "quantile" not in extra:  # which the data have to say too
            np.testing.assert_allclose(run.curve["loss"], plain.watched, rtol=2e-4, atol=1e-5)


def test_weights_of_rows_multiply_it() -> None:
    for task in METRIC:
        on = rows(task)
        drawn = torch.rand(len(on.x), generator=torch.Generator().manual_seed(5)) * 2.0
        weighted = DeviceData(**{**vars(on), "weights": drawn / drawn[on.train[0]].mean()})
        (run,) = trained([recipe(mixup=0.5)], weighted, 4)
        theirs = alone(recipe(mixup=0.5), 7, weighted, 4).losses
        np.testing.assert_allclose(run.curve["train_loss"], theirs, rtol=1e-4, atol=1e-5)
        assert np.abs(np.subtract(theirs, alone(recipe(mixup=0.5), 7, on, 4).losses)).max() > 1e-3


def test_an_average_of_labels_has_the_mean_probability() -> None:
    out = 8.0 * torch.randn(5, 30, TARGETS, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(MEANS["multilabel"](out).sigmoid(), out.sigmoid().mean(0))


@pytest.mark.costly
def test_a_compiled_stack_of_it_is_the_eager_one(tmp_path: Path) -> None:
    on = rows(task := "multilabel")
    settings = [recipe(lr=0.002 * (lane + 1), class_weights=0.5, label_smoothing=0.1) for lane in range(4)]
    workshop, threads = Workshop(tmp_path), Threads(1)
    when: dict[Part, int] = {"update": 1, "evaluation": 2}
    curves = []
    for layout in (Layout(), Layout(4, workshop=workshop, threads=threads, taken_over=when)):
        stack = StackRunner(key_of(settings[0], on), on, layout=layout)
        runs = [Run(lane, each, ((0, lane),), Protocol(METRIC[task], 5, None)) for lane, each in enumerate(settings)]
        stack.add(runs)
        while not runs[0].ending:
            stack.epoch()
        curves.append([run.curve["loss"] for run in runs])
    assert stack.taken_over == when
    np.testing.assert_allclose(curves[1], curves[0], rtol=5e-4, atol=5e-5)
    workshop.close()
    threads.close()
