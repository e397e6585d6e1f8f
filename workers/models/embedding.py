"""Embeddings of categories: each block of one-hot inputs times a table of weights of its own.

A one-hot row times a table is the lookup of `nn.Embedding`. So examples stay rows of one matrix, whatever mixes, masks or
drops inputs does it to categories too, and a category that training never saw, a row of zeros, is embedded as zeros.
Shapes: `b` examples, `n` numbers, `l` one-hot inputs and `e` units of all categories together.
Reference: Guo and Berkhahn, "Entity Embeddings of Categorical Variables" (2016).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Table(nn.Embedding):
    """An `nn.Embedding` that reads one-hot rows instead of codes."""

    def forward(self, one_hot: Tensor) -> Tensor:
        """(b, levels) to (b, width)."""
        return one_hot @ self.weight


class Embeddings(nn.Module):
    """Shapes: (b, n + l) to (b, n + e). ``sizes`` has the (levels, width) of every category, in the order of the inputs."""

    def __init__(self, inputs: int, sizes: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self._levels = [levels for levels, _ in sizes]
        self._numbers = inputs - sum(self._levels)
        self.outputs = self._numbers + sum(width for _, width in sizes)
        self.tables = nn.ModuleList(Table(levels, width) for levels, width in sizes)

    def forward(self, x: Tensor) -> Tensor:
        """Numbers as they are, then every category's embedding."""
        numbers, *blocks = torch.split(x, [self._numbers, *self._levels], dim=1)
        embedded = [table(block) for table, block in zip(self.tables, blocks, strict=True)]
        return torch.cat([numbers, *embedded], dim=1)
