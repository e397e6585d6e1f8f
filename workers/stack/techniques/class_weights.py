"""Weights of the classes in the loss, which make up for rare ones (King and Zeng, Political Analysis 9, 2001)."""

from __future__ import annotations

import torch
from torch import Tensor

from service.spec import Recipe
from workers.stack.techniques.base import Columns, Technique


def weighed_classes(task: str, outputs: int) -> int:
    """How many classes have a weight: those of the target, or two for every label."""
    return 2 * outputs if task == "multilabel" else outputs


def of_labels(columns: Columns) -> tuple[Tensor, Tensor]:
    """(k, 1, t) each, the weights of rows without and with each of several labels."""
    without, having = columns[ClassWeights.name].chunk(2, 1)
    return without[:, None], having[:, None]


class ClassWeights(Technique):
    """``class_weights`` (k, classes), all 1 in lanes that have it off; of labels (k, 2·t), for rows without it first."""

    name = "class_weights"
    order = 10

    def blank(self, k: int, classes: int) -> Columns:
        """All classes count alike."""
        return {self.name: torch.ones(k, classes)}

    def load(self, columns: Columns, lane: int, recipe: Recipe, balance: Tensor) -> None:
        """As far towards ``balance`` as the recipe wants."""
        blend = recipe.number(self.name)
        columns[self.name][lane] = 1.0 - blend + blend * balance

    def on_losses(self, losses: Tensor, out: Tensor, labels: Tensor, columns: Columns, on: frozenset[str]) -> Tensor:
        """Each loss by the weight of its label."""
        if labels.ndim == 3:
            without, having = of_labels(columns)
            return losses * torch.where(labels > 0, having, without)
        return losses * columns[self.name].gather(1, labels)


TECHNIQUES = (ClassWeights(),)
