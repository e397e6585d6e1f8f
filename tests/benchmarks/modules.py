"""Modules of a user's own on one core: by programs, eager as one or one by one, and in the loop of their author, in turns.

    python -m tests.benchmarks.modules [--rows 1280] [--rounds 7]

With OMP_NUM_THREADS=1. The author's loop is plain PyTorch: AdamW, batches by index, the module with dropout of its own.
Same module, data, batch and number of updates for each of eight networks; data are random, since speed is all that is
asked. Convolutions on a CPU are trained one by one anyway, so for these the two eager ways are the same, and a program has
one network. Programs are there before the first round.
"""

from __future__ import annotations

import functools
import importlib
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from service.settings import Settings
from service.spec import Recipe
from tests.benchmarks.rounds import Options, Rounds, in_turn, ratio, spread
from workers.data import Fold, TargetScale
from workers.plain.foreign import register
from workers.stack.building import build
from workers.stack.device_data import DeviceData
from workers.stack.programs import opened
from workers.stack.stack import Stack, StackKey

sys.path.insert(0, str(Path(__file__).parents[1] / "theirs"))
good = importlib.import_module("mynets.good")

LANES, CLASSES, VALID = 8, 10, 16
NETWORKS: dict[str, tuple[Any, tuple[int, ...], dict[str, Any]]] = {
    "perceptron with layer normalization, width 64": (good.Perceptron, (20,), {"width": 64}),
    "transformer of two layers, width 32, 12 steps": (good.Encoder, (12, 6), {"width": 32, "layers": 2}),
    "residual network with batch normalization, 14 x 14": (good.ResNet, (1, 14, 14), {"width": 16}),
}


def random_data(rows: int, inputs: tuple[int, ...]) -> DeviceData:
    """Random examples and classes."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows + VALID, *inputs)).astype(np.float32)
    y = rng.integers(CLASSES, size=rows + VALID)
    fold = Fold(x[:rows], y[:rows], x[rows:], y[rows:], TargetScale(), {"kind": "array", "layout": "image"})
    return DeviceData.of([fold], task="classification", outputs=CLASSES, device=torch.device("cpu"))


def stacked(recipe: Recipe, data: DeviceData, *, separate: bool) -> Callable[[], None]:
    """An epoch of a stack, whose lanes are computed as one if they may be, or one by one."""
    stack = Stack(StackKey.of(recipe, data.inputs, data.outputs), data)
    if separate:
        stack.model.separate = "to compare"
    stack.resize([], LANES)
    for lane in range(LANES):
        stack.load(lane, recipe, seed=lane)
    rates = np.full((LANES, stack.updates), recipe.number("lr"), dtype=np.float32)

    def epoch() -> None:
        stack.train_epoch(rates).sum().item()

    return epoch


def compiled(recipe: Recipe, data: DeviceData) -> Callable[[], None]:
    """An epoch of blocks with programs, as in a study: of all lanes together, or of one each."""
    key = StackKey.of(recipe, data.inputs, data.outputs)
    together = Stack(key, data).model.stacks
    blocks = [Stack(key, data) for _ in range(1 if together else LANES)]
    for number, block in enumerate(blocks):
        block.resize([], LANES // len(blocks))
        for lane in range(block.lanes):
            block.load(lane, recipe, seed=number + lane)
        program = opened(build(block.blueprint, "update", Settings().cache / "programs"))
        assert program is not None
        block.use("update", program)
    rates = np.full((blocks[0].lanes, blocks[0].updates), recipe.number("lr"), dtype=np.float32)

    def epoch() -> None:
        for block in blocks:
            block.train_epoch(rates).sum().item()

    return epoch


def their_loop(make: Callable[[], torch.nn.Module], recipe: Recipe, data: DeviceData) -> Callable[[], None]:
    """An epoch of each of as many modules in plain PyTorch."""
    modules = [make() for _ in range(LANES)]
    optimizers = [torch.optim.AdamW(each.parameters(), lr=recipe.number("lr"), weight_decay=0.01) for each in modules]
    batch, rows = recipe.integer("batch_size"), data.train_rows

    def epoch() -> None:
        for module, optimizer in zip(modules, optimizers, strict=True):
            module.train()
            for chosen in torch.split(torch.randperm(rows), batch):
                optimizer.zero_grad()
                F.cross_entropy(module(data.x[chosen]), data.y[chosen]).backward()  # type: ignore[no-untyped-call]
                optimizer.step()

    return epoch


def seconds(epoch: Callable[[], None]) -> float:
    """Of one epoch of all networks."""
    start = time.perf_counter()
    epoch()
    return time.perf_counter() - start


class Sides:
    """The ways of one network, made and warmed up when the first round needs them."""

    def __init__(self, name: str, rows: int) -> None:
        self._name, self._rows = name, rows

    @functools.cached_property
    def _sides(self) -> dict[str, Callable[[], float]]:
        net, inputs, arguments = NETWORKS[self._name]
        register(self._name, net)
        given = {f"args.{each}": value for each, value in arguments.items()}
        usual: dict[str, Any] = {
            "family": "module",
            "module": self._name,
            "init": "own",
            "dropout": 0.1,
            "weight_decay": 0.01,
        }
        recipe, data = Recipe({**usual, "batch_size": 64, **given}), random_data(self._rows, inputs)
        epochs = {
            "compiled": compiled(recipe, data),
            "stacked": stacked(recipe, data, separate=False),
            "one_by_one": stacked(recipe, data, separate=True),
            "their_loop": their_loop(partial(net, inputs, CLASSES, **arguments), recipe, data),
        }
        for epoch in epochs.values():
            epoch()
        return {name: partial(seconds, epoch) for name, epoch in epochs.items()}

    def compare(self, number: int) -> dict[str, float]:
        """Round ``number``."""
        return in_turn(self._sides, number)


def summary(rounds: list[dict[str, float]]) -> dict[str, Any]:
    """One network."""
    ways = ("compiled", "stacked", "one_by_one", "their_loop")
    milliseconds = {way: spread(1e3 * each[way] / LANES for each in rounds) for way in ways}
    return {
        "their_loop_over_compiled": ratio(rounds, "their_loop", "compiled"),
        "one_by_one_over_stacked": ratio(rounds, "one_by_one", "stacked"),
        "their_loop_over_stacked": ratio(rounds, "their_loop", "stacked"),
        "milliseconds_per_network_and_epoch": milliseconds,
    }


def main() -> None:
    """Compare on several networks."""
    options = Options("modules", __doc__, quick={"rows": 128, "rounds": 2})
    options.add_argument("--rows", type=int, default=1280, help="training rows")
    options.add_argument("--rounds", type=int, default=7, help="an epoch of each in every one")
    given = options.given()
    rounds = Rounds("modules", given, threads=torch.get_num_threads())
    figures = {}
    for name in NETWORKS:
        sides = Sides(name, given.rows)
        figures[name] = summary(
            [rounds.once(f"{name}, {number}", partial(sides.compare, number)) for number in range(given.rounds)]
        )
    rounds.conclude(figures)


if __name__ == "__main__":
    main()
