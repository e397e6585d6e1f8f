"""Snapshots: the weights at the ends of cycles of the learning rate are kept, and predict together with the present ones.

No part of an update: a block has them taken between two epochs, and `workers.stack.snapshots` holds them.
"""

from __future__ import annotations

from torch import Tensor

from service.spec import Recipe
from workers.stack.techniques.base import Columns, Technique


class Snapshots(Technique):
    """Has no column, and changes nothing in an update."""

    name = "snapshots"

    def blank(self, k: int, classes: int) -> Columns:
        """Nothing."""
        return {}

    def load(self, columns: Columns, lane: int, recipe: Recipe, balance: Tensor) -> None:
        """Nothing."""


TECHNIQUES = (Snapshots(),)
