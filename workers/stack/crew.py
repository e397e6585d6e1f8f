"""The gradient of one batch, computed by several devices: what rank 0 asks of its followers, and what these compute.

Followers hold nothing but a network without weights of its own. With every batch they get the weights, and give back the
gradient of their parts; penalties, clipping, the optimizer and averages are rank 0's, as is evaluation. So a device that is
lost takes nothing with it: rank 0 computes its parts as well. Traffic is that of an all-reduce of the gradient.

A batch is divided into at least as many parts as there are ``devices``, as `micro_batches` divides it, and the parts among
the devices. What is computed depends on that number, not on the processes that there are. Batch normalization uses the
statistics of a part; its running averages are the means, over devices, of what each makes of its own parts.
Shapes: `k` lanes, `b` examples, `P` parameters, `Q` statistics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from workers.stack.lanes import LaneState
from workers.stack.link import Link, LinkBroken
from workers.stack.precision import products_are_shortened
from workers.stack.techniques import Columns

if TYPE_CHECKING:
    from workers.stack.gradient import Gradient

COLUMN = "column "
"""How the names of columns begin in an order."""
SEPARATE = "its batches are divided among devices"
"""Why the lanes of such a stack are computed one by one."""


@dataclass(frozen=True)
class Given:
    """A batch ``x (k, b, ...)``, ``y (k, b)`` or (k, b, t), with the ``weights`` (k, b) of its losses, and the ``keys`` of
    its random numbers; in ``parts`` parts, which are for ``devices`` devices.
    """

    columns: Columns
    keys: Tensor
    x: Tensor
    y: Tensor
    weights: Tensor | None
    parts: int
    devices: int

    def part(self, number: int) -> tuple[float, tuple[Tensor, Tensor, Tensor | None]]:
        """Its share of the rows, and its ``x``, ``y`` and ``weights``."""
        x, y = (each.tensor_split(self.parts, 1)[number] for each in (self.x, self.y))
        weights = None if self.weights is None else self.weights.tensor_split(self.parts, 1)[number]
        return x.shape[1] / self.x.shape[1], (x, y, weights)

    def groups(self) -> list[list[int]]:
        """The numbers of each device's parts."""
        return [[int(part) for part in own] for own in torch.arange(self.parts).tensor_split(self.devices) if len(own)]


@dataclass(frozen=True)
class Crew:
    """``devices`` divide each batch of a study; ``link`` leads to them, None where this process has to be all of them."""

    devices: int
    link: Link | None = None

    def gradient(self, own: Gradient, state: LaneState, given: Given) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The gradient (k, P), the losses (k,) and the running statistics (k, Q); ``own`` computes this process's parts.

        Raises:
            RuntimeError: A follower met an error.
        """
        total = None
        if self.link is not None:
            with self.link.lock:
                total = self._together(self.link, own, state, given)
        if total is None:
            total = nothing(state)
            compute(total, own, state, given, given.groups())
        parameters = state.weights.shape[1]
        gradient, losses, stats = total.split_with_sizes([parameters, 1, total.shape[1] - parameters - 1], 1)
        return gradient.contiguous(), (losses[:, 0], stats.contiguous())

    def _together(self, link: Link, own: Gradient, state: LaneState, given: Given) -> Tensor | None:
        """The sum of what all processes have computed; None if some of them are gone."""
        how = {"do": "gradient", "parts": given.parts, "devices": given.devices, "tf32": products_are_shortened()}
        small = {**{f"{COLUMN}{name}": column for name, column in given.columns.items()}, "keys": given.keys}
        large = [state.weights, state.stats, given.x, given.y, *([] if given.weights is None else [given.weights])]
        total, failure = nothing(state), None
        try:
            link.order({**how, "network": own.described()}, small, large)
            try:
                compute(total, own, state, given, given.groups()[:: link.processes])
            except Exception as error:  # raised when all processes are in step again
                failure = error
                total.zero_()
            errors = link.sum(total)
        except LinkBroken:
            return None
        if failure is not None:
            raise failure
        if errors:
            raise RuntimeError(errors[0])
        return total


def nothing(state: LaneState) -> Tensor:
    """(k, P + 1 + Q) zeros, for gradients, losses and statistics."""
    columns = state.weights.shape[1] + 1 + state.stats.shape[1]
    return torch.zeros(len(state.weights), columns, device=state.weights.device)


def compute(total: Tensor, own: Gradient, state: LaneState, given: Given, groups: Sequence[Sequence[int]]) -> None:
    """Add to ``total`` (k, P + 1 + Q) the share of some groups of parts in the batch's gradient, losses and statistics."""
    parameters = state.weights.shape[1]
    for group in groups:
        gradient, losses, stats, share = own.of_parts(group, state, given)
        total[:, :parameters] += gradient
        total[:, parameters] += losses
        total[:, parameters + 1 :] += share * stats
