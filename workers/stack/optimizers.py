"""Update rules on whole matrices: one row per lane, every hyperparameter a column.

Each rule is equal to its namesake of `torch.optim` applied to every lane alone (see tests/unit/stack). They work in
place. Shapes: `k` lanes, `P` parameters; scalars of a lane come as (k, 1).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

ADAM_BETA1, ADAM_BETA2, ADAM_EPS = 0.9, 0.999, 1e-8

MOMENTS: Mapping[str, int] = {"sgd": 1, "adamw": 2}
"""Matrices of optimizer state, each (k, P), that a rule keeps beside the weights."""


def sgd(weights: Tensor, grad: Tensor, moments: Tensor, lr: Tensor, momentum: Tensor) -> None:
    """Momentum SGD, v ← μ·v + g, w ← w − lr·v, with v = g at first (as torch starts it, since v is zero)."""
    (velocity,) = moments
    velocity.mul_(momentum).add_(grad)
    weights.sub_(lr * velocity)


def adamw(weights: Tensor, grad: Tensor, moments: Tensor, lr: Tensor, updates: Tensor) -> None:
    """Adam's step; the decoupled decay of AdamW is applied by the caller, for every rule alike.

    Args:
        weights, grad: (k, P).
        moments: (2, k, P) first and second moment.
        lr: (k, 1).
        updates: (k, 1) number of updates of the lane, this one included, for the bias correction.
    """
    first, second = moments
    first.lerp_(grad, 1.0 - ADAM_BETA1)
    second.mul_(ADAM_BETA2).addcmul_(grad, grad, value=1.0 - ADAM_BETA2)
    step = lr / (1.0 - torch.pow(ADAM_BETA1, updates))
    scale = torch.sqrt(1.0 - torch.pow(ADAM_BETA2, updates))
    weights.sub_(step * first / (second.sqrt() / scale + ADAM_EPS))
