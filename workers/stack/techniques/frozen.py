"""Fine-tuning of the last layer only: all other weights and the running statistics stay as they are."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from service.spec import Domain, Recipe
from service.spec.domain import possible_values
from workers.stack.techniques.base import Columns, Step, Technique

FROZEN = "frozen"


class Frozen(Technique):
    """``frozen`` is 1.0 in lanes with `fine_tune` = head. Penalties come before it, clipping after it."""

    name = FROZEN
    order = 20

    def is_on(self, recipe: Recipe) -> bool:
        """Whether only the head is trained."""
        return recipe.word("fine_tune") == "head"

    def can_be_on(self, domains: Mapping[str, Domain]) -> bool:
        """Whether `fine_tune` may be head."""
        return "fine_tune" in domains and "head" in (possible_values(domains["fine_tune"]) or ())

    def load(self, columns: Columns, lane: int, recipe: Recipe, balance: Tensor) -> None:
        """1.0 for head."""
        columns[FROZEN][lane] = float(self.is_on(recipe))

    def on_gradient(self, step: Step) -> None:
        """Leave none where weights are frozen, and keep these."""
        step.saved["frozen"] = (step.column(FROZEN) * step.body) > 0
        step.saved["frozen weights"] = step.weights.clone()
        step.gradient.masked_fill_(step.saved["frozen"], 0.0)

    def after_step(self, step: Step) -> None:
        """Put the kept weights back, whatever decay and constraints have done to them."""
        step.weights.copy_(torch.where(step.saved["frozen"], step.saved["frozen weights"], step.weights))


TECHNIQUES = (Frozen(),)
