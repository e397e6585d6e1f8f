"""One CNN on a CPU: a stack of one lane against the loop that anybody would write for speed, in turns.

    python -m tests.benchmarks.cnn_single [--rows 1280] [--size 28] [--rounds 9]

The other side is plain PyTorch at its best: channels_last, fused AdamW, batches by index, `nn.Dropout`. Same network, data,
batch and number of updates; images are random, since speed is all that is asked. Both train an epoch in turn, and the ratio,
plain over ours, is taken in every round, by wall and by processor time.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from service.spec import Recipe
from tests.benchmarks.rounds import Options, Rounds, in_turn, ratio, spread
from workers.data import Fold, TargetScale
from workers.plain.layers import dropout_of
from workers.plain.network import build, initialize
from workers.stack.device_data import DeviceData
from workers.stack.stack import Stack, StackKey

CLASSES, VALID = 10, 16


def images(rows: int, size: int) -> DeviceData:
    """Random grey images and classes."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows + VALID, 1, size, size)).astype(np.float32)
    y = rng.integers(CLASSES, size=rows + VALID)
    fold = Fold(x[:rows], y[:rows], x[rows:], y[rows:], TargetScale(), {"kind": "array", "layout": "image"})
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
    module = build(shape, dropout_of(recipe))
    initialize(module, recipe, 0)
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


def seconds(epoch: Callable[[], None]) -> dict[str, float]:
    """Wall and processor time of one epoch."""
    wall, processor = time.perf_counter(), time.process_time()
    epoch()
    return {"wall": time.perf_counter() - wall, "processor": time.process_time() - processor}


class Pair:
    """Both sides of one network, made and warmed up when the first round needs them."""

    def __init__(self, recipe: Recipe, data: DeviceData) -> None:
        self._recipe, self._data = recipe, data

    @functools.cached_property
    def _sides(self) -> dict[str, Callable[[], dict[str, float]]]:
        epochs = {"ours": ours(self._recipe, self._data), "plain": plain(self._recipe, self._data)}
        for epoch in epochs.values():
            epoch()
        return {name: partial(seconds, epoch) for name, epoch in epochs.items()}

    def compare(self, number: int) -> dict[str, dict[str, float]]:
        """Round ``number``."""
        return in_turn(self._sides, number)


def summary(rounds: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    """One network."""
    figures: dict[str, Any] = {}
    for clock in ("wall", "processor"):
        sides = [{name: side[clock] for name, side in each.items()} for each in rounds]
        figures[clock] = {"plain_over_ours": ratio(sides, "plain", "ours")}
        figures[clock] |= {f"seconds_per_epoch_{name}": spread(each[name] for each in sides) for name in ("ours", "plain")}
    return figures


def main() -> None:
    """Compare on several networks."""
    options = Options("cnn_single", __doc__, quick={"rows": 64, "size": 14, "rounds": 2})
    options.add_argument("--rows", type=int, default=1280, help="images of the training part")
    options.add_argument("--size", type=int, default=28, help="height and width of an image in pixels")
    options.add_argument("--rounds", type=int, default=9, help="an epoch of both in each")
    given = options.given()
    data = images(given.rows, given.size)
    rounds = Rounds("cnn_single", given, threads=torch.get_num_threads())
    figures = {}
    for normalization in ("none", "batch", "group"):
        for dropout in (0.0, 0.3):
            recipe = Recipe({"family": "cnn", "width": 16, "depth": 3, "normalization": normalization, "dropout": dropout})
            name, pair = f"{normalization}, dropout {dropout}", Pair(recipe, data)
            done = [rounds.once(f"{name}, {number}", partial(pair.compare, number)) for number in range(given.rounds)]
            figures[name] = summary(done)
    rounds.conclude(figures)


if __name__ == "__main__":
    main()
