"""Soft-thresholding, the proximal step of λ·‖w‖₁: reaches exact zeros (Parikh and Boyd, "Proximal algorithms", 2014)."""

from __future__ import annotations

import torch

from workers.stack.techniques.base import Step, Technique


class ProximalL1(Technique):
    """After the optimizer's step, on weights only; makes weights exactly zero."""

    name = "proximal_l1"
    order = 10
    makes_zeros = True

    def after_step(self, step: Step) -> None:
        """w ← sign(w)·max(|w| − lr·λ, 0)."""
        threshold = step.rates * step.column("proximal_l1") * step.penalized
        step.weights.sub_(torch.clamp(step.weights, -threshold, threshold))


TECHNIQUES = (ProximalL1(),)
