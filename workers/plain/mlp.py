"""The multilayer perceptron: (linear, normalization, activation, dropout) for every hidden layer, then a linear head.

Before them come embeddings of the categories, if ``embedding`` is on. A normalization in the position `after` follows the
activation. With ``skip_connections`` a hidden layer as wide as its input adds that input to its output (He et al., "Deep
residual learning", 2016).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from .embedding import Embeddings, embedding_width
from .layers import ACTIVATIONS, FEATURE_NORMS, MakesDropout, linear, no_dropout


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
        categories: Sequence[int] = (),
        dropout: MakesDropout = no_dropout,
    ) -> None:
        super().__init__()
        (features,) = inputs
        after_activation = normalization_position == "after"
        self.input_dropout = dropout("input_dropout")
        self.embeddings = Embeddings(features, categories, embedding) if embedding and categories else None
        sizes = (self.embeddings.outputs if self.embeddings else features, *widths)
        self.blocks = nn.ModuleList()
        for layer, (before, after) in enumerate(pairwise(sizes)):
            # A following batch normalization takes any bias away; its gradient is rounding noise, which Adam scales up.
            dense = linear(before, after, normalization, bias=normalization != "batch" or after_activation)
            middle = [FEATURE_NORMS[normalization](after, normalization_groups), ACTIVATIONS[activation]()]
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
        for block, skip in zip(self.blocks, self._skips, strict=True):
            x = x + block(x) if skip else block(x)
        out: Tensor = self.head(x)
        return out

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
        return own


def moves(normalization: str) -> bool:
    """Whether it is a layer, which can stand before or after the activation."""
    return normalization not in ("none", "weight")
