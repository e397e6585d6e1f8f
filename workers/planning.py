"""How many lanes a study has in flight, and whether its stacks are compiled. Decides; trains nothing but a calibration.

Decisions rest on remembered measurements and fixed assumptions, never on the clock of this run, so a repeated search
decides the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from service.search import Params, recipe
from service.spec import StudySpec
from workers.calibration import calibrate
from workers.memory import free_bytes
from workers.stack import compiling
from workers.stack.device import DeviceData
from workers.stack.stack import StackKey

MIN_IN_FLIGHT = 8
GENERATIONS = 5
"""A study is searched in at least so many generations, however many lanes the device could train at once."""
EXPECTED_SHARE = 0.5
"""Share of the largest possible number of epochs that a study trains where trials are pruned or converge."""
MOST_STACK_KEYS = 8
"""More stacks than this are not planned for."""


@dataclass(frozen=True)
class Plan:
    """``capacity`` lanes in flight; ``compiled_lanes`` in each compiled stack, None where stacks are eager."""

    capacity: int
    compiled_lanes: int | None


def make_plan(spec: StudySpec, example: Params, data: DeviceData, cache: Path) -> Plan:
    """As many lanes as the device likes, but few enough that the search can learn from its own trials.

    Args:
        example: Parameters of a typical trial, to measure with.
        cache: Where calibrations are remembered.
    """
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
        return Plan(capacity, None)
    # As many as a power of two allows: lanes beyond those in flight would be computed in vain. A trial needs all its folds.
    lanes = max(1 << int(math.log2(max(1, capacity // keys))), 1 << math.ceil(math.log2(data.folds)))
    return Plan(max(data.folds, lanes * keys), lanes)


def expected_lane_updates(spec: StudySpec, data: DeviceData) -> float:
    """The updates of all lanes that a study is likely to train."""
    domain = spec.domains["batch_size"]
    smallest = int(min(map(float, getattr(domain, "choices", None) or [getattr(domain, "value", 128)])))
    updates = -(-data.train_rows // min(smallest, data.train_rows))
    share = EXPECTED_SHARE if spec.early_stopping or spec.pruner.name != "none" else 1.0
    return spec.budget.trials * data.folds * spec.budget.epochs * updates * share
