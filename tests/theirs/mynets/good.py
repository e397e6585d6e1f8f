"""Networks that can be searched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ResNet(nn.Module):
    """A small residual network with dropout before its head.

    Images of any size.
    """

    def __init__(
        self, inputs: tuple[int, ...], outputs: int, *, width: int = 8, norm: Literal["batch", "group"] = "batch"
    ) -> None:
        super().__init__()
        norms = [nn.BatchNorm2d(width) if norm == "batch" else nn.GroupNorm(2, width) for _ in range(2)]
        self.stem = nn.Conv2d(inputs[0], width, 3, padding=1, bias=False)
        self.norm1, self.norm2 = norms
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.drop = nn.Dropout(0.1)
        self.fc = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.stem(x)))
        x = x + F.relu(self.norm2(self.conv(x)))
        out: Tensor = self.fc(self.drop(x.mean((2, 3))))
        return out


class Encoder(nn.Module):
    """A transformer over the steps of a series."""

    def __init__(self, inputs: tuple[int, ...], outputs: int, width: int = 8, layers: int = 1, heads: int = 2) -> None:
        super().__init__()
        self.embed = nn.Linear(inputs[1], width)
        self.place = nn.Parameter(torch.randn(inputs[0], width))
        layer = nn.TransformerEncoderLayer(width, heads, 2 * width, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.nan_to_num(x)  # padding
        out: Tensor = self.head(self.encoder(self.embed(x) + self.place).mean(1))
        return out


class Perceptron(nn.Module):
    """A multilayer perceptron with layer normalization."""

    def __init__(self, inputs: tuple[int, ...], outputs: int, *, width: int = 16, slope: float = 0.0) -> None:
        super().__init__()
        self.first = nn.Linear(inputs[0], width)
        self.norm = nn.LayerNorm(width)
        self.drop = nn.Dropout(0.2)
        self.second = nn.Linear(width, width)
        self.out = nn.Linear(width, outputs)
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(F.leaky_relu(self.norm(self.first(x)), self.slope))
        out: Tensor = self.out(self.drop(F.leaky_relu(self.second(x), self.slope)))
        return out


class Tied(nn.Module):
    """Weights that are used twice, weights that are not trained, random constants, and an order that is no number."""

    basis: Tensor
    order: Tensor

    def __init__(self, inputs: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        size = inputs[0]
        self.first, self.second, self.fixed = (nn.Linear(size, size) for _ in range(3))
        self.second.weight = self.first.weight
        self.fixed.requires_grad_(False)
        self.register_buffer("basis", torch.randn(size, size), persistent=False)
        self.register_buffer("order", torch.arange(size).flip(0))
        self.out = nn.Linear(size, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x[:, self.order] @ self.basis))
        out: Tensor = self.out(torch.relu(self.fixed(torch.relu(self.second(x)))))
        return out


class FunctionalDropout(Perceptron):
    """It draws random numbers by itself, which no lane can have for its own."""

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(super().forward(x), 0.1, self.training)


class Branches(Perceptron):
    """What it computes depends on the data."""

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        return out if out.detach().sum().item() > 0 else 2 * out


class Heads(Encoder):
    """Not every width goes with every number of heads."""

    def __init__(self, inputs: tuple[int, ...], outputs: int, width: int = 8, heads: int = 2) -> None:
        super().__init__(inputs, outputs, width, 1, heads)


def small(inputs: Sequence[int], outputs: int, *, width: int = 4, bias: bool = True) -> nn.Module:
    """A function will do, too."""
    return nn.Sequential(nn.Flatten(), nn.Linear(torch.Size(inputs).numel(), width, bias=bias), nn.Linear(width, outputs))
