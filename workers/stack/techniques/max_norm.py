"""The largest norm of a unit's incoming weights, as `torch.renorm` (Srivastava et al., "Dropout", JMLR 15, 2014)."""

from __future__ import annotations

import math

from workers.stack.techniques.base import Step, Technique


class MaxNorm(Technique):
    """After the optimizer's step and soft-thresholding."""

    name = "max_norm"
    order = 11
    off = math.inf

    def after_step(self, step: Step) -> None:
        """Scale every unit whose norm is larger."""
        for start, end, count in step.units:
            incoming = step.weights[:, start:end].view(len(step.weights), count, -1)
            norm = incoming.norm(dim=2, keepdim=True)
            incoming.mul_((step.columns["max_norm"][:, None, None] / (norm + 1e-7)).clamp(max=1.0))


TECHNIQUES = (MaxNorm(),)
