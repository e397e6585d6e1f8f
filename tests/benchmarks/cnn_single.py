"""One CNN on a CPU: a stack of one lane against the loop that anybody would write for speed, in turns.

    python tests/benchmarks/cnn_single.py [--rows 1280] [--size 28] [--rounds 9]

The other side is plain PyTorch at its best: channels_last, fused AdamW, batches by index, `nn.Dropout`. Same network, data,
batch and number of updates; images are random, since speed is all that is asked. Both train an epoch in turn; the ratio is
taken in every round, and the result holds its median and quartiles, by wall and by processor time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from service.spec import Recipe
from tests.benchmarks.report import save
from workers.data import ArrayScaler, Fold, TargetScale
from workers.plain.network import build, initialize
from workers.stack.device_data import DeviceData
from workers.stack.dropout import LaneDropout, LaneSpatialDropout
from workers.stack.stack import Stack, StackKey

CLASSES, VALID = 10, 16


def images(rows: int, size: int) -> DeviceData:
    """Random grey images and classes."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows + VALID, 1, size, size)).astype(np.float32)
    y = rng.integers(CLASSES, size=rows + VALID)
    scaler = ArrayScaler("image", np.zeros(1), np.ones(1))
    fold = Fold(x[:rows], y[:rows], x[rows:], y[rows:], TargetScale(), scaler)
    return DeviceData.of([fold], task="classification", outputs=CLASSES, device=torch.device("cpu"))


def ours(recipe: Recipe, data: DeviceData) -> Callable[[], None]:
    """An epoch of a stack of one lane."""
    stack = Stack(StackKey.of(recipe, data.inputs, data.outputs), data)
    stack.resize([], 1)
    stack.load(0, recipe, seed=0)
    rates = np.full((1, stack.updates), recipe.number("lr"), dtype=np.float32)

    def epoch() -> None:
        stack.train_epoch(rates).item()

    return epoch


def plain(recipe: Recipe, data: DeviceData) -> Callable[[], None]:
    """An epoch of the same network in plain PyTorch."""
    shape = StackKey.of(recipe, data.inputs, data.outputs).shape
    module = build(shape)
    initialize(module, recipe, 0)
    _with_torchs_dropout(module, iter(shape.rates(recipe)))
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = data.x.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(module.parameters(), lr=recipe.number("lr"), weight_decay=0.0, fused=True)
    batch, rows = recipe.integer("batch_size"), data.train_rows

    def epoch() -> None:
        module.train()
        total = torch.zeros(())
        for chosen in torch.split(torch.randperm(rows), batch):
            optimizer.zero_grad(set_to_none=True)
            loss = F.cross_entropy(module(x[chosen]), data.y[chosen])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.detach()
        total.item()

    return epoch


def _with_torchs_dropout(module: nn.Module, rates: Any) -> None:
    """Replace the dropout layers by torch's, and those of rate 0 by nothing."""
    for name, child in module.named_children():
        if isinstance(child, LaneDropout):
            rate, kind = next(rates), nn.Dropout2d if isinstance(child, LaneSpatialDropout) else nn.Dropout
            setattr(module, name, kind(rate) if rate else nn.Identity())
        else:
            _with_torchs_dropout(child, rates)


def seconds(epoch: Callable[[], None]) -> tuple[float, float]:
    """Wall and processor time of one epoch."""
    wall, processor = time.perf_counter(), time.process_time()
    epoch()
    return time.perf_counter() - wall, time.process_time() - processor


def quartiles(values: list[float]) -> list[float]:
    """Lower quartile, median and upper quartile."""
    return [round(float(each), 4) for each in np.percentile(values, [25, 50, 75])]


def compare(recipe: Recipe, data: DeviceData, rounds: int) -> dict[str, Any]:
    """Both sides in turn."""
    sides = {"ours": ours(recipe, data), "plain": plain(recipe, data)}
    for epoch in sides.values():
        epoch()
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for turn in range(rounds):
        for name in sorted(sides, reverse=bool(turn % 2)):
            times[name].append(seconds(sides[name]))
    ratios = np.array(times["plain"]) / np.array(times["ours"])
    return {
        "plain_over_ours": {"wall": quartiles(ratios[:, 0].tolist()), "processor": quartiles(ratios[:, 1].tolist())},
        "processor_seconds_per_epoch": {name: quartiles([each for _, each in found]) for name, found in times.items()},
    }


def main() -> None:
    """Compare on several networks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1280)
    parser.add_argument("--size", type=int, default=28)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    data = images(arguments.rows, arguments.size)
    figures: dict[str, Any] = {**vars(arguments), "threads": torch.get_num_threads()}
    for normalization in ("none", "batch", "group"):
        for dropout in (0.0, 0.3):
            recipe = Recipe({"family": "cnn", "width": 16, "depth": 3, "normalization": normalization, "dropout": dropout})
            found = compare(recipe, data, arguments.rounds)
            print(normalization, dropout, found)  # noqa: T201
            figures[f"{normalization}, dropout {dropout}"] = found
    print(save("cnn_single", figures))  # noqa: T201


if __name__ == "__main__":
    main()
