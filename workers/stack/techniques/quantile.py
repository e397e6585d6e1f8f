"""The pinball loss, whose minimum is a quantile of the target (Koenker and Bassett, "Regression quantiles", 1978).

No setting of a space, but what the study predicts: all lanes of its stacks have the same level.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from service.spec import Domain, Recipe
from workers.plain.update import pinball
from workers.stack.techniques.base import Columns, Technique, per_lane


class Quantile(Technique):
    """In place of the squared error."""

    name = "quantile"
    order = 8

    def is_on(self, recipe: Recipe) -> bool:
        """Whether the recipe predicts a quantile."""
        return self.name in recipe

    def can_be_on(self, domains: Mapping[str, Domain]) -> bool:
        """No: it is in no space, and stacks learn of it as they get their first lanes."""
        return False

    def load(self, columns: Columns, lane: int, recipe: Recipe, balance: Tensor) -> None:
        """Write the level."""
        columns[self.name][lane] = recipe.number(self.name) if self.name in recipe else self.off

    def on_losses(self, losses: Tensor, out: Tensor, labels: Tensor, columns: Columns, on: frozenset[str]) -> Tensor:
        """q·r where the residual r = label − out is positive, else (q − 1)·r."""
        level = per_lane(columns[self.name], losses)
        return torch.where(level > 0, pinball(out.squeeze(-1) - labels, level), losses)


TECHNIQUES = (Quantile(),)
