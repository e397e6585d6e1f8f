"""Weights of rows: those of plain PyTorch, as many copies of a row, and a whole study with them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from service.errors import InvalidInput
from tests.unit.stack.reference import alone
from tests.unit.stack.runs import data, protocol, recipe, runner
from tests.unit.test_whole_studies import Bench
from workers.plain.chance import Chance
from workers.plain.network import Shape, build, initialize
from workers.plain.update import optimizer_of, update
from workers.stack.device_data import DeviceData
from workers.stack.run import Run

SGD = {"optimizer": "sgd", "momentum": 0.0, "nesterov": False}


def weighted(task: str) -> DeviceData:
    on = data(task=task)
    drawn = torch.rand(len(on.x), generator=torch.Generator().manual_seed(5)) * 2.0
    drawn[:9] = 0.0
    return replace(on, weights=drawn / drawn[on.train[0]].mean())


EXTRA: list[dict[str, Any]] = [
    {},
    {"mixup": 0.8, "cutmix": 0.4},
    {"members": 3, "mixup": 0.5},
    {"micro_batches": 3, "dropout": 0.2},
]


@pytest.mark.parametrize("extra", EXTRA, ids=str)
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_weights_in_a_stack_are_those_of_plain_pytorch(task: str, extra: dict[str, Any]) -> None:
    more = {"label_smoothing": 0.1, "class_weights": 0.5, "focal_gamma": 1.0}
    setting = recipe(**extra, **(more if task == "classification" else {"huber_delta": 0.7}))
    on, how = weighted(task), protocol(task, epochs=4)
    stack = runner(setting, on)
    run = Run(0, setting, ((0, 7),), how)
    stack.add([Run(1, recipe(**{**setting, "l1": 0.1}), ((0, 1),), how), run])
    for _ in range(4):
        stack.epoch()
    found = alone(setting, 7, on, epochs=4)
    np.testing.assert_allclose(run.curve["train_loss"], found.losses, rtol=1e-4, atol=1e-5)
    unweighted = alone(setting, 7, replace(on, weights=None), epochs=4)
    assert np.abs(np.subtract(unweighted.losses, found.losses)).max() > 1e-3


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_a_weight_is_as_many_copies(task: str) -> None:
    """Of one update without randomness; the mean is over the sum of the weights, as these have the mean 1."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(12, 4, generator=generator)
    y = torch.randint(0, 3, (12,), generator=generator) if task == "classification" else torch.randn(12, generator=generator)
    copies = torch.tensor([0, 1, 2, 3, 1, 0, 4, 1, 1, 2, 1, 2])
    repeated = x.repeat_interleave(copies, 0), y.repeat_interleave(copies, 0)
    networks = []
    for batch, weights in (((x, y), copies / copies.float().mean()), (repeated, None)):
        network = build(Shape.of({"family": "mlp", "widths": (5,)}, (4,), 3 if task == "classification" else 1))
        initialize(network, {}, 2)
        update(network, optimizer_of(network, SGD), SGD, batch, lr=0.5, chance=Chance(0, x.device), weights=weights)
        networks.append(network)
    for one, other in zip(*(network.parameters() for network in networks), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_a_study_weighs_its_rows(tmp_path: Path) -> None:
    """Half of the rows have wrong targets and no weight: a network that they count for does not see the slope."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=400)
    wrong = rng.random(400) < 0.5
    frame = pd.DataFrame({"x": x, "y": np.where(wrong, -3.0 * x, 3.0 * x), "w": np.where(wrong, 0.0, 2.0), "v": -1.0})
    frame.loc[0, "v"] = np.nan
    frame.to_csv(tmp_path / "rows.csv", index=False)
    bench = Bench(tmp_path)
    try:
        source = {"path": str(tmp_path / "rows.csv"), "target": "y", "drop": ["v"]}
        usual = {"space": {"preset": "off", "lr": 0.02}, "budget": {"trials": 1, "epochs": 40, "finalists": 1, "seeds": 2}}
        slopes = {}
        for weights in ("w", None):
            given = {**source, "weights": weights, "drop": ["v"] if weights else ["v", "w"]}
            study = bench.run(task="regression", early_stopping="off", data=given, **usual)
            assert study.state == "finished", study.reason
            folder = bench.unpacked(study, tmp_path / f"model-{weights}")
            rows = str(tmp_path / "rows.csv")
            done = subprocess.run(
                [sys.executable, "loader.py", rows], cwd=folder, check=True, capture_output=True, text=True
            )
            predicted = np.array(done.stdout.split()[1:], dtype=float)
            slopes[weights] = float(np.polyfit(x, predicted, 1)[0])
            again = subprocess.run(
                [sys.executable, "train.py", rows], cwd=folder, check=False, capture_output=True, text=True
            )
            assert again.returncode == 0, again.stderr
            assert f"WEIGHTS = {weights!r}" in (folder / "train.py").read_text()
        assert slopes["w"] > 2.0
        assert abs(slopes[None]) < 1.5
        with pytest.raises(InvalidInput, match="1 rows without a number"):
            bench.submit(data={**source, "drop": ["w"], "weights": "v"}, task="regression")
    finally:
        bench.store.close()
