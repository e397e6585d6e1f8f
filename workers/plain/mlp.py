"""The multilayer perceptron: (linear, normalization, activation, dropout) for every hidden layer, then a linear head.

Before them come embeddings of categories and of numbers and a scaling layer, where these are on. With ``members`` each
linear layer is that of several networks that share their weights. A normalization in the position `after` follows the
activation. With ``skip_connections`` a hidden layer as wide as its input adds that input to its
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

from .embedding import Embeddings, embedding_width, sources
from .layers import ACTIVATIONS, FEATURE_NORMS, MakesDropout, WeightNormLinear, linear, no_dropout
from .members import MEANS, Adapted, MembersHead
from .numeric import BINS, Blend, Periodic, PiecewiseLinear, Scale

NUMERIC_EMBEDDINGS: Mapping[str, type[Periodic] | type[PiecewiseLinear] | None] = {
    "none": None,
    "periodic": Periodic,
    "piecewise_linear": PiecewiseLinear,
}
"""By the words of the setting."""
REFERENCE_FAN_IN = 256
"""With `fan_in_lr`, inputs of a layer whose learning rate is `lr` itself."""
_ADDITIONS = frozenset(
    (
        "numeric_embedding",
        "feature_scaling",
        "learnt_activation",
        "members",
        "bias_lr_factor",
        "embedding_lr_factor",
        "scaling_lr_factor",
        "activation_lr_factor",
        "fan_in_lr",
    )
)
"""Settings that a shape has only where they are on."""


class Mlp(nn.Module):
    """Shapes: (b, d) to (b, outputs), with several ``members`` in training mode (b, members, outputs).

    The keywords but ``categories``, ``dropout`` and ``several`` are settings of a recipe.

    The last inputs are one-hot ``categories``: the number of levels of each. ``several`` is the task of a network whose
    outputs are of several targets, by which its members are averaged.
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
        members: int = 1,
        bias_lr_factor: float = 1.0,
        embedding_lr_factor: float = 1.0,
        scaling_lr_factor: float = 1.0,
        activation_lr_factor: float = 1.0,
        fan_in_lr: bool = False,
        categories: Sequence[int] = (),
        dropout: MakesDropout = no_dropout,
        several: str | None = None,
    ) -> None:
        super().__init__()
        (features,) = inputs
        self.sources = sources(features, categories)
        after_activation = normalization_position == "after"
        self.input_dropout = dropout("input_dropout")
        self.embeddings = Embeddings(features, categories, embedding) if embedding and categories else None
        embedded = self.embeddings.outputs if self.embeddings else features
        self._numbers = features - sum(categories)
        numeric = NUMERIC_EMBEDDINGS[numeric_embedding] if self._numbers else None
        self.numeric = numeric(self._numbers) if numeric else None
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
            bias = members == 1 and (normalization != "batch" or after_activation)
            dense = linear(before, after, normalization, bias=bias)
            if members > 1:
                dense = Adapted(dense, before, after, members, first=layer == 0)
            active = ACTIVATIONS[activation]()
            middle = [
                FEATURE_NORMS[normalization](after, normalization_groups),
                Blend(active, after) if learnt_activation else active,
            ]
            ordered = reversed(middle) if after_activation and moves(normalization) else middle
            self.blocks.append(nn.Sequential(dense, *ordered, dropout("dropout", layer)))
        self._skips = tuple(skip_connections and before == after for before, after in pairwise(sizes))
        self.head = nn.Linear(sizes[-1], outputs) if members == 1 else MembersHead(sizes[-1], outputs, members)
        self._members = members
        self._mean = MEANS[several or ("regression" if outputs == 1 else "classification")]
        encoded = self._numbers * BINS if isinstance(self.numeric, PiecewiseLinear) else 0
        self.largest_activation = max(features, encoded, *(members * size for size in sizes))

    def forward(self, x: Tensor) -> Tensor:
        """(b, d) to logits, or standardized predictions of a regression, (b, outputs).

        Several members have outputs of their own in training mode, (b, members, outputs); else those of their average.
        """
        x = self.input_dropout(x)
        if self.embeddings is not None:
            x = self.embeddings(x)
        if self.numeric is not None:
            x = torch.cat([self.numeric(x[:, : self._numbers]), x[:, self._numbers :]], dim=1)
        if self.scaling is not None:
            x = self.scaling(x)
        if self._members > 1:
            x = x.repeat_interleave(self._members, dim=0)
        for block, skip in zip(self.blocks, self._skips, strict=True):
            x = x + block(x) if skip else block(x)
        out: Tensor = self.head(x)
        if self._members == 1 or self.training:
            return out
        return self._mean(out.transpose(0, 1))

    @property
    def observes(self) -> bool:
        """Whether it has something to `observe`."""
        return isinstance(self.numeric, PiecewiseLinear)

    def observe(self, x: Tensor) -> None:
        """Let the embedding of numbers see the training examples ``x`` (r, d)."""
        if isinstance(self.numeric, PiecewiseLinear):
            self.numeric.observe(x[:, : self._numbers])

    def lr_factors(self) -> dict[str, float]:
        """By what the learning rate of each parameter is multiplied, by its name."""
        found = {}
        for name, module in self.named_modules():
            for own, _ in module.named_parameters(name, recurse=False):
                found[own] = self._factor(module, own)
        return found

    def _factor(self, module: nn.Module, name: str) -> float:
        match module:
            case Scale():
                return self._factors["scaling"]
            case Blend():
                return self._factors["activation"]
            case Periodic() | PiecewiseLinear():
                return self._factors["embedding"]
            case nn.Linear() | WeightNormLinear() | Adapted() if name.endswith("bias"):
                return self._factors["bias"]
            case nn.Linear() if self._fan_in_lr:
                return math.sqrt(REFERENCE_FAN_IN / module.in_features)
            case _:  # normalizations, tables of categories, members' factors, weights under weight normalization
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
