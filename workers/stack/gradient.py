"""The gradient: forward and backward of all lanes on their batches, with augmentation, noise and the loss of mixed labels.

Shapes: `k` lanes, `b` examples, `P` parameters, `Q` statistics, `L` dropout layers. Lanes never mix: the gradient of the
sum of their losses is, row by row, the gradient of each loss.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import grad

from workers.stack.augmentation import AUGMENTATIONS, augmented, cutmixed
from workers.stack.flat import FlatModel
from workers.stack.hashing import combine
from workers.stack.lanes import FROZEN, LaneHyper, LaneState
from workers.stack.noise import (
    NOISES,
    either,
    key_of,
    mixed,
    mixup_shares,
    partner,
    with_gaussian_noise,
    with_masked_features,
)
from workers.stack.precision import mixed_precision

_AUGMENTATION = 0xA06
"""Makes a key of its own from that of the first dropout layer."""
_PLACE = 0x9C7
"""And this one from that of cutmix."""


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


class Gradient:
    """Of the loss without penalties, for the ``techniques`` it is made with. Holds no lane state of its own."""

    def __init__(
        self, model: FlatModel, task: str, techniques: frozenset[str], *, micro_batches: int, mixed_precision: bool
    ) -> None:
        self.model = model
        self.techniques = techniques
        self.augmentations = [name for name in AUGMENTATIONS if name in techniques]
        self.micro_batches = micro_batches
        self.mixed_precision = mixed_precision
        self.loss = example_loss(task)

    def __call__(
        self, state: LaneState, hyper: LaneHyper, keys: Tensor, x: Tensor, y: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The gradient of a batch ``x (k, b, ...)``, ``y (k, b)``, from parts of it that are in memory one after the other.

        Returns:
            (k, P), and the losses (k,) with the running statistics (k, Q) behind this pass.
        """
        parts = min(self.micro_batches, x.shape[1])
        if parts == 1:
            return self._of_part(state, hyper, keys, x, y)
        gradient, losses = torch.zeros_like(state.weights), torch.zeros_like(hyper.l1)
        for number, (own_x, own_y) in enumerate(zip(x.tensor_split(parts, 1), y.tensor_split(parts, 1), strict=True)):
            share = own_x.shape[1] / x.shape[1]
            own, (loss, stats) = self._of_part(state, hyper, combine(keys, number), own_x, own_y)
            gradient.add_(own, alpha=share)
            losses.add_(loss, alpha=share)
            state = replace(state, stats=stats)
        return gradient, (losses, state.stats)

    def _of_part(
        self, state: LaneState, hyper: LaneHyper, keys: Tensor, x: Tensor, y: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        if len(x) > 1 and not self.model.stacks:
            return self._one_by_one(state, hyper, keys, x, y)
        x = self._augmented(x, hyper, keys)
        x, shares = self._noisy(x, hyper, keys)

        def total(weights: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
            with mixed_precision(x.device, self.mixed_precision):
                out, stats = self._forward(weights, state.stats, hyper, keys, x)
            losses = self._losses(out.float(), y, hyper, shares).mean(1)
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

    def _forward(self, weights: Tensor, stats: Tensor, hyper: LaneHyper, keys: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs (k, b, o) and statistics (k, Q); frozen lanes keep theirs, and normalize by them."""
        out, updated = self.model.forward(weights, stats, hyper.dropout, keys, x)
        if FROZEN not in self.techniques or not self.model.normalizes_batches:
            return out, updated
        with self.model.running_statistics():
            fixed, _ = self.model.forward(weights, stats, hyper.dropout, keys, x)
        frozen = hyper.frozen[:, None] > 0
        return torch.where(frozen[:, None], fixed, out), torch.where(frozen, stats, updated)

    def _augmented(self, x: Tensor, hyper: LaneHyper, keys: Tensor) -> Tensor:
        """The images as this update shows them; anything else as it is."""
        if not self.augmentations:
            return x
        strengths = {name: hyper.augmentation[:, AUGMENTATIONS.index(name)] for name in self.augmentations}
        return augmented(x, strengths, combine(keys[:, 0], _AUGMENTATION))

    def _one_by_one(
        self, state: LaneState, hyper: LaneHyper, keys: Tensor, x: Tensor, y: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The gradients of models that are faster each by itself, which also takes the memory of one lane only."""
        parts = []
        for lane in range(len(x)):
            own = torch.tensor([lane], device=x.device)
            parts.append(self._of_part(state.select(own), hyper.select(own), keys[own], x[own], y[own]))
        gradients, rest = zip(*parts, strict=True)
        losses, stats = zip(*rest, strict=True)
        return torch.cat(gradients), (torch.cat(losses), torch.cat(stats))

    def _noisy(self, x: Tensor, hyper: LaneHyper, keys: Tensor) -> tuple[Tensor, Tensor | None]:
        """The batch with all noise on it, and the share of each pair's first example (k,) where examples are mixed."""
        x, shares = self._mixed(x, hyper, keys)
        if "input_noise" in self.techniques:
            x = with_gaussian_noise(x, hyper.input_noise, key_of("input_noise", keys))
        if "feature_masking" in self.techniques:
            x = with_masked_features(x, hyper.feature_masking, key_of("feature_masking", keys))
        return x, shares

    def _mixed(self, x: Tensor, hyper: LaneHyper, keys: Tensor) -> tuple[Tensor, Tensor | None]:
        """Pairs of examples under mixup or cutmix; a lane that has both on draws one of them for every batch."""
        mixup, cutmix = ("mixup" in self.techniques), ("cutmix" in self.techniques)
        shares = mixup_shares(hyper.mixup, key_of("mixup", keys)) if mixup else None
        cut = mixup_shares(hyper.cutmix, key_of("cutmix", keys)) if cutmix else None
        if shares is not None and cut is not None:
            shares, cut = either(shares, cut, key_of("cutmix", keys))
        if shares is not None:
            x = mixed(x, shares)
        if cut is not None:
            x, cut = cutmixed(x, partner(x), cut, combine(key_of("cutmix", keys), _PLACE))
            shares = cut if shares is None else shares * cut
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
        weighted = "class_weights" in self.techniques
        if weighted:
            loss = loss * hyper.class_weights.gather(1, y)
        if "label_smoothing" in self.techniques:
            spread = hyper.label_smoothing[:, None]
            logs = out.log_softmax(2)
            others = logs * hyper.class_weights[:, None] if weighted else logs
            loss = (1.0 - spread) * loss - spread * others.mean(2)
        return loss
