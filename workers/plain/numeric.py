"""What a perceptron does to numbers before its first layer, and activations that it learns.

Shapes: `b` examples, `n` numbers, `d` features, `f` frequencies or `t` bins of a number, `e` units of its embedding.
References: Gorishniy et al., "On embeddings for numerical features in tabular deep learning" (NeurIPS 2022); Holzmüller et
al., "Better by default" (NeurIPS 2024) for the variant with biases, the scaling layer and the parametric activation.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .layers import Draw

FREQUENCIES = 16
UNITS = 4
"""e; the first unit is the number itself."""
FREQUENCY_STD = 0.1
BINS = 48
BIN_UNITS = 16
"""Bins and units of a number in TabM's piecewise-linear embedding."""


class Periodic(nn.Module):
    """(b, n) to (b, n·e): each number x becomes (x, W·cos(2π·w·x + c) + v), with weights of its own, at first zero."""

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self._numbers = numbers
        self.outputs = numbers * UNITS
        self.frequency = nn.Parameter(torch.zeros(numbers, FREQUENCIES))
        self.weight = nn.Parameter(torch.zeros(numbers, FREQUENCIES, UNITS - 1))
        # Biases lie in a row, for penalties and decay leave vectors alone.
        self.phase = nn.Parameter(torch.zeros(numbers * FREQUENCIES))
        self.bias = nn.Parameter(torch.zeros(numbers * (UNITS - 1)))

    @torch.no_grad()
    def initialize(self, draw: Draw, generator: torch.Generator) -> None:
        """Frequencies normal, phases uniform, the layer after them as torch's linear layers; whatever `init` is."""
        bound = 1.0 / math.sqrt(FREQUENCIES)
        self.frequency.normal_(0.0, FREQUENCY_STD, generator=generator)
        self.phase.uniform_(-math.pi, math.pi, generator=generator)
        self.weight.uniform_(-bound, bound, generator=generator)
        self.bias.uniform_(-bound, bound, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """(b, n) to (b, n·e)."""
        phase, bias = self.phase.view(self._numbers, FREQUENCIES), self.bias.view(self._numbers, UNITS - 1)
        waves = torch.cos(2.0 * math.pi * self.frequency * x[:, :, None] + phase)
        mixed = torch.einsum("bnf,nfe->bne", waves, self.weight) + bias
        return torch.cat([x[:, :, None], mixed], dim=2).flatten(1)


class PiecewiseLinear(nn.Module):
    """(b, n) to (b, n·e): each number x becomes w·x + v + W·q(x), where q(x) are the parts of its bins that lie below x.

    Bins lie between quantiles of the training examples: q is 0 in bins above x, 1 in bins below, and rises linearly in its
    own. W is at first zero, so training begins with a linear embedding, which is also what goes on beyond the outermost
    quantiles.
    """

    edges: Tensor

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self._numbers = numbers
        self.outputs = numbers * BIN_UNITS
        self.register_buffer("edges", torch.zeros(numbers, BINS + 1))
        self.weight = nn.Parameter(torch.zeros(numbers, BINS, BIN_UNITS))
        self.slope = nn.Parameter(torch.zeros(numbers, BIN_UNITS))
        self.bias = nn.Parameter(torch.zeros(numbers * BIN_UNITS))

    @torch.no_grad()
    def initialize(self, draw: Draw, generator: torch.Generator) -> None:
        """W zero, slopes and biases uniform in ±1, whatever `init` is."""
        self.weight.zero_()
        self.slope.uniform_(-1.0, 1.0, generator=generator)
        self.bias.uniform_(-1.0, 1.0, generator=generator)

    @torch.no_grad()
    def observe(self, x: Tensor) -> None:
        """Put the edges at even quantiles of ``x`` (r, n), equal ones once; bins that are left over are empty."""
        places = torch.linspace(0, len(x) - 1, BINS + 1, device=x.device).round().long()
        quantiles = x.sort(dim=0).values[places].T
        again = torch.zeros_like(quantiles, dtype=torch.bool)
        again[:, 1:] = quantiles.diff(dim=1) == 0
        distinct = quantiles.masked_fill(again, math.inf).sort(dim=1).values
        self.edges.copy_(torch.where(distinct.isinf(), quantiles[:, -1:], distinct))

    def forward(self, x: Tensor) -> Tensor:
        """(b, n) to (b, n·e)."""
        left, width = self.edges[:, :-1], self.edges.diff(dim=1)
        parts = torch.where(width > 0, (x[:, :, None] - left) / width.clamp(min=1e-30), torch.zeros_like(left))
        parts = parts.clamp(0.0, 1.0)
        linear = x[:, :, None] * self.slope + self.bias.view(self._numbers, BIN_UNITS)
        return (torch.einsum("bnt,nte->bne", parts, self.weight) + linear).flatten(1)


class Scale(nn.Module):
    """(b, d) to (b, d): every feature times a learnt factor, at first 1."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(features))

    @torch.no_grad()
    def initialize(self, draw: Draw, generator: torch.Generator) -> None:
        """Back to 1."""
        self.factor.fill_(1.0)

    def forward(self, x: Tensor) -> Tensor:
        """(b, d) to (b, d)."""
        return x * self.factor


class Blend(nn.Module):
    """(b, d) to (b, d): (1 − a)·x + a·activation(x), with a learnt a of every unit, at first 1."""

    def __init__(self, activation: nn.Module, units: int) -> None:
        super().__init__()
        self.activation = activation
        self.share = nn.Parameter(torch.ones(units))

    @torch.no_grad()
    def initialize(self, draw: Draw, generator: torch.Generator) -> None:
        """Back to 1."""
        self.share.fill_(1.0)

    def forward(self, x: Tensor) -> Tensor:
        """(b, d) to (b, d)."""
        active: Tensor = self.activation(x)
        return x + self.share * (active - x)
