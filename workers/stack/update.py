"""The update: the gradient, penalties, clipping, decay, optimizer and averaging of all lanes as one function.

Shapes: `k` lanes, `b` examples, `P` parameters, `Q` statistics, `L` dropout layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from workers.stack.flat import FlatModel
from workers.stack.gradient import Gradient
from workers.stack.lanes import FROZEN, LaneHyper, LaneState
from workers.stack.optimizers import adadelta, adagrad, adam, rmsprop, sgd


class Update:
    """One optimizer update of every lane, in place. Holds no lane state of its own.

    It computes the ``techniques`` it is made with and no others (see `workers.stack.lanes`).
    """

    def __init__(
        self,
        model: FlatModel,
        optimizer: str,
        task: str,
        techniques: frozenset[str],
        *,
        micro_batches: int = 1,
        mixed_precision: bool = False,
    ) -> None:
        self.optimizer = optimizer
        self.techniques = techniques
        self.gradient = Gradient(model, task, techniques, micro_batches=micro_batches, mixed_precision=mixed_precision)
        self.penalized = model.penalty_mask()
        self.units = model.units()
        self.body = model.body_mask()

    def __call__(
        self, state: LaneState, hyper: LaneHyper, lr: Tensor, bias: Tensor, hold: Tensor, keys: Tensor, x: Tensor, y: Tensor
    ) -> Tensor:
        """Train every lane on its own batch ``x (k, b, ...)``, ``y (k, b)``.

        Args:
            state, hyper: Of k lanes; the state is changed in place.
            lr: (k,) learning rates of this update.
            bias: (2, k) corrections of Adam's moments (see `bias_corrections`).
            hold: (k,) shares of the average that this update keeps, where there is averaging.
            keys: (k, L + len(NOISES)) int32 (see `update_keys`).
            x, y: The batches.

        Returns:
            (k,) losses in front of the update.
        """
        gradient, (losses, stats) = self.gradient(state, hyper, keys, x, y)
        with torch.no_grad():
            state.stats.copy_(stats)
            state.updates.add_(1)
            self.apply(gradient, state, hyper, lr, bias)
            if "averaging" in self.techniques:
                _average(state.mean_weights[0], state.weights, hold)
                _average(state.mean_stats[0], state.stats, hold)
        return losses

    def apply(self, gradient: Tensor, state: LaneState, hyper: LaneHyper, lr: Tensor, bias: Tensor) -> None:
        """The optimizer's step along ``gradient`` (k, P), which is changed, and all that belongs to it."""
        frozen = (hyper.frozen[:, None] * self.body) > 0 if FROZEN in self.techniques else None
        before = state.weights if frozen is None else state.weights.clone()
        self._shape(gradient, state.weights, hyper, frozen)
        if "weight_decay" in self.techniques:
            _decay(state.weights, lr * hyper.weight_decay, self.penalized)
        self._step(state, gradient, hyper, lr[:, None], bias)
        if "proximal_l1" in self.techniques:
            _soft_threshold(state.weights, lr * hyper.proximal_l1, self.penalized)
        if "max_norm" in self.techniques:
            _limit_units(state.weights, hyper.max_norm, self.units)
        if frozen is not None:
            state.weights.copy_(torch.where(frozen, before, state.weights))

    def _shape(self, gradient: Tensor, weights: Tensor, hyper: LaneHyper, frozen: Tensor | None) -> None:
        """Add the gradients of λ₁·Σ|w| (at 0 it is 0) and λ₂/2·Σw², then clip by value, then by norm.

        Where weights are ``frozen`` (k, P) there is no gradient, also for its norm.
        """
        if "l1" in self.techniques:
            gradient.addcmul_(weights.sign().mul_(self.penalized), hyper.l1[:, None])
        if "l2" in self.techniques:
            gradient.add_(hyper.l2[:, None] * weights * self.penalized)
        if frozen is not None:
            gradient.masked_fill_(frozen, 0.0)
        if "clip_value" in self.techniques:
            limit = hyper.clip_value[:, None]
            gradient.clamp_(-limit, limit)
        if "clip_norm" in self.techniques:
            _clip_norm(gradient, hyper.clip_norm)

    def _step(self, state: LaneState, gradient: Tensor, hyper: LaneHyper, lr: Tensor, bias: Tensor) -> None:
        weights, moments = state.weights, state.moments
        match self.optimizer:
            case "sgd":
                nesterov = hyper.nesterov[:, None] if "nesterov" in self.techniques else None
                sgd(weights, gradient, moments, lr, hyper.momentum[:, None], nesterov)
            case "rmsprop":
                rmsprop(weights, gradient, moments, lr)
            case "adagrad":
                adagrad(weights, gradient, moments, lr)
            case "adadelta":
                adadelta(weights, gradient, moments, lr)
            case _:
                adam(weights, gradient, moments, lr, bias, hyper.rest1[:, None], hyper.rest2[:, None])


def _average(mean: Tensor, present: Tensor, hold: Tensor) -> None:
    """h·mean + (1 − h)·present, in place; exactly ``present`` where h is 0."""
    mean.mul_(hold[:, None]).add_((1.0 - hold)[:, None] * present)


def _clip_norm(gradient: Tensor, limit: Tensor) -> None:
    """Scale each lane's gradient to at most ``limit`` (k,) in norm, as `torch.nn.utils.clip_grad_norm_` does."""
    norm = gradient.norm(dim=1)
    gradient.mul_((limit / (norm + 1e-6)).clamp(max=1.0)[:, None])


def _decay(weights: Tensor, rate: Tensor, penalized: Tensor) -> None:
    """Decoupled decay w ← w·(1 − lr·λ), never past zero, so that a large λ shrinks to nothing, not to chaos."""
    weights.mul_(1.0 - rate.clamp(max=1.0)[:, None] * penalized)


def _soft_threshold(weights: Tensor, rate: Tensor, penalized: Tensor) -> None:
    """The proximal step of λ·‖w‖₁, w ← sign(w)·max(|w| − lr·λ, 0): a weight within the threshold becomes exactly 0."""
    threshold = rate[:, None] * penalized
    weights.sub_(torch.clamp(weights, -threshold, threshold))


def _limit_units(weights: Tensor, limit: Tensor, units: Sequence[tuple[int, int, int]]) -> None:
    """Scale every unit's incoming weights to at most ``limit`` (k,) in norm, as `torch.renorm` does."""
    for start, end, count in units:
        incoming = weights[:, start:end].view(weights.shape[0], count, -1)
        norm = incoming.norm(dim=2, keepdim=True)
        incoming.mul_((limit[:, None, None] / (norm + 1e-7)).clamp(max=1.0))
