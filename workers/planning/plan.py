"""The plan of a study: lanes in flight, and how they are laid out on the device. Trains nothing, but on CUDA.

Where memory can't be foretold a few updates are run to see how much they take. Nothing else is measured beforehand: on a CPU
the size of a block follows from the size of the network, and on CUDA the more lanes there are the faster they train.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from service.search import Params, recipe
from service.spec import OFF, Fixed, Recipe, StudySpec
from workers.planning.process import core_count, usual_threads
from workers.stack.blueprint import PARTS, Part, StackKey
from workers.stack.crew import SEPARATE
from workers.stack.device_data import DeviceData
from workers.stack.flat import FlatModel
from workers.stack.layout import Layout, Threads
from workers.stack.memory import MemoryNeed, free_bytes
from workers.stack.optimizers import RULES
from workers.stack.probe import verdict
from workers.stack.stack import Stack
from workers.stack.workshop import Workshop

MIN_IN_FLIGHT = 8
GENERATIONS = 5
"""Minimum number of generations of a search, however many lanes the device can train at once."""
EXPECTED_SHARE = 0.3
"""Expected share of the maximum number of epochs, if trials may be pruned or converge."""
MOST_STACK_KEYS = 8
"""Maximum number of stacks that are planned for."""
BLOCKS_PER_CORE = 6
"""Blocks in flight for every core: enough that no core waits long for the last block of a round."""
BLOCK_LANES = {"mlp": 10, "sequence": 10, "cnn": 1, "module": 10}
"""Maximum number of lanes of a block on a CPU, by family: enough that the interpreter, which runs for one thread at a time,
keeps up. Convolutions are fastest one network at a time."""
EAGER_RATE = 1e10
"""Floating-point operations a second of a core that trains eagerly; assumed."""
BUILT_FOR_SECONDS = 8.0
"""Programs are built for searches that would take longer without: each takes a core some ten seconds."""
BLOCK_BYTES = 12 << 20
"""A block of more than one lane has a smaller state than this. Smaller ones, which fit the cache of a core, are no faster:
their updates are as fast, and the interpreter has more to do for each."""


@dataclass(frozen=True)
class Plan:
    """``capacity`` lanes in flight in blocks of ``block_lanes`` (None: as many as there are), trained by ``threads``
    threads; ``compiled_lanes`` are those of a block that goes over to programs, None if none does; ``builds``: programs
    that are not there are made.

    ``taken_over`` says when each stack of an earlier search went over to which program, for its repetition: by the name of
    the stack and by part, the number of rounds. ``separate``: why lanes are trained one by one, if a module needs it;
    ``devices``: among how many the batches of each lane are divided.
    """

    capacity: int
    compiled_lanes: int | None
    threads: int | None = None
    block_lanes: int | None = None
    taken_over: Mapping[str, Mapping[Part, int]] | None = None
    builds: bool = True
    separate: str | None = None
    devices: int = 1

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Plan:
        """The plan of an earlier search, of which `dataclasses.asdict` was stored, on this machine's cores."""
        plan = cls(**stored)
        if plan.block_lanes is None or plan.devices > 1:
            return plan
        return replace(plan, threads=core_count())

    def take_threads(self) -> None:
        """Set torch's number of threads: one for each of the threads of blocks, unless these are fewer than the cores."""
        spare = 1 if self.block_lanes is None else max(1, self.capacity // self.block_lanes)
        blocks = min(self.threads or 1, spare)
        torch.set_num_threads(max(1, usual_threads() // blocks))

    def layout(self, workshop: Workshop, threads: Threads, device: torch.device, name: str) -> Layout:
        """How the runs of a stack are laid out in the search."""
        if device.type == "cuda":
            return Layout(self.compiled_lanes, graphs=self.compiled_lanes is not None)
        taken_over = None if self.taken_over is None else dict(self.taken_over.get(name, {}))
        workshop_used = workshop if self.compiled_lanes else None
        return Layout(self.block_lanes, False, workshop_used, self.builds, threads, taken_over)

    def final_layout(self, workshop: Workshop, threads: Threads, device: torch.device, key: StackKey) -> Layout:
        """How finalists are laid out: by programs if stacks of their key had some in the search.

        Whether others are there by now would depend on time.
        """
        searched = [parts for name, parts in (self.taken_over or {}).items() if name.startswith(f"{key.digest}/")]
        if device.type == "cuda" or (searched and all(set(parts) == set(PARTS) for parts in searched)):
            return replace(self.layout(workshop, threads, device, ""), taken_over=dict.fromkeys(PARTS, 0))
        return Layout(self.block_lanes, threads=threads)


def make_plan(spec: StudySpec, example: Params, data: DeviceData) -> Plan:
    """As many lanes as keep the device busy, but few enough that the search can learn from its own trials.

    Args:
        spec: The study's spec, resolved.
        example: Parameters of a typical trial.
        data: The study's data on its device.
    """
    typical = recipe(spec, example)
    key = StackKey.of(typical, data.inputs, data.outputs, data.categories, data.several)
    if data.crew is not None:  # one trial after the other, each on all devices
        return Plan(data.folds, None, threads=1, block_lanes=1, separate=SEPARATE, devices=data.crew.devices)
    trial = verdict(key.shape, data)
    most = max(MIN_IN_FLIGHT, spec.budget.trials * spec.searches // GENERATIONS) * data.folds
    # The outer folds of nested validation have stacks of their own.
    keys = min(spec.stack_keys, MOST_STACK_KEYS) * (1 if spec.searches == 1 else 2)
    need = memory_need(key, typical, data)
    # The stacks of all keys are on the device at once.
    fitting = need.most_lanes(free_bytes(data.device) - (keys - 1) * need.base)
    if data.device.type == "cuda":
        lanes = max(data.folds, round_size(min(most, fitting) // keys))  # a trial needs all its folds
        captured = lanes if spec.model.word == "mlp" and key.micro_batches == 1 else None
        return Plan(max(lanes * keys, data.folds), captured, separate=trial.separate)
    cores = core_count()
    lanes = block_lanes(key, most, cores, data.folds) if trial.separate is None else 1
    capacity = max(data.folds, min(most, fitting, lanes * cores * BLOCKS_PER_CORE))
    traced = spec.model.word == "mlp" or (spec.model.word == "module" and trial.traceable)
    programs = traced and key.micro_batches == 1 and spec.domains["l2_sp"] == Fixed(value=OFF)
    builds = programs and eager_seconds(spec, key, data) / cores > BUILT_FOR_SECONDS
    return Plan(capacity, lanes if programs else None, cores, lanes, builds=builds, separate=trial.separate)


def block_lanes(key: StackKey, most: int, cores: int, folds: int) -> int:
    """Lanes of a block on a CPU: few enough that each core has blocks, and that none is idle when a trial of ``folds`` lanes
    is over; else a power of two, so that studies share their programs.
    """
    bytes_of_lane = _state_bytes(FlatModel(key.shape, torch.device("meta")), key)
    limit = min(BLOCK_LANES[key.shape.family], BLOCK_BYTES // bytes_of_lane, most // (2 * cores))
    if 1 < folds <= limit:
        return limit // folds * folds
    return 1 << max(0, limit.bit_length() - 1)


def eager_seconds(spec: StudySpec, key: StackKey, data: DeviceData) -> float:
    """About how many seconds of a core a whole search takes without programs."""
    rows = spec.budget.trials * spec.searches * spec.budget.epochs * data.folds * data.train_rows
    ends_early = spec.early_stopping is not None or spec.pruner.name != "none"
    return rows * 3 * operations(key) / EAGER_RATE * (EXPECTED_SHARE if ends_early else 1.0)


def operations(key: StackKey) -> float:
    """Floating-point operations of a forward pass with one example; backward takes twice as many."""
    if key.shape.module is None:
        return 2.0 * FlatModel(key.shape, torch.device("meta")).parameters
    network = FlatModel(key.shape, torch.device("cpu")).template.eval()
    with FlopCounterMode(display=False) as counter:  # with gradients: without, transformers take a way that is not counted
        network(torch.zeros(1, *key.shape.inputs))
    return float(counter.get_total_flops())


def memory_need(key: StackKey, recipe: Recipe, data: DeviceData) -> MemoryNeed:
    """The peak of a stack: of multilayer perceptrons on a CPU by arithmetic, of others by trying."""
    if data.device.type == "cuda" or key.shape.family != "mlp":
        return MemoryNeed.measured(partial(train_once, key, recipe, data), data.device)
    model = FlatModel(key.shape, torch.device("meta"))
    rows = max(key.batch_size, int(data.valid.shape[1])) * (model.largest_activation + data.numbers)
    return MemoryNeed(base=0, lane=2 * _state_bytes(model, key) + 4 * 8 * rows)


def _state_bytes(model: FlatModel, key: StackKey) -> int:
    """Of one lane: its weights and their gradient, the best ones, and the moments."""
    return max(1, 4 * model.parameters * (3 + RULES[key.optimizer].moments))


def train_once(key: StackKey, recipe: Recipe, data: DeviceData, lanes: int) -> None:
    """Run the steps that take the most memory: updates and an evaluation."""
    stack = Stack(key, data)
    stack.resize([], lanes)
    for lane in range(lanes):
        stack.load(lane, recipe, seed=lane)
    stack.train_updates(np.full((lanes, stack.updates), recipe.number("lr"), dtype=np.float32), 2)
    stack.evaluate()
    stack.keep_best([True] * lanes)


def round_size(lanes: int) -> int:
    """``lanes`` rounded down to one of a few sizes (4 to 7 times a power of two), for which graphs are captured."""
    step = 1 << max(0, lanes.bit_length() - 3)
    return max(1, lanes // step * step)
