"""Clipping of the gradient's global norm, as `torch.nn.utils.clip_grad_norm_`.

Reference: Pascanu et al., "On the difficulty of training recurrent neural networks" (ICML 2013).
"""

from __future__ import annotations

import math

from workers.stack.techniques.base import Step, Technique


class ClipNorm(Technique):
    """After the penalties and `clip_value`."""

    name = "clip_norm"
    order = 31
    off = math.inf

    def on_gradient(self, step: Step) -> None:
        """Scale each lane's gradient to at most the limit in norm."""
        norm = step.gradient.norm(dim=1)
        step.gradient.mul_((step.columns["clip_norm"] / (norm + 1e-6)).clamp(max=1.0)[:, None])


TECHNIQUES = (ClipNorm(),)
