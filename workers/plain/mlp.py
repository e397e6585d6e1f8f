"""The multilayer perceptron: (linear, normalization, activation, dropout) for every hidden layer, then a linear head.

Before them come embeddings of categories and of numbers and a scaling layer, where these are on. A normalization in the
position `after` follows the activation. With ``skip_connections`` a hidden layer as wide as its input adds that input to its
output (He et al., "Deep residual learning", 2016).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from .embedding import Embeddings, embedding_width
from .layers import ACTIVATIONS, FEATURE_NORMS, MakesDropout, WeightNormLinear, linear, no_dropout
from .numeric import Blend, Periodic, Scale

NUMERIC_EMBEDDINGS: Mapping[str, type[Periodic] | None] = {"none": None, "periodic": Periodic}
"""By the words of the setting."""
REFERENCE_FAN_IN = 256
"""With `fan_in_lr`, inputs of a layer whose learning rate is `lr` itself."""
_ADDITIONS = frozenset(
    (
        "numeric_embedding",
        "feature_scaling",
        "learnt_activation",
        "bias_lr_factor",
        "embedding_lr_factor",
        "scaling_lr_factor",
        "activation_lr_factor",
        "fan_in_lr",
    )
)
"""Settings that a shape has only where they are on."""


class Mlp(nn.Module):
    """Shapes: (b, d) to (b, outputs). The keywords but ``categories`` and ``dropout`` are settings of a recipe.

    The last inputs are one-hot ``categories``: the number of levels of each.
    """

    def __init__(
        self,
        inputs: Sequence[int],
        outputs: int,
        *,
        widths: Sequence[int] = (),
        activation: str = "relu",
        normalization: str = "none",
        normalization_groups: int = 8,
        normalization_position: str = "before",
        skip_connections: bool = False,
        embedding: int = 0,
        numeric_embedding: str = "none",
        feature_scaling: bool = False,
        learnt_activation: bool = False,
        bias_lr_factor: float = 1.0,
        embedding_lr_factor: float = 1.0,
        scaling_lr_factor: float = 1.0,
        activation_lr_factor: float = 1.0,
        fan_in_lr: bool = False,
        categories: Sequence[int] = (),
        dropout: MakesDropout = no_dropout,
    ) -> None:
        super().__init__()
        (features,) = inputs
        after_activation = normalization_position == "after"
        self.input_dropout = dropout("input_dropout")
        self.embeddings = Embeddings(features, categories, embedding) if embedding and categories else None
        embedded = self.embeddings.outputs if self.embeddings else features
        self._numbers = features - sum(categories)
        periodic = NUMERIC_EMBEDDINGS[numeric_embedding] if self._numbers else None
        self.numeric = periodic(self._numbers) if periodic else None
        embedded += self.numeric.outputs - self._numbers if self.numeric else 0
        self.scaling = Scale(embedded) if feature_scaling else None
        self._factors = {
            "bias": bias_lr_factor,
            "embedding": embedding_lr_factor,
            "scaling": scaling_lr_factor,
            "activation": activation_lr_factor,
        }
        self._fan_in_lr = fan_in_lr
        sizes = (embedded, *widths)
        self.blocks = nn.ModuleList()
        for layer, (before, after) in enumerate(pairwise(sizes)):
            # A following batch normalization takes any bias away; its gradient is rounding noise, which Adam scales up.
            dense = linear(before, after, normalization, bias=normalization != "batch" or after_activation)
            active = ACTIVATIONS[activation]()
            middle = [
                FEATURE_NORMS[normalization](after, normalization_groups),
                Blend(active, after) if learnt_activation else active,
            ]
            ordered = reversed(middle) if after_activation and moves(normalization) else middle
            self.blocks.append(nn.Sequential(dense, *ordered, dropout("dropout", layer)))
        self._skips = tuple(skip_connections and before == after for before, after in pairwise(sizes))
        self.head = nn.Linear(sizes[-1], outputs)
        self.largest_activation = max(features, *sizes)

    def forward(self, x: Tensor) -> Tensor:
        """(b, d) to logits, or standardized predictions of a regression, (b, outputs)."""
        x = self.input_dropout(x)
        if self.embeddings is not None:
            x = self.embeddings(x)
        if self.numeric is not None:
            x = torch.cat([self.numeric(x[:, : self._numbers]), x[:, self._numbers :]], dim=1)
        if self.scaling is not None:
            x = self.scaling(x)
        for block, skip in zip(self.blocks, self._skips, strict=True):
            x = x + block(x) if skip else block(x)
        out: Tensor = self.head(x)
        return out

    def lr_factors(self) -> dict[str, float]:
        """By what the learning rate of each parameter is multiplied, by its name."""
        found = {}
        for name, module in self.named_modules():
            for own, parameter in module.named_parameters(name, recurse=False):
                found[own] = self._factor(module, parameter)
        return found

    def _factor(self, module: nn.Module, parameter: nn.Parameter) -> float:
        match module:
            case Scale():
                return self._factors["scaling"]
            case Blend():
                return self._factors["activation"]
            case Periodic():
                return self._factors["embedding"]
            case nn.Linear() | WeightNormLinear() if parameter.ndim == 1:
                return self._factors["bias"]
            case nn.Linear() if self._fan_in_lr:
                return math.sqrt(REFERENCE_FAN_IN / module.in_features)
            case _:  # normalizations, tables of categories, weights under weight normalization
                return 1.0

    @staticmethod
    def reduced(settings: Mapping[str, Any], categories: Sequence[int]) -> dict[str, Any]:
        """The settings without what makes no difference to the graph, so that equal graphs have equal shapes."""
        own = dict(settings)
        if not moves(own.get("normalization", "none")):
            own.pop("normalization_position", None)
        if "embedding" in own and not categories:
            del own["embedding"]
        elif "embedding" in own:
            own["embedding"] = max(embedding_width(levels, own["embedding"]) for levels in categories)
        defaults = inspect.signature(Mlp).parameters
        return {name: value for name, value in own.items() if name not in _ADDITIONS or value != defaults[name].default}


def moves(normalization: str) -> bool:
    """Whether it is a layer, which can stand before or after the activation."""
    return normalization not in ("none", "weight")
