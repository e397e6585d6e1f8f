"""The gradient: forward and backward of all lanes on their batches, as the techniques that are on change these.

Shapes: `k` lanes, `b` examples, `P` parameters, `Q` statistics, `L` dropout layers. Lanes never mix: the gradient of the
sum of their losses is, row by row, the gradient of each loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import grad

from workers.stack.crew import Crew, Given
from workers.stack.flat import FlatModel
from workers.stack.hashing import combine
from workers.stack.lanes import LaneState
from workers.stack.precision import mixed_precision
from workers.stack.techniques import TECHNIQUES, Batch, Columns
from workers.stack.techniques.base import OLD_KEYS
from workers.stack.techniques.frozen import FROZEN
from workers.stack.techniques.mixing import mixed, partner


def _cross_entropy(out: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(out.transpose(1, 2), target, reduction="none")


def _of_labels(out: Tensor, target: Tensor) -> Tensor:
    return F.softplus(torch.where(target > 0, -out, out))


def _squared_error(out: Tensor, target: Tensor) -> Tensor:
    return (out.squeeze(-1) - target).square()


EXAMPLE_LOSSES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "classification": _cross_entropy,
    "multilabel": _of_labels,
    "regression": _squared_error,
}
"""By task, the loss of predictions (k, b, outputs) against targets (k, b), per example: (k, b).

Of several targets, which are (k, b, t), it is (k, b, t).
"""


def update_keys(seeds: Tensor, updates: Tensor, layers: int) -> Tensor:
    """The keys of every lane's dropout masks and of its techniques' random numbers, for each update.

    Args:
        seeds: (k,) int32, the lanes' own.
        updates: (u, k) int32, the number of updates of each lane so far.
        layers: L, the number of dropout layers.

    Returns:
        (u, k, L + len(OLD_KEYS)) int32.
    """
    numbers = np.array([*range(1, layers + 1), *range(-len(OLD_KEYS), 0)], dtype=np.int32)
    if seeds.device.type == "cpu":
        return torch.from_numpy(combine(combine(seeds.numpy()[None], updates.numpy())[:, :, None], numbers[None, None]))
    layer = torch.from_numpy(numbers).to(seeds.device)
    return combine(combine(seeds, updates)[:, :, None], layer)


class Gradient:
    """Of the loss without penalties, with the ``techniques`` it is made with. Holds no lane state of its own."""

    def __init__(
        self,
        model: FlatModel,
        task: str,
        techniques: frozenset[str],
        *,
        micro_batches: int,
        mixed_precision: bool,
        crew: Crew | None = None,
    ) -> None:
        self.model = model
        self.task = task
        self.crew = crew
        self.techniques = techniques
        self.micro_batches = micro_batches
        self.mixed_precision = mixed_precision
        self.loss = EXAMPLE_LOSSES[task]
        self._mixes_targets = task == "regression"
        sources: Sequence[int] = getattr(model.module, "sources", ())
        self._data_columns = len(set(sources))
        device = next(model.module.parameters()).device
        self._sources = torch.tensor(sources, device=device) if sources else None
        self._on = [technique for technique in TECHNIQUES if technique.name in techniques]

    def __call__(
        self, state: LaneState, columns: Columns, keys: Tensor, x: Tensor, y: Tensor, weights: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The gradient of a batch ``x (k, b, ...)``, ``y (k, b)`` or ``(k, b, t)``, with the ``weights`` (k, b) of its
        losses, from parts of it that are in memory one after the other.

        Returns:
            (k, P), and the losses (k,) with the running statistics (k, Q) after this pass.
        """
        devices = 1 if self.crew is None else self.crew.devices
        parts = min(max(self.micro_batches, devices), x.shape[1])
        if parts == 1:
            return self._of_part(state, self._batch(x, y, columns, keys, weights))
        given = Given(columns, keys, x, y, weights, parts, devices)
        if self.crew is not None:
            return self.crew.gradient(self, state, given)
        gradient, losses, stats, _ = self.of_parts(range(parts), state, given)
        return gradient, (losses, stats)

    def of_parts(self, numbers: Sequence[int], state: LaneState, given: Given) -> tuple[Tensor, Tensor, Tensor, float]:
        """What some parts of a batch add to its gradient (k, P) and its losses (k,); the statistics (k, Q) after them, and
        their share of its rows.
        """
        gradient, losses = torch.zeros_like(state.weights), torch.zeros_like(given.columns["momentum"])
        total = 0.0
        for number in numbers:
            share, (x, y, weights) = given.part(number)
            part = self._batch(x, y, given.columns, combine(given.keys, number), weights)
            own, (loss, stats) = self._of_part(state, part)
            gradient.add_(own, alpha=share)
            losses.add_(loss, alpha=share)
            state = replace(state, stats=stats)
            total += share
        return gradient, losses, state.stats, total

    def described(self) -> dict[str, Any]:
        """What another process has to know to make the same, as JSON."""
        return {
            "shape": self.model.shape.to_json(),
            "task": self.task,
            "techniques": sorted(self.techniques),
            "mixed_precision": self.mixed_precision,
        }

    def _batch(self, x: Tensor, y: Tensor, columns: Columns, keys: Tensor, weights: Tensor | None) -> Batch:
        return Batch(x, y, columns, keys, weights=weights, sources=self._sources, data_columns=self._data_columns)

    def _of_part(self, state: LaneState, batch: Batch) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        if len(batch.x) > 1 and not self.model.stacks:
            return self._one_by_one(state, batch)
        self.change(batch)

        def total(weights: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
            with mixed_precision(batch.x.device, self.mixed_precision):
                out, stats = self._forward(weights, state.stats, batch)
            losses = self._losses(out.float(), batch).mean(1)
            return losses.sum(), (losses, stats)

        if torch.compiler.is_compiling():
            gradient, aux = grad(total, has_aux=True)(state.weights)
            return gradient, aux
        # Ordinary autograd is faster than `grad`, which costs a little in every operation and a second to import.
        with torch.enable_grad():
            weights = state.weights.detach().requires_grad_()
            loss, (losses, stats) = total(weights)
            (gradient,) = torch.autograd.grad(loss, weights)
        return gradient, (losses.detach(), stats.detach())

    def change(self, batch: Batch) -> None:
        """Show the examples as this update does."""
        for technique in self._on:
            technique.on_batch(batch, self.techniques)

    def _forward(self, weights: Tensor, stats: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Outputs (k, b, o) and statistics (k, Q); frozen lanes keep theirs, and normalize by them."""
        rates = batch.columns["dropout"]
        out, updated = self.model.forward(weights, stats, rates, batch.keys, batch.x)
        if FROZEN not in self.techniques or not self.model.normalizes_batches:
            return out, updated
        with self.model.running_statistics():
            fixed, _ = self.model.forward(weights, stats, rates, batch.keys, batch.x)
        frozen = batch.columns[FROZEN][:, None] > 0
        return torch.where(frozen.view(-1, *(1 for _ in out.shape[1:])), fixed, out), torch.where(frozen, stats, updated)

    def _one_by_one(self, state: LaneState, batch: Batch) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The gradients of networks that are faster each by itself, which also takes the memory of one lane only."""
        parts = []
        for lane in range(len(batch.x)):
            own = slice(lane, lane + 1)
            weights = None if batch.weights is None else batch.weights[own]
            columns = {name: column[own] for name, column in batch.columns.items()}
            alone = self._batch(batch.x[own], batch.y[own], columns, batch.keys[own], weights)
            parts.append(self._of_part(replace(state, weights=state.weights[own], stats=state.stats[own]), alone))
        gradients, rest = zip(*parts, strict=True)
        losses, stats = zip(*rest, strict=True)
        return torch.cat(gradients), (torch.cat(losses), torch.cat(stats))

    def _losses(self, out: Tensor, batch: Batch) -> Tensor:
        """(k, b) losses of the labels, which are mixed like their examples; of the m members of a network (k, b·m)."""
        if batch.share is None:
            return self._loss(out, batch.y, batch.weights, batch)
        if self._mixes_targets:
            weights = None if batch.weights is None else mixed(batch.weights, batch.share)
            return self._loss(out, mixed(batch.y, batch.share), weights, batch)
        share, others = batch.share[:, None], None if batch.weights is None else partner(batch.weights)
        own = self._loss(out, batch.y, batch.weights, batch)
        return share * own + (1.0 - share) * self._loss(out, partner(batch.y), others, batch)

    def _loss(self, out: Tensor, labels: Tensor, weights: Tensor | None, batch: Batch) -> Tensor:
        if out.ndim == 4:  # members are as further examples
            members, out = out.shape[2], out.flatten(1, 2)
            labels = labels.repeat_interleave(members, dim=1)
            weights = None if weights is None else weights.repeat_interleave(members, dim=1)
        losses = self.loss(out, labels)
        for technique in self._on:
            losses = technique.on_losses(losses, out, labels, batch.columns, self.techniques)
        if losses.ndim == 3:
            losses = losses.mean(2)
        return losses if weights is None else weights * losses
