"""How far the update of a stack is from the device's limit.

    python -m tests.benchmarks.roofline [--width 64 256] [--lanes 8] [--batch 128] [--rounds 3]

Two limits are measured in every round: the rate of a large matrix product, and the bandwidth of a large copy. The least
time of an update is the larger of its arithmetic over that rate and its least traffic over that bandwidth (Williams,
Waterman and Patterson, "Roofline", 2009). Traffic is counted as if everything but the optimizer's state stayed in cache:
weights and both moments are read and written once, the batch is read once. The share is that time over the measured one.
"""

from __future__ import annotations

import functools
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from service.search import recipe
from service.settings import Settings
from service.spec import StudySpec
from tests.benchmarks.rounds import Options, Rounds, in_turn, spread
from workers.data import DataSource, load_table, make_split, prepare
from workers.planning.process import core_count, set_up, usual_threads
from workers.stack.blueprint import PARTS
from workers.stack.building import build
from workers.stack.device_data import DeviceData
from workers.stack.programs import opened
from workers.stack.stack import Stack, StackKey

FLOAT_BYTES = 4
KINDS = {"eager": False, "compiled": True}
"""Whether the update of a stack is compiled."""


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def lanes_of(width: int) -> int:
    """Those of a block in a study; on CUDA, many."""
    return 512 if torch.cuda.is_available() else {64: 8, 256: 4}.get(width, 8)


def seconds_per_call(call: Callable[[], object], enough: float = 2.0) -> float:
    """The median of calls repeated for ``enough`` seconds, after two that are not counted."""
    times = []
    end = None
    for index in range(10_000):
        _synchronize()
        start = time.perf_counter()
        call()
        _synchronize()
        now = time.perf_counter()
        if index >= 2:
            end = end or now + enough
            times.append(now - start)
            if now > end and len(times) >= 5:
                break
    return float(np.median(times))


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def limits() -> dict[str, float]:
    """Floating-point operations a second of a matrix product, and bytes a second of a copy."""
    side = 8192 if torch.cuda.is_available() else 2048
    a, b = torch.randn(side, side, device=device()), torch.randn(side, side, device=device())
    out = torch.empty_like(a)
    source = torch.empty(64 << 20, device=device())
    target = torch.empty_like(source)
    return {
        "flops": 2 * side**3 / seconds_per_call(lambda: torch.mm(a, b, out=out)),
        "bandwidth": 2 * FLOAT_BYTES * source.numel() / seconds_per_call(lambda: target.copy_(source)),
    }


def stack_of(width: int, batch: int, lanes: int, *, compiled: bool) -> Stack:
    """A block on digits with layer normalization, AdamW, L1, decay and dropout in every lane."""
    space = {"preset": "off", "normalization": "layer", "l1": 1e-5, "weight_decay": 1.0, "dropout": 0.3, "batch_size": batch}
    raw = {"data": {"dataset": "digits"}, "model": {"widths": [width, width]}, "space": space}
    spec = StudySpec.model_validate(raw).resolved("classification")
    table = load_table(DataSource(task="classification", name="digits"))
    fold = prepare(table, make_split(table, spec.validation, spec.seed), 0)
    data = DeviceData.of([fold], task="classification", outputs=10, device=device())
    setting = recipe(spec, {})
    stack = Stack(StackKey.of(setting, data.inputs, data.outputs), data, graphs=compiled and device().type == "cuda")
    stack.resize([], lanes)
    for lane in range(lanes):
        stack.load(lane, setting, seed=lane)
    if compiled and device().type == "cpu":
        for part in PARTS:
            program = opened(build(stack.blueprint, part, Settings().cache / "programs"))
            assert program is not None
            stack.use(part, program)
    return stack


def work(stack: Stack) -> dict[str, float]:
    """Arithmetic of the matrix products and the least traffic of one update of all lanes."""
    (inputs,) = stack.data.inputs
    sizes = (inputs, *dict(stack.key.shape.settings)["widths"], stack.data.outputs)
    products = [2 * stack.batch * before * after for before, after in pairwise(sizes)]
    flops = 3 * sum(products) - products[0]  # forward, both gradients; none with respect to the data
    floats = 6 * stack.model.parameters + stack.batch * (inputs + 1)
    return {"flops": stack.lanes * flops, "bytes": stack.lanes * floats * FLOAT_BYTES}


def measure(stacks: list[Stack], most: dict[str, float]) -> dict[str, Any]:
    """One kind of stack against the limits: a block for each core, at the same time."""
    rates = np.full((stacks[0].lanes, stacks[0].updates), 1e-3, dtype=np.float32)
    with ThreadPoolExecutor(len(stacks)) as pool:
        seconds = seconds_per_call(lambda: list(pool.map(lambda stack: stack.train_epoch(rates), stacks)))
    seconds /= stacks[0].updates
    needs = {name: len(stacks) * value for name, value in work(stacks[0]).items()}
    least = max(needs["flops"] / most["flops"], needs["bytes"] / most["bandwidth"])
    return {
        "lane_updates_per_second": round(sum(stack.lanes for stack in stacks) / seconds),
        "milliseconds_per_update": round(1000 * seconds, 3),
        "bound_by": "arithmetic" if least == needs["flops"] / most["flops"] else "bandwidth",
        "share_of_limit": round(least / seconds, 3),
        "share_of_matrix_rate": round(needs["flops"] / most["flops"] / seconds, 3),
    }


class Contest:
    """Blocks of one width, eager and compiled, made when the first round needs them."""

    def __init__(self, width: int, batch: int, lanes: int) -> None:
        self._of = (width, batch, lanes)

    @functools.cached_property
    def _stacks(self) -> dict[str, list[Stack]]:
        blocks = 1 if device().type == "cuda" else core_count()
        return {name: [stack_of(*self._of, compiled=how) for _ in range(blocks)] for name, how in KINDS.items()}

    def compare(self, number: int) -> dict[str, Any]:
        """Round ``number``: the limits, then both stacks in turn."""
        torch.set_num_threads(usual_threads())
        most = limits()
        if device().type == "cpu":
            torch.set_num_threads(1)
        sides = {name: partial(measure, stacks, most) for name, stacks in self._stacks.items()}
        return {"limits": most, **in_turn(sides, number)}


def summary(done: list[dict[str, Any]]) -> dict[str, Any]:
    """One width."""
    figures: dict[str, Any] = {
        "gflops_per_second": spread(each["limits"]["flops"] / 1e9 for each in done),
        "gigabytes_per_second": spread(each["limits"]["bandwidth"] / 1e9 for each in done),
    }
    for name in KINDS:
        sides = [each[name] for each in done]
        measured = [what for what, value in sides[0].items() if not isinstance(value, str)]
        figures[name] = {what: spread(each[what] for each in sides) for what in measured}
        figures[name]["bound_by"] = sorted({each["bound_by"] for each in sides})
    return figures


def main() -> None:
    """All widths, eager and compiled in turn."""
    options = Options("roofline", __doc__, quick={"width": [16], "lanes": 4, "rounds": 1})
    options.add_argument("--width", type=int, nargs="+", default=[64, 256], help="of both hidden layers")
    options.add_argument("--lanes", type=int, default=None, help="of a block; by default those of a study")
    options.add_argument("--batch", type=int, default=128, help="rows of an update")
    options.add_argument("--rounds", type=int, default=3, help="of each width")
    given = options.given()
    warnings.simplefilter("ignore")
    set_up()
    cuda = torch.cuda.is_available()
    rounds = Rounds("roofline_cuda" if cuda else "roofline", given, threads=torch.get_num_threads())
    figures = {}
    for width in given.width:
        contest = Contest(width, given.batch, given.lanes or lanes_of(width))
        done = [rounds.once(f"width {width}, {number}", partial(contest.compare, number)) for number in range(given.rounds)]
        figures[f"width_{width}"] = summary(done)
    rounds.conclude(figures)


if __name__ == "__main__":
    main()
