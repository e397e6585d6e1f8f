"""The multilayer perceptron: (linear, normalization, activation, dropout) for every hidden layer, then a linear head.

In front of them, embeddings of categories, if there are ``embeddings``: the (levels, width) of each.

With ``norm_after`` the normalization follows the activation. With ``residual`` a hidden layer as wide as what goes into it
adds that to what comes out (He et al., "Deep residual learning", 2016).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from workers.models.embedding import Embeddings
from workers.models.layers import ACTIVATIONS, LaneDropout, activation_norm, linear


class Mlp(nn.Module):
    """Shapes: (b, inputs) to (b, outputs).

    The dropout modules are ``input_dropout`` and one in every block, in that order: the order of a lane's rates.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        widths: tuple[int, ...],
        *,
        activation: str,
        normalization: str,
        groups: int,
        norm_after: bool = False,
        residual: bool = False,
        embeddings: Sequence[tuple[int, int]] = (),
    ) -> None:
        super().__init__()
        self.input_dropout = LaneDropout()
        self.embeddings = Embeddings(inputs, embeddings) if embeddings else None
        sizes = (self.embeddings.outputs if self.embeddings else inputs, *widths)
        self.blocks = nn.ModuleList()
        for before, after in pairwise(sizes):
            # Batch normalization behind it takes any bias away again; its gradient is rounding noise, which Adam scales up.
            dense = linear(before, after, normalization, bias=normalization != "batch" or norm_after)
            norm, active = activation_norm(after, normalization, groups), ACTIVATIONS[activation]()
            middle = (active, norm) if norm_after else (norm, active)
            self.blocks.append(nn.Sequential(dense, *middle, LaneDropout()))
        self._skips = tuple(residual and before == after for before, after in pairwise(sizes))
        self.head = nn.Linear(sizes[-1], outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, or the standardized prediction of a regression."""
        x = self.input_dropout(x)
        if self.embeddings is not None:
            x = self.embeddings(x)
        for block, skip in zip(self.blocks, self._skips, strict=True):
            x = x + block(x) if skip else block(x)
        out: Tensor = self.head(x)
        return out
