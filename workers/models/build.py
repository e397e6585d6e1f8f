"""From a recipe to a module: its shape (all that changes the graph) and its initial weights (a lane's own)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from service.spec import Recipe
from workers.models.layers import WeightNormLinear
from workers.models.mlp import Mlp


@dataclass(frozen=True)
class ModelShape:
    """What decides a model's graph; equal shapes can be stacked."""

    inputs: int
    outputs: int
    widths: tuple[int, ...]
    activation: str
    normalization: str
    groups: int

    @classmethod
    def of(cls, recipe: Recipe, inputs: int, outputs: int) -> ModelShape:
        """The shape a recipe asks for, given the data's numbers of features and outputs."""
        normalization = recipe.word("normalization")
        return cls(
            inputs=inputs,
            outputs=outputs,
            widths=recipe.widths,
            activation=recipe.word("activation"),
            normalization=normalization,
            groups=recipe.integer("normalization_groups") if normalization == "group" else 1,
        )

    @property
    def dropouts(self) -> int:
        """Number of dropout layers: on the input, and behind every hidden layer."""
        return 1 + len(self.widths)


def build_model(shape: ModelShape) -> nn.Module:
    """An ordinary module of this shape, with torch's default weights."""
    return Mlp(
        shape.inputs,
        shape.outputs,
        shape.widths,
        activation=shape.activation,
        normalization=shape.normalization,
        groups=shape.groups,
    )


@torch.no_grad()
def initialize(model: nn.Module, recipe: Recipe, seed: int) -> None:
    """Overwrite the weights of ``model`` with fresh ones as ``recipe`` asks, drawn from ``seed`` alone.

    Linear weights: He (fan in, gain √2) or Glorot; biases zero; normalization gains one and statistics reset.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, WeightNormLinear):
            weight = torch.empty(module.weight_v.shape)
            _draw(weight, recipe, generator)
            module.adopt(weight)
            module.bias.zero_()
        elif isinstance(module, nn.Linear):
            _draw(module.weight, recipe, generator)
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, nn.BatchNorm1d | nn.LayerNorm | nn.GroupNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
            if isinstance(module, nn.BatchNorm1d) and module.running_mean is not None and module.running_var is not None:
                module.running_mean.zero_()
                module.running_var.fill_(1.0)


def _draw(weight: Tensor, recipe: Recipe, generator: torch.Generator) -> None:
    match recipe.word("init"), recipe.word("init_distribution"):
        case "he", "uniform":
            nn.init.kaiming_uniform_(weight, nonlinearity="relu", generator=generator)
        case "he", _:
            nn.init.kaiming_normal_(weight, nonlinearity="relu", generator=generator)
        case "xavier", "uniform":
            nn.init.xavier_uniform_(weight, generator=generator)
        case _:
            nn.init.xavier_normal_(weight, generator=generator)
