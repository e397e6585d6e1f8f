"""The multilayer perceptron: (linear, normalization, activation, dropout) for every hidden layer, then a linear head."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from workers.models.layers import ACTIVATIONS, LaneDropout, activation_norm, linear


class Mlp(nn.Module):
    """Shapes: (b, inputs) to (b, outputs).

    The dropout modules are ``input_dropout`` and one in every block, in that order: the order of a lane's rates.
    """

    def __init__(
        self, inputs: int, outputs: int, widths: tuple[int, ...], *, activation: str, normalization: str, groups: int
    ) -> None:
        super().__init__()
        self.input_dropout = LaneDropout()
        sizes = (inputs, *widths)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                linear(before, after, normalization),
                activation_norm(after, normalization, groups),
                ACTIVATIONS[activation](),
                LaneDropout(),
            )
            for before, after in pairwise(sizes)
        )
        self.head = nn.Linear(sizes[-1], outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, or the standardized prediction of a regression."""
        x = self.input_dropout(x)
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.head(x)
        return out
