"""Networks that can't be searched, each in another way."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mynets.good import Perceptron


class Raises(Perceptron):
    """An error in forward."""

    def forward(self, x: Tensor) -> Tensor:
        raise ValueError("these rows are not mine")


class WrongShape(Perceptron):
    """One number too few."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[:, 1:]


class NotANumber(Perceptron):
    """NaN for everything."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * float("nan")


class NeedsSizes(nn.Module):
    """An argument that no study can give."""

    def __init__(self, inputs: tuple[int, ...], outputs: int, sizes: list[int]) -> None:
        super().__init__()


class NeedsWidth(Perceptron):
    """An argument without a default."""

    def __init__(self, inputs: tuple[int, ...], outputs: int, width: int) -> None:
        super().__init__(inputs, outputs, width=width)


class Huge(nn.Module):
    """100 GB of weights."""

    def __init__(self, inputs: tuple[int, ...], outputs: int, *, width: int = 160_000) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(inputs[0], width), nn.Linear(width, width), nn.Linear(width, outputs))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out


class Hungry(Perceptron):
    """100 GB of activations."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.ones(100, 1 << 28).sum()


class Counts(Perceptron):
    """State that is not of float32."""

    seen: Tensor

    def __init__(self, inputs: tuple[int, ...], outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        return super().forward(x)


class NoInputs(nn.Module):
    """Another contract."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()


class NoMomentum(Perceptron):
    """Running averages that depend on a count."""

    def __init__(self, inputs: tuple[int, ...], outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.batch = nn.BatchNorm1d(outputs, momentum=None)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.batch(super().forward(x))
        return out


def nothing(inputs: tuple[int, ...], outputs: int) -> str:
    """No network at all."""
    return "a network"
