"""Small data and runs for the tests of the stack."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from service.spec import EarlyStopping, Recipe
from workers.data import Fold, TargetScale
from workers.stack.device_data import DeviceData
from workers.stack.run import Protocol, Run
from workers.stack.runner import StackRunner
from workers.stack.stack import StackKey

ROWS, FEATURES, CLASSES = 60, 6, 3


def fold(seed: int = 0, task: str = "classification", rows: int = ROWS) -> Fold:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows + 20, FEATURES)).astype(np.float32)
    if task == "classification":
        y: Any = (x[:, 0] > 0).astype(np.int64) + (x[:, 1] > 0.5)
    else:
        y = (x[:, 0] + 0.1 * rng.normal(size=len(x))).astype(np.float32)
    scale = TargetScale(0.0, 2.0 if task == "regression" else 1.0)
    return Fold(x[:rows], y[:rows], x[rows:], y[rows:], scale, {"kind": "array", "layout": "sequence"})


def data(*, task: str = "classification", folds: int = 1, rows: int = ROWS) -> DeviceData:
    outputs = CLASSES if task == "classification" else 1
    parts = [fold(seed, task, rows - seed) for seed in range(folds)]
    return DeviceData.of(parts, task=task, outputs=outputs, device=torch.device("cpu"))


def protocol(task: str = "classification", epochs: int = 6, patience: int | None = None) -> Protocol:
    stopping = EarlyStopping(patience=patience) if patience else None
    return Protocol("log_loss" if task == "classification" else "rmse", epochs, stopping)


def recipe(**values: Any) -> Recipe:
    return Recipe({"width": 16, "depth": 2, "batch_size": 16, "lr": 0.01, **values})


def runner(setting: Recipe, on: DeviceData) -> StackRunner:
    return StackRunner(StackKey.of(setting, on.inputs, on.outputs), on)


def train(settings: list[Recipe], seeds: list[int], on: DeviceData, how: Protocol) -> list[Run]:
    """All settings as one stack, to the end."""
    stack = runner(settings[0], on)
    runs = [Run(i, setting, ((0, seed),), how) for i, (setting, seed) in enumerate(zip(settings, seeds, strict=True))]
    stack.add(runs)
    while stack.wanted_lanes:
        for run in stack.epoch():
            if run.ending:
                stack.remove(run)
    return runs
