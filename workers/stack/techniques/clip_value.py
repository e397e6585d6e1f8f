"""Clipping of every element of the gradient, as `torch.nn.utils.clip_grad_value_`."""

from __future__ import annotations

import math

from workers.stack.techniques.base import Step, Technique


class ClipValue(Technique):
    """After the penalties, before `clip_norm`."""

    name = "clip_value"
    order = 30
    off = math.inf

    def on_gradient(self, step: Step) -> None:
        """Clamp to ±limit."""
        limit = step.column("clip_value")
        step.gradient.clamp_(-limit, limit)


TECHNIQUES = (ClipValue(),)
