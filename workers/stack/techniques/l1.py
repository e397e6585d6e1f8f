"""The L1 penalty λ·‖w‖₁: its subgradient λ·sign(w), which is 0 at 0. Equal to autograd's of λ·Σ|w| (torch's sign at 0)."""

from __future__ import annotations

from workers.stack.techniques.base import Step, Technique


class L1(Technique):
    """Joins the gradient, on weights only."""

    name = "l1"
    order = 10

    def on_gradient(self, step: Step) -> None:
        """Add λ·sign(w)."""
        step.gradient.addcmul_(step.weights.sign().mul_(step.penalized), step.column("l1"))


TECHNIQUES = (L1(),)
