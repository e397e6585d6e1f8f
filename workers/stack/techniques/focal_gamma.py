"""The focal loss: examples that the network is sure of count less.

Reference: Lin et al., "Focal loss for dense object detection" (ICCV 2017).
"""

from __future__ import annotations

from torch import Tensor

from workers.plain.update import SUREST
from workers.stack.techniques.base import Columns, Technique, per_lane


class FocalGamma(Technique):
    """Before `class_weights` and `label_smoothing`: the loss itself, in which those weigh and spread."""

    name = "focal_gamma"
    order = 9

    def on_losses(self, losses: Tensor, out: Tensor, labels: Tensor, columns: Columns, on: frozenset[str]) -> Tensor:
        """(1 − p)^γ times each loss −log p."""
        unsure = (-(-losses).expm1()).clamp(min=SUREST)
        return unsure.pow(per_lane(columns[self.name], losses)) * losses


TECHNIQUES = (FocalGamma(),)
