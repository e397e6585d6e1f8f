"""From a recipe to a module: its shape (all that changes the graph) and its initial weights (a lane's own)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from service.spec import Recipe
from workers.models.cnn import Cnn, WeightNormConv2d
from workers.models.layers import ACTIVATION_NORMS, WeightNormLinear
from workers.models.mlp import Mlp
from workers.models.sequence import Gru, SequenceModel, StepBatchNorm


@dataclass(frozen=True)
class ModelShape:
    """What decides a model's graph; equal shapes can be stacked.

    ``inputs`` is the shape of one example: (d,) of a table, (c, h, w) of an image, (t, c) of a series. What only another
    family has stays at its default.
    """

    inputs: tuple[int, ...]
    outputs: int
    widths: tuple[int, ...]
    activation: str
    normalization: str
    groups: int
    family: str = "mlp"
    blocks: int = 1
    shortcuts: bool = False
    downsampling: str = ""
    pooling: str = ""
    cell: str = ""
    heads: int = 1
    norm_after: bool = False
    embeddings: tuple[tuple[int, int], ...] = ()
    """Levels and width of every category, in the order of the last inputs."""

    @classmethod
    def of(cls, recipe: Recipe, inputs: tuple[int, ...], outputs: int, categories: tuple[int, ...] = ()) -> ModelShape:
        """The shape a recipe asks for, given the shape of the data's examples and the number of outputs.

        The last inputs are one-hot ``categories`` of so many levels each.
        """
        family, normalization = recipe.word("family"), recipe.word("normalization")
        own: dict[str, Any] = {}
        if family == "cnn":
            own = {"blocks": recipe.integer("blocks"), "shortcuts": recipe.flag("shortcuts")}
            own |= {name: recipe.word(name) for name in ("downsampling", "pooling")}
        elif family == "sequence":
            own = {name: recipe.word(name) for name in ("cell", "pooling")}
            own["heads"] = recipe.integer("heads") if own["cell"] == "transformer" else 1
        else:
            after = recipe.word("normalization_position") == "after"
            own = {"norm_after": after and normalization in ACTIVATION_NORMS, "shortcuts": recipe.flag("skip_connections")}
            widest = recipe.integer("embedding")
            own["embeddings"] = tuple((levels, embedding_width(levels, widest)) for levels in categories if widest)
        return cls(
            inputs=inputs,
            outputs=outputs,
            widths=recipe.widths,
            activation=recipe.word("activation"),
            normalization=normalization,
            groups=recipe.integer("normalization_groups") if normalization == "group" else 1,
            family=family,
            **own,
        )

    @property
    def dropouts(self) -> int:
        """Number of dropout layers."""
        return len(self.rates(Recipe({})))

    def rates(self, recipe: Recipe) -> list[float]:
        """The rate of every dropout layer, in the order of the module's: input, hidden layers or stages, head."""
        twice = 2 if self.cell == "transformer" else 1
        hidden = recipe.layers("dropout", len(self.widths))[: len(self.widths)]
        head = [] if self.family == "mlp" else [recipe.number("head_dropout")]
        return [recipe.number("input_dropout"), *(rate for rate in hidden for _ in range(twice)), *head]

    @property
    def largest_activation(self) -> int:
        """Numbers that the largest layer holds for one example."""
        match self.family:
            case "cnn":
                _, h, w = self.inputs
                return max(math.prod(self.inputs), self.widths[0] * h * w)
            case "sequence":
                steps, channels = self.inputs
                most = max(channels, *self.widths)
                return steps * max(4 * most, self.heads * steps) if self.cell == "transformer" else 3 * steps * most
            case _:
                return max((*self.inputs, *self.widths))


def embedding_width(levels: int, widest: int) -> int:
    """Units for a category of so many levels: 1.6·levels^0.56 as in fastai (Howard and Gugger 2020), at most ``widest``.

    >>> [embedding_width(levels, 600) for levels in (1, 2, 10, 1000)]
    [2, 2, 6, 77]
    """
    return min(widest, round(1.6 * math.pow(levels, 0.56)))


def build_model(shape: ModelShape) -> nn.Module:
    """An ordinary module of this shape, with torch's default weights."""
    common: dict[str, Any] = {
        "activation": shape.activation,
        "normalization": shape.normalization,
        "groups": shape.groups,
    }
    match shape.family:
        case "cnn":
            return Cnn(
                shape.inputs[0],
                shape.outputs,
                shape.widths,
                blocks=shape.blocks,
                shortcuts=shape.shortcuts,
                downsampling=shape.downsampling,
                pooling=shape.pooling,
                **common,
            )
        case "sequence":
            return SequenceModel(
                shape.inputs[1],
                shape.outputs,
                shape.widths,
                cell=shape.cell,
                heads=shape.heads,
                pooling=shape.pooling,
                **common,
            )
        case _:
            inputs = math.prod(shape.inputs)
            common |= {"norm_after": shape.norm_after, "residual": shape.shortcuts, "embeddings": shape.embeddings}
            return Mlp(inputs, shape.outputs, shape.widths, **common)


@torch.no_grad()
def adopt(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Overwrite parameters and statistics by name; a last layer that ``weights`` lacks stays as it is."""
    own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for name, value in weights.items():
        assert own[name].shape == value.shape, f"{name} is of another network"
        own[name].copy_(value)
    lacking = [name for name, _ in model.named_parameters() if name not in weights and not name.startswith("head.")]
    assert not lacking, f"the weights are of another network, without {lacking}"


@torch.no_grad()
def initialize(model: nn.Module, recipe: Recipe, seed: int) -> None:
    """Overwrite the weights of ``model`` with fresh ones as ``recipe`` asks, drawn from ``seed`` alone.

    Weights as ``init`` says (`he` is fan in, gain √2; `orthogonal` has gain √2), recurrent ones orthogonal per gate (Saxe et
    al. 2014), embeddings standard normal (as numbers come scaled, and as `nn.Embedding` does); biases zero; normalization
    gains one and statistics reset.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, WeightNormLinear | WeightNormConv2d):
            weight = torch.empty(module.weight_v.shape)
            _draw(weight, recipe, generator)
            module.adopt(weight)
            module.bias.zero_()
        elif isinstance(module, nn.Linear | nn.Conv2d):
            _draw(module.weight, recipe, generator)
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, generator=generator)
        elif isinstance(module, Gru):
            _draw_recurrent(module, recipe, generator)
        elif isinstance(module, _BatchNorm | StepBatchNorm | nn.LayerNorm | nn.GroupNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
            if isinstance(module, _BatchNorm | StepBatchNorm) and module.running_mean is not None:
                assert module.running_var is not None, "both statistics are kept, or none"
                module.running_mean.zero_()
                module.running_var.fill_(1.0)


def _draw_recurrent(module: Gru, recipe: Recipe, generator: torch.Generator) -> None:
    for gate in module.weight_ih_l0.chunk(3):
        _draw(gate, recipe, generator)
    for gate in module.weight_hh_l0.chunk(3):
        nn.init.orthogonal_(gate, generator=generator)
    module.bias_ih_l0.zero_()
    module.bias_hh_l0.zero_()


def _draw(weight: Tensor, recipe: Recipe, generator: torch.Generator) -> None:
    match recipe.word("init"), recipe.word("init_distribution"):
        case "he", "uniform":
            nn.init.kaiming_uniform_(weight, nonlinearity="relu", generator=generator)
        case "he", _:
            nn.init.kaiming_normal_(weight, nonlinearity="relu", generator=generator)
        case "xavier", "uniform":
            nn.init.xavier_uniform_(weight, generator=generator)
        case "xavier", _:
            nn.init.xavier_normal_(weight, generator=generator)
        case "normal", _:
            nn.init.normal_(weight, std=recipe.number("init_std"), generator=generator)
        case _:
            nn.init.orthogonal_(weight, gain=math.sqrt(2.0), generator=generator)
