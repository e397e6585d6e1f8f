"""The plan of a study: the number of lanes in flight, and whether stacks are compiled. Trains nothing but a calibration.

Decisions depend on cached measurements and fixed assumptions, never on timings of the run itself, so that a repeated
search decides the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch

from service.search import Params, recipe
from service.spec import StudySpec
from workers.planning.calibration import calibrate
from workers.planning.process import usual_threads
from workers.stack import compiling
from workers.stack.device_data import DeviceData
from workers.stack.memory import free_bytes
from workers.stack.runner import Compiled
from workers.stack.stack import StackKey

MIN_IN_FLIGHT = 8
GENERATIONS = 5
"""Minimum number of generations of a search, however many lanes the device can train at once."""
EXPECTED_SHARE = 0.3
"""Expected share of the maximum number of epochs, if trials may be pruned or converge."""
MOST_STACK_KEYS = 8
"""Maximum number of stacks that are planned for."""


@dataclass(frozen=True)
class Plan:
    """``capacity`` lanes in flight, ``compiled_lanes`` in each compiled stack (None if stacks are eager), and CPU
    ``threads`` (None for the default of the process).
    """

    capacity: int
    compiled_lanes: int | None
    threads: int | None = None

    def take_threads(self) -> None:
        """Set torch's number of threads to that of the plan."""
        torch.set_num_threads(self.threads or usual_threads())

    def compiled(self, cache: Path) -> Compiled | None:
        """How stacks are compiled, with programs in ``cache``; None if they are eager."""
        return None if self.compiled_lanes is None else Compiled(self.compiled_lanes, cache / "programs")


def make_plan(spec: StudySpec, example: Params, data: DeviceData, cache: Path) -> Plan:
    """As many lanes as are efficient on the device, but few enough that the search can learn from its own trials.

    Args:
        spec: The study's spec, resolved.
        example: Parameters of a typical trial, for measurements.
        data: The study's data on its device.
        cache: Directory of calibrations and compiled programs.
    """
    torch.set_num_threads(usual_threads())
    typical = recipe(spec, example)
    key = StackKey.of(typical, data.inputs, data.outputs, data.categories)
    most = max(MIN_IN_FLIGHT, spec.budget.trials // GENERATIONS) * data.folds
    found = calibrate(key, typical, data, most, cache)
    keys = min(spec.stack_keys, MOST_STACK_KEYS)
    # The stacks of all keys are on the device at once.
    fitting = found.need.most_lanes(free_bytes(data.device) - (keys - 1) * found.need.base)
    capacity = max(data.folds, min(found.lanes * keys, most, fitting))
    pays = compiling.pays(expected_lane_updates(spec, data) / keys, found.rate)
    if spec.model.word != "mlp" or key.micro_batches > 1 or not (pays and compiling.available(data.device.type)):
        return Plan(capacity, None, found.threads)
    lanes = max(data.folds, round_size(capacity // keys))  # a trial needs all its folds
    if not ends_early(spec):
        lanes = even(lanes, min(most, fitting) // keys, spec.budget.trials * data.folds // keys)
    return Plan(lanes * keys, lanes)


def even(lanes: int, most: int, runs: int) -> int:
    """A size from ``lanes`` to ``most`` that leaves the fewest lanes idle if all ``runs`` train equally long."""
    sizes = {lanes, *(round_size(size) for size in range(lanes, most + 1))}
    return min(sorted(sizes), key=lambda size: math.ceil(runs / size) * size)


def round_size(lanes: int) -> int:
    """``lanes`` rounded down to one of a few sizes (4 to 7 times a power of two), so that studies share their programs."""
    step = 1 << max(0, lanes.bit_length() - 3)
    return max(1, lanes // step * step)


def ends_early(spec: StudySpec) -> bool:
    """Whether a trial may end before its last epoch."""
    return spec.early_stopping is not None or spec.pruner.name != "none"


def expected_lane_updates(spec: StudySpec, data: DeviceData) -> float:
    """The expected number of updates of a study, all lanes together."""
    domain = spec.domains["batch_size"]
    smallest = int(min(map(float, getattr(domain, "choices", None) or [getattr(domain, "value", 128)])))
    updates = -(-data.train_rows // min(smallest, data.train_rows))
    share = EXPECTED_SHARE if ends_early(spec) else 1.0
    return spec.budget.trials * data.folds * spec.budget.epochs * updates * share
