"""Decoupled weight decay (Loshchilov and Hutter, ICLR 2019), never past zero: a large λ shrinks to nothing, not to chaos."""

from __future__ import annotations

from workers.stack.techniques.base import Step, Technique


class WeightDecay(Technique):
    """Before the optimizer's step, as torch.optim.AdamW has it, on weights only."""

    name = "weight_decay"

    def before_step(self, step: Step) -> None:
        """w ← w·max(0, 1 − lr·λ)."""
        rate = (step.rates * step.column("weight_decay")).clamp(max=1.0)
        step.weights.mul_(1.0 - rate * step.penalized)


TECHNIQUES = (WeightDecay(),)
