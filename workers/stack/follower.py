"""A follower: a process that computes its parts of a batch for rank 0 (see `workers.stack.crew`), on a device of its own."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from workers.plain.foreign import sentence
from workers.plain.network import Shape
from workers.stack.crew import COLUMN, SEPARATE, Given, compute, nothing
from workers.stack.flat import FlatModel
from workers.stack.gradient import Gradient
from workers.stack.lanes import LaneState
from workers.stack.link import answer, processes, rank, received
from workers.stack.memory import is_out_of_memory
from workers.stack.precision import shortened_products

log = logging.getLogger(__name__)


def follow(device: torch.device) -> int:
    """Carry out the orders of rank 0 until it ends; returns the exit code, 0 if it has ended in order."""
    while True:
        try:
            what, small, large = received(device)
            if what["do"] == "end":
                return 0
            if what["do"] == "gradient":
                answer(*_answered(what, small, large, device))
        except RuntimeError as error:
            log.error("rank 0 is gone: %s", str(error).splitlines()[0])
            return 1


def _answered(
    what: Mapping[str, Any], small: Mapping[str, Tensor], large: Sequence[Tensor], device: torch.device
) -> tuple[Tensor, str | None]:
    """The share of this process in the gradient, or zeros and the error that it met."""
    weights, stats, x, y, *others = large
    columns = {name.removeprefix(COLUMN): each.to(device) for name, each in small.items() if name.startswith(COLUMN)}
    given = Given(columns, small["keys"].to(device), x, y, others[0] if others else None, what["parts"], what["devices"])
    state = _state(weights, stats)
    total, error = nothing(state), None
    try:
        own = _gradient(*_named(what["network"]), device)
        own.model.drop_in((columns["dropout"] > 0).any(0).tolist())
        own.model.module.train()
        with shortened_products(what["tf32"]):
            compute(total, own, state, given, given.groups()[rank() :: processes()])
    except Exception as caught:  # raised by rank 0
        error = f"not enough memory: {sentence(caught)}" if is_out_of_memory(caught) else sentence(caught)
        total.zero_()
    return total, error


def _state(weights: Tensor, stats: Tensor) -> LaneState:
    """What a gradient depends on."""
    blank = LaneState.zeros(len(weights), parameters=0, statistics=0, moments=0, averaging=False, device=weights.device)
    blank.weights, blank.stats = weights, stats
    return blank


def _named(network: Mapping[str, Any]) -> tuple[Shape, str, frozenset[str], bool]:
    return Shape.from_json(network["shape"]), network["task"], frozenset(network["techniques"]), network["mixed_precision"]


@functools.lru_cache(maxsize=4)
def _gradient(shape: Shape, task: str, techniques: frozenset[str], mixed: bool, device: torch.device) -> Gradient:
    """What computes the gradients of a network, made once."""
    model = FlatModel(shape, device)
    model.separate = SEPARATE
    return Gradient(model, task, techniques, micro_batches=1, mixed_precision=mixed)
