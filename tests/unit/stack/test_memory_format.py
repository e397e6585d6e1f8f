"""Gradients of images have their channels last in memory, as convolutions read them, whatever pools or flattens them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workers.plain.foreign import register
from workers.plain.network import Shape, initialize
from workers.stack.flat import FlatModel


class Noted(torch.autograd.Function):
    """The identity, which notes whether its gradient has its channels last."""

    found: list[bool] = []  # noqa: RUF012  # emptied by each test

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        Noted.found.append(gradient.is_contiguous(memory_format=torch.channels_last))
        return gradient


class Pooled(nn.Module):
    """A convolution, an activation and what makes features of it."""

    def __init__(self, inputs: tuple[int, ...], outputs: int, pooling: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs[0], 8, 3, padding=1)
        self.pooling = pooling
        self.head = nn.LazyLinear(outputs)
        self.head(self.pooling(self.conv(torch.zeros(1, *inputs))))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = Noted.apply(F.relu(self.conv(x)))  # type: ignore[no-untyped-call]
        out: Tensor = self.head(self.pooling(found))
        return out


POOLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda x: x.mean((2, 3)),
    "sum": lambda x: x.sum((2, 3)),
    "adaptive": lambda x: F.adaptive_avg_pool2d(x, 1).flatten(1),
    "of several pixels": lambda x: F.adaptive_avg_pool2d(x, 2).flatten(1),
    "flattened": lambda x: x.flatten(1),
    "maximum": lambda x: F.max_pool2d(x, 2).flatten(1),
}


@pytest.mark.parametrize("pooling", POOLINGS)
def test_gradients_of_images_have_their_channels_last(pooling: str) -> None:
    name = f"tests:{pooling}"
    register(name, lambda inputs, outputs: Pooled(inputs, outputs, POOLINGS[pooling]))
    model = FlatModel(Shape("module", (3, 6, 6), 4, (("module", name),)), torch.device("cpu"))
    initialize(model.template, {}, 3)
    weights, stats = (row[None] for row in model.rows())
    x = torch.randn(5, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    row, none = weights.clone().requires_grad_(), torch.zeros(1, 1)
    out, _ = model.forward(row, stats, none, none.to(torch.int32), x[None])
    Noted.found = []
    (found,) = torch.autograd.grad(out.square().sum(), row)
    assert Noted.found == [True]
    plain = Pooled((3, 6, 6), 4, POOLINGS[pooling])
    state = model.state_dict(weights[0], stats[0])
    plain.load_state_dict({each: state[f"net.{each}"] for each in plain.state_dict()})
    expected = torch.autograd.grad(plain(x).square().sum(), list(plain.parameters()))
    own = model.state_dict(found[0], stats[0])
    for (each, _), value in zip(plain.named_parameters(), expected, strict=True):
        torch.testing.assert_close(own[f"net.{each}"], value, rtol=1e-4, atol=1e-4)
