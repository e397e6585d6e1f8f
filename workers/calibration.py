"""How many lanes a stack should have: measured on the real model, data and device, and remembered on disk.

Remembering is not only for speed: the number of lanes decides how many trials are in flight, and with it what the
sampler knows when it is asked, so a repeated search must find the same number.
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
from workers.memory import MemoryNeed, free_bytes, is_out_of_memory
from workers.stack.device import DeviceData
from workers.stack.stack import Stack, StackKey

LANES = (1, 4, 8, 16, 32, 64, 128, 256)
_UPDATES = 3
_ENOUGH_GAIN = 1.05
"""A larger stack must be this much faster per lane, for more lanes in flight make a search less adaptive."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Calibration:
    """A good number of lanes for a stack, its lane-updates per second when run eagerly, and the memory it needs."""

    lanes: int
    rate: float
    need: MemoryNeed


def calibrate(key: StackKey, recipe: Recipe, data: DeviceData, most: int, cache: Path) -> Calibration:
    """The number of lanes, at most ``most``, with the highest throughput on this device, as measured now or before."""
    path = cache / f"lanes-{_fingerprint(key, data, most)}.json"
    if path.exists():
        known = json.loads(path.read_text())
        return Calibration(known["lanes"], known["rate"], MemoryNeed(**known["need"]))
    need = MemoryNeed.measured(lambda lanes: train_once(key, recipe, data, lanes), data.device)
    measured = measure(key, recipe, data, min(most, need.most_lanes(free_bytes(data.device))))
    if not measured:  # nothing fits now; the trials will say so, each for itself
        return Calibration(1, math.inf, need)
    lanes = choose(measured)
    found = Calibration(lanes, measured[lanes], need)
    cache.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{time.monotonic_ns()}")
    temporary.write_text(json.dumps(asdict(found)))
    temporary.replace(path)
    log.info("calibrated", extra={"lanes": lanes, "lane_updates_per_second": round(measured[lanes])})
    return found


def measure(key: StackKey, recipe: Recipe, data: DeviceData, most: int) -> dict[int, float]:
    """Lane-updates per second for growing stacks, until growing no longer helps or memory runs out."""
    measured: dict[int, float] = {}
    for lanes in sorted({*(lanes for lanes in LANES if lanes < most), most}):
        try:
            if lanes > 1 and not Stack(key, data).model.stacks:
                break
            measured[lanes] = _throughput(key, recipe, data, lanes)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            break
        rates = list(measured.values())
        if len(rates) > 1 and rates[-1] < rates[-2]:
            break
    return measured


def choose(measured: dict[int, float]) -> int:
    """The smallest number of lanes that no larger one beats by enough."""
    best = max(measured.values())
    return next(lanes for lanes, rate in sorted(measured.items()) if rate * _ENOUGH_GAIN >= best)


def _stack(key: StackKey, recipe: Recipe, data: DeviceData, lanes: int) -> tuple[Stack, NDArray[np.float32]]:
    """A stack with all lanes in use, and their learning rates."""
    stack = Stack(key, data)
    stack.resize([], lanes)
    for lane in range(lanes):
        stack.load(lane, recipe, seed=lane)
    return stack, np.full((lanes, stack.updates), recipe.number("lr"), dtype=np.float32)


def train_once(key: StackKey, recipe: Recipe, data: DeviceData, lanes: int) -> None:
    """What takes the most memory: an update, and an evaluation."""
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
    """What the measurement depends on."""
    device = torch.cuda.get_device_name(data.device) if data.device.type == "cuda" else f"cpu-{torch.get_num_threads()}"
    what = (repr(key), most, data.train_rows, data.folds, device, torch.__version__)
    return hashlib.sha256(repr(what).encode()).hexdigest()[:16]
