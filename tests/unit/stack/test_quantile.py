"""The pinball loss beside its formula, plain PyTorch and scikit-learn's quantile regression."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import QuantileRegressor
from sklearn.metrics import mean_pinball_loss

from service.spec import Recipe
from tests.unit.stack.reference import alone
from tests.unit.stack.runs import data, recipe, runner
from workers.plain.training import WATCHES, Rows
from workers.stack.blueprint import Part, StackKey
from workers.stack.device_data import DeviceData
from workers.stack.gradient import EXAMPLE_LOSSES
from workers.stack.layout import Layout, Threads
from workers.stack.run import Protocol, Run
from workers.stack.runner import StackRunner
from workers.stack.techniques.quantile import Quantile
from workers.stack.workshop import Workshop


def of(level: float, **values: Any) -> Recipe:
    return recipe(quantile=level, **values)


def rows(level: float, folds: int = 1) -> DeviceData:
    return replace(data(task="regression", folds=folds), quantile=level, wanted=("pinball",))


def trained(settings: list[Recipe], on: DeviceData, epochs: int, fold: int = 0) -> list[Run]:
    stack = runner(settings[0], on)
    runs = [Run(place, each, ((fold, 7 + place),), Protocol("pinball", epochs, None)) for place, each in enumerate(settings)]
    stack.add(runs)
    for _ in range(epochs):
        stack.epoch()
    return runs


def test_it_is_its_formula_and_lanes_without_it_keep_their_loss() -> None:
    out = torch.linspace(-5, 5, 101, dtype=torch.float64)[None, :, None].expand(3, 101, 1)
    target = torch.full((3, 101), 0.35, dtype=torch.float64)
    losses = EXAMPLE_LOSSES["regression"](out, target)
    columns = {"quantile": torch.tensor([Quantile.off, 0.1, 0.9], dtype=torch.float64)}
    found = Quantile().on_losses(losses, out, target, columns, frozenset())
    assert torch.equal(found[0], losses[0]), "not even the last bit"
    residual = 0.35 - out[0, :, 0].numpy()
    for lane, level in ((1, 0.1), (2, 0.9)):
        np.testing.assert_allclose(found[lane], np.where(residual > 0, level, level - 1) * residual, rtol=1e-12)
        theirs = mean_pinball_loss(target[lane], out[lane, :, 0], alpha=level)
        assert float(found[lane].mean()) == pytest.approx(theirs)


LEVEL = 0.77
"""Slopes q and q − 1 that no small batch's sum cancels: Adam would magnify what rounding leaves of it."""
EXTRA: list[dict[str, Any]] = [
    {"lr_schedule": "plateau", "plateau_patience": 0, "weight_decay": 1.0},
    {"mixup": 0.8, "cutmix": 0.4, "averaging": "ema", "ema_decay": 0.7},
    {"members": 3, "numeric_embedding": "piecewise_linear"},
    {"micro_batches": 3, "dropout": 0.2, "optimizer": "sgd"},
]


@pytest.mark.parametrize("extra", EXTRA, ids=str)
@pytest.mark.parametrize("fold", [0, 1])
def test_a_lane_is_plain_pytorch_alone_and_in_a_stack(extra: dict[str, Any], fold: int) -> None:
    on, setting = rows(LEVEL, folds=2), of(LEVEL, **extra)
    beside, _ = trained([setting, of(LEVEL, **{**extra, "l1": 0.1})], on, 5, fold)
    (by_itself,) = trained([setting], on, 5, fold)
    plain = alone(setting, 7, on, epochs=5, fold=fold)
    for run in (beside, by_itself):
        np.testing.assert_allclose(run.curve["train_loss"], plain.losses, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(run.curve["loss"], plain.watched, rtol=1e-4, atol=1e-5)


@pytest.mark.costly
def test_a_compiled_stack_of_it_is_the_eager_one(tmp_path: Path) -> None:
    """A stack learns of it with its first lanes, as it is in no space."""
    on, settings = rows(LEVEL), [of(LEVEL, lr=0.002 * (lane + 1), l1=1e-3 * lane) for lane in range(4)]
    workshop, threads = Workshop(tmp_path), Threads(1)
    when: dict[Part, int] = {"update": 1, "evaluation": 2}
    curves = []
    for layout in (Layout(), Layout(4, workshop=workshop, threads=threads, taken_over=when)):
        stack = StackRunner(StackKey.of(settings[0], on.inputs, on.outputs), on, layout=layout)
        runs = [Run(lane, each, ((0, lane),), Protocol("pinball", 5, None)) for lane, each in enumerate(settings)]
        stack.add(runs)
        while not runs[0].ending:
            stack.epoch()
        curves.append([run.curve["pinball"] for run in runs])
    assert stack.taken_over == when
    np.testing.assert_allclose(curves[1], curves[0], rtol=5e-4, atol=5e-5)
    workshop.close()
    threads.close()


def test_weights_of_rows_multiply_it() -> None:
    on = rows(LEVEL)
    drawn = torch.rand(len(on.x), generator=torch.Generator().manual_seed(5)) * 2.0
    weighted = replace(on, weights=drawn / drawn[on.train[0]].mean())
    (run,) = trained([of(LEVEL)], weighted, 4)
    np.testing.assert_allclose(run.curve["train_loss"], alone(of(LEVEL), 7, weighted, 4).losses, rtol=1e-4, atol=1e-5)
    assert np.abs(np.subtract(run.curve["train_loss"], alone(of(LEVEL), 7, on, 4).losses)).max() > 1e-3


def test_what_the_program_watches_is_scikit_learns() -> None:
    on, network = rows(0.9), alone(of(0.9), 7, rows(0.9), epochs=2).network
    valid = on.valid[0]
    held = Rows(on.x[on.train[0]], on.y[on.train[0]], on.x[valid], on.y[valid])
    with torch.no_grad():
        guess = network(on.x[valid]).squeeze(1).numpy()
    found = {name: WATCHES[name](network, held, {"quantile": 0.9}) for name in ("pinball", "loss", "mae", "rmse")}
    truth = on.y[valid].numpy()
    assert found["pinball"] == found["loss"] == pytest.approx(mean_pinball_loss(truth, guess, alpha=0.9), rel=1e-5)
    assert found["mae"] == pytest.approx(np.abs(truth - guess).mean(), rel=1e-5)
    assert found["rmse"] == pytest.approx(np.sqrt(((truth - guess) ** 2).mean()), rel=1e-5)


@pytest.mark.parametrize("level", [0.1, 0.5, 0.9])
def test_a_linear_network_comes_to_scikit_learns_quantile_regression(level: float) -> None:
    """Of three seeds' data, whose noise grows with the first input; its loss is convex, so both have one minimum."""
    for seed in range(3):
        rng = np.random.default_rng(seed)
        x = rng.uniform(0, 1, size=(620, 6)).astype(np.float32)
        y = (x[:, 0] + 2.0 * x[:, 0] * rng.exponential(size=620)).astype(np.float32)
        on = replace(data(task="regression", rows=600), x=torch.from_numpy(x), y=torch.from_numpy(y))
        on = replace(on, quantile=level, wanted=("pinball",))
        setting = of(level, depth=0, batch_size=600, lr=0.3, lr_schedule="cosine")
        stack = runner(setting, on)
        run = Run(0, setting, ((0, seed),), Protocol("pinball", 300, None))
        stack.add([run])
        while not run.ending:
            stack.epoch()
        theirs = QuantileRegressor(quantile=level, alpha=0.0).fit(x[:600], y[:600])
        (out,) = stack.predict(run, [on.train[0]])
        ours = out.reshape(-1).numpy()
        best = mean_pinball_loss(y[:600], theirs.predict(x[:600]), alpha=level)
        assert best - 1e-6 < mean_pinball_loss(y[:600], ours, alpha=level) < 1.05 * best
        assert abs((y[:600] <= ours).mean() - level) < 0.06
