"""The Huber loss: errors beyond δ count linearly (Huber, "Robust estimation of a location parameter", 1964)."""

from __future__ import annotations

import torch
from torch import Tensor

from workers.stack.techniques.base import Columns, Technique, per_lane


class HuberDelta(Technique):
    """The squared error up to δ, and its tangent beyond."""

    name = "huber_delta"
    order = 9
    off = 1e15
    """No error is beyond; its square is finite in single precision."""

    def on_losses(self, losses: Tensor, out: Tensor, labels: Tensor, columns: Columns, on: frozenset[str]) -> Tensor:
        """r² where |r| ≤ δ, else δ·(2|r| − δ)."""
        delta = per_lane(columns[self.name], losses)
        error = (out.squeeze(-1) - labels).abs()
        return torch.where(error <= delta, losses, delta * (2.0 * error - delta))


TECHNIQUES = (HuberDelta(),)
