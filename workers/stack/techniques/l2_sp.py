"""L2-SP, the penalty λ/2·‖w − w₀‖² towards the weights that fine-tuning begins with.

Reference: Li, Grandvalet and Davoine, "Explicit inductive bias for transfer learning" (ICML 2018).
"""

from __future__ import annotations

from workers.stack.techniques.base import Step, Technique


class L2SP(Technique):
    """Joins the gradient, on weights before the last layer."""

    name = "l2_sp"
    order = 12

    def on_gradient(self, step: Step) -> None:
        """Add λ·(w − w₀); without anything to begin with there is no w₀."""
        if step.anchor is None:
            return
        step.gradient.add_(step.column("l2_sp") * (step.weights - step.anchor) * step.penalized * step.body)


TECHNIQUES = (L2SP(),)
