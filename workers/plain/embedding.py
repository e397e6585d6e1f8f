"""Embeddings of categories: each block of one-hot inputs times a table of weights of its own.

A one-hot row times a table is the lookup of `nn.Embedding`. So examples stay rows of one matrix, whatever mixes, masks or
drops inputs does it to categories too, and a category that training never saw, a row of zeros, is embedded as zeros.
Shapes: `b` examples, `n` numbers, `l` one-hot inputs and `e` units of all categories together.
Reference: Guo and Berkhahn, "Entity Embeddings of Categorical Variables" (2016).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


def embedding_width(levels: int, widest: int) -> int:
    """Units of a category: 1.6·levels^0.56 as in fastai (Howard and Gugger 2020), at most ``widest``.

    >>> [embedding_width(levels, 600) for levels in (1, 2, 10, 1000)]
    [2, 2, 6, 77]
    """
    return min(widest, round(1.6 * math.pow(levels, 0.56)))


def sources(features: int, categories: Sequence[int]) -> tuple[int, ...]:
    """(d,) the column of the data that each of the ``features`` comes from; the last are one-hot ``categories``.

    >>> sources(6, (3, 1))
    (0, 1, 2, 2, 2, 3)
    """
    numbers = features - sum(categories)
    blocks = [numbers + place for place, levels in enumerate(categories) for _ in range(levels)]
    return (*range(numbers), *blocks)


class Table(nn.Embedding):
    """An `nn.Embedding` that reads one-hot rows instead of codes."""

    def forward(self, one_hot: Tensor) -> Tensor:
        """(b, levels) to (b, width)."""
        return one_hot @ self.weight


class Embeddings(nn.Module):
    """Shapes: (b, n + l) to (b, n + e). ``levels`` are those of every category, in the order of the inputs."""

    def __init__(self, inputs: int, levels: Sequence[int], widest: int) -> None:
        super().__init__()
        self._levels = list(levels)
        self._numbers = inputs - sum(levels)
        widths = [embedding_width(each, widest) for each in levels]
        self.outputs = self._numbers + sum(widths)
        self.tables = nn.ModuleList(Table(each, width) for each, width in zip(levels, widths, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        """Numbers as they are, then every category's embedding."""
        numbers, *blocks = torch.split(x, [self._numbers, *self._levels], dim=1)
        embedded = [table(block) for table, block in zip(self.tables, blocks, strict=True)]
        return torch.cat([numbers, *embedded], dim=1)
