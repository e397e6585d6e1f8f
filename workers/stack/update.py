"""The update: forward, backward, penalties, clipping, decay and optimizer of all lanes as one function.

Shapes: `k` lanes, `b` examples, `P` parameters, `Q` statistics, `L` dropout layers. Every hyperparameter is a (k,)
column of `LaneHyper`, so lanes with different settings share each kernel. Lanes never mix: the gradient of the sum
of their losses is, row by row, the gradient of each loss.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import grad

from workers.hashing import combine
from workers.stack.flat import FlatModel
from workers.stack.optimizers import adamw, sgd


@dataclass
class LaneHyper:
    """Per-lane hyperparameters, each (k,), but ``dropout`` (k, L); ``clip_norm`` is infinite where off."""

    l1: Tensor
    l2: Tensor
    weight_decay: Tensor
    clip_norm: Tensor
    momentum: Tensor
    dropout: Tensor
    seed: Tensor

    @classmethod
    def zeros(cls, k: int, dropouts: int, device: torch.device) -> LaneHyper:
        """Columns for k idle lanes."""
        columns = {field.name: torch.zeros(k, device=device) for field in fields(cls)}
        columns["dropout"] = torch.zeros(k, dropouts, device=device)
        columns["seed"] = torch.zeros(k, dtype=torch.int32, device=device)
        return cls(**columns)

    def select(self, lanes: Tensor) -> LaneHyper:
        """The columns of the named lanes."""
        return LaneHyper(**{field.name: getattr(self, field.name)[lanes] for field in fields(self)})


@dataclass
class LaneState:
    """What an update changes: ``weights`` (k, P), ``moments`` (m, k, P), ``stats`` (k, Q), ``updates`` (k,) done."""

    weights: Tensor
    moments: Tensor
    stats: Tensor
    updates: Tensor

    def copy(self) -> LaneState:
        """The same state in memory of its own."""
        return LaneState(*(value.clone() for value in vars(self).values()))

    def select(self, lanes: Tensor) -> LaneState:
        """The rows of the named lanes, in that order."""
        return LaneState(self.weights[lanes], self.moments[:, lanes], self.stats[lanes], self.updates[lanes])


def example_loss(task: str) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss of predictions (k, b, outputs) against targets (k, b), per example: (k, b)."""
    return _cross_entropy if task == "classification" else _squared_error


def _cross_entropy(out: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(out.transpose(1, 2), target, reduction="none")


def _squared_error(out: Tensor, target: Tensor) -> Tensor:
    return (out.squeeze(-1) - target).square()


def dropout_keys(seeds: Tensor, updates: Tensor, layers: int) -> Tensor:
    """The key of every lane's dropout masks, for each update and layer.

    Args:
        seeds: (k,) int32, the lanes' own.
        updates: (u, k) int32, how many updates each lane has behind it.
        layers: L, the number of dropout layers.

    Returns:
        (u, k, L) int32.
    """
    layer = torch.arange(1, layers + 1, dtype=torch.int32, device=seeds.device)
    return combine(combine(seeds, updates)[:, :, None], layer)


class Update:
    """One optimizer update of every lane, in place. Holds no lane state of its own."""

    def __init__(self, model: FlatModel, optimizer: str, task: str) -> None:
        self.model = model
        self.optimizer = optimizer
        self.penalized = model.penalty_mask()
        self.loss = example_loss(task)

    def __call__(self, state: LaneState, hyper: LaneHyper, lr: Tensor, keys: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Train every lane on its own batch ``x (k, b, ...)``, ``y (k, b)``.

        Args:
            state, hyper: Of k lanes; the state is changed in place.
            lr: (k,) learning rates of this update.
            keys: (k, L) int32 keys of the dropout masks (see `dropout_keys`).
            x, y: The batches.

        Returns:
            (k,) losses in front of the update.
        """
        gradient, (losses, stats) = self._gradient(state, hyper, keys, x, y)
        with torch.no_grad():
            state.stats.copy_(stats)
            state.updates.add_(1)
            self._penalize(gradient, state.weights, hyper)
            _clip(gradient, hyper.clip_norm)
            self._decay(state.weights, lr * hyper.weight_decay)
            self._step(state, gradient, hyper, lr[:, None])
        return losses

    def _gradient(
        self, state: LaneState, hyper: LaneHyper, keys: Tensor, x: Tensor, y: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        if len(x) > 1 and not self.model.stacks:
            return self._one_by_one(state, hyper, keys, x, y)

        def total(weights: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
            out, stats = self.model.forward(weights, state.stats, hyper.dropout, keys, x)
            losses = self.loss(out, y).mean(1)
            return losses.sum(), (losses, stats)

        if len(x) == 1 and not torch.compiler.is_compiling():
            # Ordinary autograd, whose convolutions copy nothing; `grad` is for `vmap` and for the compiler.
            weights = state.weights.detach().requires_grad_()
            loss, (losses, stats) = total(weights)
            (gradient,) = torch.autograd.grad(loss, weights)
            return gradient, (losses.detach(), stats.detach())
        gradient, aux = grad(total, has_aux=True)(state.weights)
        return gradient, aux

    def _one_by_one(
        self, state: LaneState, hyper: LaneHyper, keys: Tensor, x: Tensor, y: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The gradients of models that are faster each by itself, which also takes the memory of one lane only."""
        parts = []
        for lane in range(len(x)):
            own = torch.tensor([lane], device=x.device)
            parts.append(self._gradient(state.select(own), hyper.select(own), keys[own], x[own], y[own]))
        gradients, rest = zip(*parts, strict=True)
        losses, stats = zip(*rest, strict=True)
        return torch.cat(gradients), (torch.cat(losses), torch.cat(stats))

    def _penalize(self, gradient: Tensor, weights: Tensor, hyper: LaneHyper) -> None:
        """Add the gradients of λ₁·Σ|w| and λ₂/2·Σw²; the subgradient of |w| at 0 is 0."""
        slope = hyper.l1[:, None] * weights.sign() + hyper.l2[:, None] * weights
        gradient.add_(slope * self.penalized)

    def _decay(self, weights: Tensor, rate: Tensor) -> None:
        """Decoupled decay w ← w·(1 − lr·λ), never past zero, so that a large λ shrinks to nothing, not to chaos."""
        weights.mul_(1.0 - rate.clamp(max=1.0)[:, None] * self.penalized)

    def _step(self, state: LaneState, gradient: Tensor, hyper: LaneHyper, lr: Tensor) -> None:
        if self.optimizer == "sgd":
            sgd(state.weights, gradient, state.moments, lr, hyper.momentum[:, None])
        else:
            adamw(state.weights, gradient, state.moments, lr, state.updates[:, None].to(torch.float32))


def _clip(gradient: Tensor, limit: Tensor) -> None:
    """Scale each lane's gradient to at most ``limit`` (k,) in norm, as `torch.nn.utils.clip_grad_norm_` does."""
    norm = gradient.norm(dim=1)
    gradient.mul_((limit / (norm + 1e-6)).clamp(max=1.0)[:, None])
