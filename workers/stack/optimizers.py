"""Update rules on whole matrices: one row per lane, every hyperparameter a column.

Each rule is equal to its namesake of `torch.optim` applied to every lane alone, with torch's defaults where a constant
has no setting (tests/unit/stack/test_optimizers.py). They work in place. Decoupled weight decay is applied by the caller,
for every rule alike, so `adam` and `adamw` are one rule. Shapes: `k` lanes, `P` parameters; a lane's scalars are (k, 1).
References: Kingma and Ba, "Adam" (2015); Tieleman and Hinton, "RMSProp" (2012); Duchi et al., "Adagrad" (2011);
Zeiler, "Adadelta" (2012); Sutskever et al. (2013) for Nesterov's momentum.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from workers.stack.techniques import Columns

ADAM_EPS = 1e-8
RMSPROP_ALPHA, RMSPROP_EPS = 0.99, 1e-8
ADAGRAD_EPS = 1e-10
ADADELTA_RHO, ADADELTA_EPS = 0.9, 1e-6


def sgd(
    weights: Tensor, grad: Tensor, moments: Sequence[Tensor], lr: Tensor, momentum: Tensor, nesterov: Tensor | None = None
) -> None:
    """Momentum SGD, v ← μ·v + g, w ← w − lr·v, with v = g at first (as torch starts it, since v is zero).

    Where ``nesterov`` (k, 1) is 1 rather than 0, w ← w − lr·(g + μ·v).
    """
    (velocity,) = moments
    velocity.mul_(momentum).add_(grad)
    step = velocity if nesterov is None else torch.where(nesterov > 0, grad + momentum * velocity, velocity)
    weights.sub_(lr * step)


def adam(
    weights: Tensor, grad: Tensor, moments: Sequence[Tensor], lr: Tensor, bias: Tensor, rest1: Tensor, rest2: Tensor
) -> None:
    """Adam's step.

    Args:
        weights, grad: (k, P).
        moments: First and second moment, (k, P) each.
        lr: (k, 1).
        bias: (2, k) of this update (see `bias_corrections`).
        rest1, rest2: (k, 1) the complements 1 − β₁ and 1 − β₂.
    """
    first, second = moments
    first.lerp_(grad, rest1)
    second.lerp_(grad.square(), rest2)
    step, scale = lr / bias[0, :, None], bias[1, :, None].rsqrt()
    length = second.sqrt().mul_(scale).add_(ADAM_EPS)
    weights.sub_((step * first).div_(length))


def bias_corrections(rest1: Tensor, rest2: Tensor, updates: Tensor) -> Tensor:
    """What the moments of Adam have of their sum of weights: 1 − βᵗ from 1 − β, without the cancellation.

    A compiled update takes these from outside, for inside it would compute them for every weight anew.

    Args:
        rest1, rest2: (k,) the complements 1 − β₁ and 1 − β₂.
        updates: (u, k) t, the number of updates of each lane, the present one included.

    Returns:
        (u, 2, k).
    """
    rests = torch.stack((rest1, rest2))
    return -torch.expm1(updates[:, None] * torch.log1p(-rests))


def rmsprop(weights: Tensor, grad: Tensor, moments: Sequence[Tensor], lr: Tensor) -> None:
    """w ← w − lr·g / (√v + ε), v the moving average of g²."""
    (square,) = moments
    square.mul_(RMSPROP_ALPHA).addcmul_(grad, grad, value=1.0 - RMSPROP_ALPHA)
    weights.sub_(lr * grad / (square.sqrt() + RMSPROP_EPS))


def adagrad(weights: Tensor, grad: Tensor, moments: Sequence[Tensor], lr: Tensor) -> None:
    """w ← w − lr·g / (√s + ε), s the sum of g²."""
    (total,) = moments
    total.addcmul_(grad, grad)
    weights.sub_(lr * grad / (total.sqrt() + ADAGRAD_EPS))


def adadelta(weights: Tensor, grad: Tensor, moments: Sequence[Tensor], lr: Tensor) -> None:
    """w ← w − lr·δ, δ = g·√(d + ε) / √(v + ε), with v and d the moving averages of g² and δ²."""
    square, change = moments
    square.mul_(ADADELTA_RHO).addcmul_(grad, grad, value=1.0 - ADADELTA_RHO)
    delta = grad * (change + ADADELTA_EPS).sqrt() / (square + ADADELTA_EPS).sqrt()
    change.mul_(ADADELTA_RHO).addcmul_(delta, delta, value=1.0 - ADADELTA_RHO)
    weights.sub_(lr * delta)


def _sgd(weights: Tensor, grad: Tensor, moments: Sequence[Tensor], lr: Tensor, bias: Tensor, columns: Columns) -> None:
    sgd(weights, grad, moments, lr, columns["momentum"][:, None], columns["nesterov"][:, None])


def _adam(weights: Tensor, grad: Tensor, moments: Sequence[Tensor], lr: Tensor, bias: Tensor, columns: Columns) -> None:
    adam(weights, grad, moments, lr, bias, columns["rest1"][:, None], columns["rest2"][:, None])


StepRule = Callable[[Tensor, Tensor, Sequence[Tensor], Tensor, Tensor, Columns], None]
"""Of weights, gradient, moments (k, P), rates (k, 1), corrections (2, k) and columns."""


@dataclass(frozen=True)
class Rule:
    """An update rule, and how many matrices of state (k, P) it keeps beside the weights."""

    moments: int
    step: StepRule


RULES: Mapping[str, Rule] = {
    "sgd": Rule(1, _sgd),
    "adam": Rule(2, _adam),
    "adamw": Rule(2, _adam),
    "rmsprop": Rule(1, lambda w, g, moments, lr, bias, columns: rmsprop(w, g, moments, lr)),
    "adagrad": Rule(1, lambda w, g, moments, lr, bias, columns: adagrad(w, g, moments, lr)),
    "adadelta": Rule(2, lambda w, g, moments, lr, bias, columns: adadelta(w, g, moments, lr)),
}
"""By the words of the setting `optimizer`."""
