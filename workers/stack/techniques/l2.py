"""The L2 penalty λ/2·‖w‖²: its gradient λ·w, as torch.optim's coupled `weight_decay`."""

from __future__ import annotations

from workers.stack.techniques.base import Step, Technique


class L2(Technique):
    """Joins the gradient, on weights only."""

    name = "l2"
    order = 11

    def on_gradient(self, step: Step) -> None:
        """Add λ·w."""
        step.gradient.add_(step.column("l2") * step.weights * step.penalized)


TECHNIQUES = (L2(),)
