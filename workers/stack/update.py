"""The update: forward, backward, penalties, clipping, decay and optimizer of all lanes as one function.

Shapes: `k` lanes, `b` examples, `P` parameters, `Q` statistics, `L` dropout layers. Lanes never mix: the gradient of the
sum of their losses is, row by row, the gradient of each loss.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import grad

from workers.hashing import combine
from workers.stack.augmentation import AUGMENTATIONS, augmented
from workers.stack.flat import FlatModel
from workers.stack.lanes import LaneHyper, LaneState
from workers.stack.noise import (
    NOISES,
    key_of,
    mixed,
    mixup_shares,
    partner,
    with_gaussian_noise,
    with_masked_features,
)
from workers.stack.optimizers import adadelta, adagrad, adam, rmsprop, sgd
from workers.stack.precision import mixed_precision

_AUGMENTATION = 0xA06
"""Makes a key of its own from that of the first dropout layer."""


def example_loss(task: str) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss of predictions (k, b, outputs) against targets (k, b), per example: (k, b)."""
    return _cross_entropy if task == "classification" else _squared_error


def _cross_entropy(out: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(out.transpose(1, 2), target, reduction="none")


def _squared_error(out: Tensor, target: Tensor) -> Tensor:
    return (out.squeeze(-1) - target).square()


def update_keys(seeds: Tensor, updates: Tensor, layers: int) -> Tensor:
    """The keys of every lane's dropout masks and of its noises, for each update and layer or noise.

    Args:
        seeds: (k,) int32, the lanes' own.
        updates: (u, k) int32, how many updates each lane has behind it.
        layers: L, the number of dropout layers.

    Returns:
        (u, k, L + len(NOISES)) int32.
    """
    noises = range(-len(NOISES), 0)
    layer = torch.tensor([*range(1, layers + 1), *noises], dtype=torch.int32, device=seeds.device)
    return combine(combine(seeds, updates)[:, :, None], layer)


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
        self.model = model
        self.optimizer = optimizer
        self.techniques = techniques
        self.micro_batches = micro_batches
        self.mixed_precision = mixed_precision
        self.penalized = model.penalty_mask()
        self.units = model.units()
        self.loss = example_loss(task)

    def __call__(
        self, state: LaneState, hyper: LaneHyper, lr: Tensor, hold: Tensor, keys: Tensor, x: Tensor, y: Tensor
    ) -> Tensor:
        """Train every lane on its own batch ``x (k, b, ...)``, ``y (k, b)``.

        Args:
            state, hyper: Of k lanes; the state is changed in place.
            lr: (k,) learning rates of this update.
            hold: (k,) shares of the average that this update keeps, where there is averaging.
            keys: (k, L + len(NOISES)) int32 (see `update_keys`).
            x, y: The batches.

        Returns:
            (k,) losses in front of the update.
        """
        gradient, (losses, stats) = self._accumulated(state, hyper, keys, x, y)
        with torch.no_grad():
            state.stats.copy_(stats)
            state.updates.add_(1)
            self.apply(gradient, state, hyper, lr)
            if "averaging" in self.techniques:
                _average(state.mean_weights[0], state.weights, hold)
                _average(state.mean_stats[0], state.stats, hold)
        return losses

    def apply(self, gradient: Tensor, state: LaneState, hyper: LaneHyper, lr: Tensor) -> None:
        """The optimizer's step along ``gradient`` (k, P), which is changed, and all that belongs to it."""
        self._shape(gradient, state.weights, hyper)
        if "weight_decay" in self.techniques:
            _decay(state.weights, lr * hyper.weight_decay, self.penalized)
        self._step(state, gradient, hyper, lr[:, None])
        if "proximal_l1" in self.techniques:
            _soft_threshold(state.weights, lr * hyper.proximal_l1, self.penalized)
        if "max_norm" in self.techniques:
            _limit_units(state.weights, hyper.max_norm, self.units)

    def _accumulated(
        self, state: LaneState, hyper: LaneHyper, keys: Tensor, x: Tensor, y: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The gradient of the batch, from parts of it that are in memory one after the other."""
        parts = min(self.micro_batches, x.shape[1])
        if parts == 1:
            return self._gradient(state, hyper, keys, x, y)
        gradient, losses = torch.zeros_like(state.weights), torch.zeros_like(hyper.l1)
        for number, (own_x, own_y) in enumerate(zip(x.tensor_split(parts, 1), y.tensor_split(parts, 1), strict=True)):
            share = own_x.shape[1] / x.shape[1]
            own, (loss, stats) = self._gradient(state, hyper, combine(keys, number), own_x, own_y)
            gradient.add_(own, alpha=share)
            losses.add_(loss, alpha=share)
            state = replace(state, stats=stats)
        return gradient, (losses, state.stats)

    def _gradient(
        self, state: LaneState, hyper: LaneHyper, keys: Tensor, x: Tensor, y: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        if len(x) > 1 and not self.model.stacks:
            return self._one_by_one(state, hyper, keys, x, y)
        x = self._augmented(x, hyper, keys)
        x, shares = self._noisy(x, hyper, keys)

        def total(weights: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
            with mixed_precision(x.device, self.mixed_precision):
                out, stats = self.model.forward(weights, state.stats, hyper.dropout, keys, x)
            losses = self._losses(out.float(), y, hyper, shares).mean(1)
            return losses.sum(), (losses, stats)

        if len(x) == 1 and not torch.compiler.is_compiling():
            # Ordinary autograd, whose convolutions copy nothing; `grad` is for `vmap` and for the compiler.
            weights = state.weights.detach().requires_grad_()
            loss, (losses, stats) = total(weights)
            (gradient,) = torch.autograd.grad(loss, weights)
            return gradient, (losses.detach(), stats.detach())
        gradient, aux = grad(total, has_aux=True)(state.weights)
        return gradient, aux

    def _augmented(self, x: Tensor, hyper: LaneHyper, keys: Tensor) -> Tensor:
        """The images as this update shows them; anything else as it is."""
        strengths = dict(zip(AUGMENTATIONS, hyper.augmentation.unbind(1), strict=True))
        used = {name: strength for name, strength in strengths.items() if name in self.techniques}
        return augmented(x, used, combine(keys[:, 0], _AUGMENTATION)) if used else x

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

    def _noisy(self, x: Tensor, hyper: LaneHyper, keys: Tensor) -> tuple[Tensor, Tensor | None]:
        """The batch with all noise on it, and under mixup the share of each pair's first example (k,)."""
        shares = None
        if "mixup" in self.techniques:
            shares = mixup_shares(hyper.mixup, key_of("mixup", keys))
            x = mixed(x, shares)
        if "input_noise" in self.techniques:
            x = with_gaussian_noise(x, hyper.input_noise, key_of("input_noise", keys))
        if "feature_masking" in self.techniques:
            x = with_masked_features(x, hyper.feature_masking, key_of("feature_masking", keys))
        return x, shares

    def _losses(self, out: Tensor, y: Tensor, hyper: LaneHyper, shares: Tensor | None) -> Tensor:
        """(k, b) losses of the labels, smoothed and mixed like their examples."""
        if shares is None:
            return self._loss(out, y, hyper)
        if y.is_floating_point():
            return self._loss(out, mixed(y, shares), hyper)
        share = shares[:, None]
        return share * self._loss(out, y, hyper) + (1.0 - share) * self._loss(out, partner(y), hyper)

    def _loss(self, out: Tensor, y: Tensor, hyper: LaneHyper) -> Tensor:
        loss = self.loss(out, y)
        if "label_smoothing" in self.techniques:
            spread = hyper.label_smoothing[:, None]
            loss = (1.0 - spread) * loss - spread * out.log_softmax(2).mean(2)
        return loss

    def _shape(self, gradient: Tensor, weights: Tensor, hyper: LaneHyper) -> None:
        """Add the gradients of λ₁·Σ|w| (at 0 it is 0) and λ₂/2·Σw², then clip by value, then by norm."""
        if "l1" in self.techniques:
            gradient.add_(hyper.l1[:, None] * weights.sign() * self.penalized)
        if "l2" in self.techniques:
            gradient.add_(hyper.l2[:, None] * weights * self.penalized)
        if "clip_value" in self.techniques:
            limit = hyper.clip_value[:, None]
            gradient.clamp_(-limit, limit)
        if "clip_norm" in self.techniques:
            _clip_norm(gradient, hyper.clip_norm)

    def _step(self, state: LaneState, gradient: Tensor, hyper: LaneHyper, lr: Tensor) -> None:
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
                updates = state.updates[:, None].to(torch.float32)
                adam(weights, gradient, moments, lr, updates, hyper.rest1[:, None], hyper.rest2[:, None])


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
