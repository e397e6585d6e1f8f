"""Calibration of the number of lanes of a stack: measured on the real model, data and device, and cached on disk.

The cache is not only for speed: the number of lanes determines how many trials are in flight, and thereby what the sampler
knows when it is asked, so a repeated search must get the same number.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from service.spec import Recipe
from workers.stack.device_data import DeviceData
from workers.stack.memory import MemoryNeed, free_bytes, is_out_of_memory
from workers.stack.stack import Stack, StackKey

LANES = (1, 4, 8, 16, 32, 64, 128, 256)
_UPDATES = 3
_MIN_GAIN = 1.05
"""Factor by which a larger stack must train more lane-updates per second, as more lanes make a search less adaptive."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Calibration:
    """A good number of lanes for a stack, its lane-updates per second when run eagerly, and the memory it needs.

    ``threads`` is 1 if a single thread is as fast as all of them, None otherwise.
    """

    lanes: int
    rate: float
    need: MemoryNeed
    threads: int | None = None


def calibrate(key: StackKey, recipe: Recipe, data: DeviceData, most: int, cache: Path) -> Calibration:
    """The number of lanes, at most ``most``, with the highest throughput on the device; measured or from ``cache``."""
    path = cache / f"lanes-{_fingerprint(key, data, most)}.json"
    if path.exists():
        known = json.loads(path.read_text())
        return Calibration(known["lanes"], known["rate"], MemoryNeed(**known["need"]), known.get("threads"))
    need = MemoryNeed.measured(lambda lanes: train_once(key, recipe, data, lanes), data.device)
    measured = measure(key, recipe, data, min(most, need.most_lanes(free_bytes(data.device))))
    if not measured:  # nothing fits now, as each trial will report
        return Calibration(1, math.inf, need)
    lanes = choose(measured)
    threads, rate = measure_threads(key, recipe, data, lanes, measured[lanes])
    found = Calibration(lanes, rate, need, threads)
    cache.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{time.monotonic_ns()}")
    temporary.write_text(json.dumps(asdict(found)))
    temporary.replace(path)
    log.info("calibrated", extra={"lanes": lanes, "lane_updates_per_second": round(measured[lanes])})
    return found


def measure(key: StackKey, recipe: Recipe, data: DeviceData, most: int) -> dict[int, float]:
    """Lane-updates per second for growing stacks, until growing no longer helps or memory runs out."""
    measured: dict[int, float] = {}
    worse = 0
    for lanes in sorted({*(lanes for lanes in LANES if lanes < most), most}):
        try:
            if lanes > 1 and not Stack(key, data).model.stacks:
                break
            measured[lanes] = _throughput(key, recipe, data, lanes)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            break
        worse = worse + 1 if measured[lanes] < max(measured.values()) else 0
        if worse == 2:  # a single slow measurement may be due to another process
            break
    return measured


def measure_threads(key: StackKey, recipe: Recipe, data: DeviceData, lanes: int, rate: float) -> tuple[int | None, float]:
    """1 if a single thread is as fast as all of them, which wait for each other, else None; and the higher rate."""
    usual = torch.get_num_threads()
    if data.device.type != "cpu" or usual == 1:
        return None, rate
    try:
        torch.set_num_threads(1)
        alone = _throughput(key, recipe, data, lanes)
    finally:
        torch.set_num_threads(usual)
    return (1, alone) if alone >= rate else (None, rate)


def choose(measured: dict[int, float]) -> int:
    """The smallest number of lanes whose rate no other exceeds by more than the factor `_MIN_GAIN`."""
    best = max(measured.values())
    return next(lanes for lanes, rate in sorted(measured.items()) if rate * _MIN_GAIN >= best)


def _stack(key: StackKey, recipe: Recipe, data: DeviceData, lanes: int) -> tuple[Stack, NDArray[np.float32]]:
    """A stack with all lanes in use, and their learning rates."""
    stack = Stack(key, data)
    stack.resize([], lanes)
    for lane in range(lanes):
        stack.load(lane, recipe, seed=lane)
    return stack, np.full((lanes, stack.updates), recipe.number("lr"), dtype=np.float32)


def train_once(key: StackKey, recipe: Recipe, data: DeviceData, lanes: int) -> None:
    """Run the steps that take the most memory: updates and an evaluation."""
    stack, rates = _stack(key, recipe, data, lanes)
    stack.train_updates(rates, 2)
    stack.evaluate()
    stack.keep_best([True] * lanes)


def _throughput(key: StackKey, recipe: Recipe, data: DeviceData, lanes: int) -> float:
    stack, rates = _stack(key, recipe, data, lanes)
    times = []
    stack.train_updates(rates, 2)
    for _ in range(3):
        _synchronize(data.device)
        start = time.perf_counter()
        stack.train_updates(rates, _UPDATES)
        _synchronize(data.device)
        times.append(time.perf_counter() - start)
    return lanes * min(_UPDATES, stack.updates) / min(times)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _fingerprint(key: StackKey, data: DeviceData, most: int) -> str:
    """A hash of everything that the measurement depends on."""
    device = torch.cuda.get_device_name(data.device) if data.device.type == "cuda" else f"cpu-{torch.get_num_threads()}"
    what = (repr(key), most, data.train_rows, data.folds, device, torch.__version__)
    return hashlib.sha256(repr(what).encode()).hexdigest()[:16]
