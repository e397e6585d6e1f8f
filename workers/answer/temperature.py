"""The temperature of a network of classes or labels: by how much its outputs are divided before they become probabilities.

It is the one for which the validation rows' labels are most likely; the predicted class stays the same. Networks are often
too sure of themselves. Reference: Guo et al., "On calibration of modern neural networks" (ICML 2017). Shapes: `r` rows,
`o` classes or labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from torch import Tensor

from service.result import Temperature

_RANGE = (math.log(0.1), math.log(10.0))
_LEAST_ROWS = 100
"""Of fewer rows the temperature would be a matter of chance, and is 1."""

Rows = tuple[Tensor, Tensor]
"""Outputs (r, o) and labels (r,), or (r, o) of several labels."""


def calibrated(valid: Sequence[Rows], test: Rows) -> Temperature:
    """The temperature of the ``valid`` rows, and the losses before and after on them and on the ``test`` rows."""
    value = temperature(valid)
    return Temperature(
        temperature=value,
        valid_before=_loss(valid, 1.0),
        valid_after=_loss(valid, value),
        test_before=_loss([test], 1.0),
        test_after=_loss([test], value),
    )


def temperature(rows: Sequence[Rows]) -> float:
    """The temperature with the smallest loss; 1 where there are few rows, or none is better."""
    if sum(len(labels) for _, labels in rows) < _LEAST_ROWS:
        return 1.0
    found = minimize_scalar(lambda log: _loss(rows, math.exp(log)), bounds=_RANGE, method="bounded")
    value = math.exp(float(found.x))
    return value if _loss(rows, value) < _loss(rows, 1.0) else 1.0


def _loss(rows: Sequence[Rows], value: float) -> float:
    """The mean cross-entropy at a temperature, of several labels also their mean."""
    losses = [_entropy(out.double() / value, labels) for out, labels in rows]
    return float(sum(losses)) / sum(len(labels) for _, labels in rows)


def _entropy(out: Tensor, labels: Tensor) -> Tensor:
    if labels.ndim == 1:
        return F.cross_entropy(out, labels, reduction="sum")
    return F.binary_cross_entropy_with_logits(out, labels.double(), reduction="sum") / labels.shape[1]
