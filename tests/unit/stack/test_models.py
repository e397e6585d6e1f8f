"""The network and its initial weights: against modules written by hand, closed forms and distributions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor, nn

from tests.unit.stack.runs import recipe
from workers.plain.network import Shape, build, initialize

NORMS: dict[str, Any] = {
    "batch": lambda x, _: (x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-5).sqrt(),
    "layer": lambda x, _: F.layer_norm(x, x.shape[1:]),
    "group": F.group_norm,
}


def by_hand(module: nn.Module, x: Tensor, norm: str, after: bool, residual: bool) -> Tensor:
    """The same network as a chain of formulas; hidden layers of 12, 12 and 8 units."""
    matrices = {name: value for name, value in module.named_parameters() if value.ndim == 2}
    layers = [name.removesuffix(".weight") for name in matrices]
    weights = dict(module.named_parameters())
    for layer in layers[:-1]:
        dense = F.linear(x, weights[f"{layer}.weight"], weights.get(f"{layer}.bias"))
        out = NORMS[norm](F.relu(dense), 4) if after else F.relu(NORMS[norm](dense, 4))
        x = x + out if residual and out.shape == x.shape else out
    return F.linear(x, weights["head.weight"], weights["head.bias"])


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("position", ["before", "after"])
@pytest.mark.parametrize("norm", list(NORMS))
def test_the_network_is_the_one_written_by_hand(norm: str, position: str, residual: bool) -> None:
    setting = recipe(
        widths=(12.0, 12.0, 8.0),
        normalization=norm,
        normalization_groups=4,
        normalization_position=position,
        skip_connections=residual,
    )
    module = build(Shape.of(setting.effective(), (5,), 3))
    initialize(module, setting, 1)
    x = torch.randn(16, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(module(x), by_hand(module, x, norm, position == "after", residual), rtol=1e-4, atol=1e-5)


def initial(**values: Any) -> tuple[Tensor, Tensor]:
    """Weights (300, 200) of the first hidden layer, and its biases."""
    setting = recipe(widths=(300.0,), **values)
    module = build(Shape.of(setting.effective(), (200,), 3))
    initialize(module, setting, 5)
    found = dict(module.named_parameters())
    return found["blocks.0.0.weight"].detach(), found["blocks.0.0.bias"].detach()


@pytest.mark.parametrize(
    ("values", "distribution"),
    [
        ({"init": "he", "init_distribution": "uniform"}, stats.uniform(-math.sqrt(6 / 200), 2 * math.sqrt(6 / 200))),
        ({"init": "he", "init_distribution": "normal"}, stats.norm(scale=math.sqrt(2 / 200))),
        ({"init": "xavier", "init_distribution": "uniform"}, stats.uniform(-math.sqrt(6 / 500), 2 * math.sqrt(6 / 500))),
        ({"init": "xavier", "init_distribution": "normal"}, stats.norm(scale=math.sqrt(2 / 500))),
        ({"init": "normal", "init_std": 0.3}, stats.norm(scale=0.3)),
    ],
    ids=["he uniform", "he normal", "xavier uniform", "xavier normal", "normal"],
)
def test_initial_weights_have_their_distribution(values: dict[str, Any], distribution: Any) -> None:
    weights, biases = initial(**values)
    assert stats.kstest(weights.numpy().ravel(), distribution.cdf).pvalue > 0.001
    assert not biases.any()


def test_orthogonal_weights_keep_angles_and_double_squares() -> None:
    weights, _ = initial(init="orthogonal")
    np.testing.assert_allclose((weights.T @ weights).numpy(), 2.0 * np.eye(200), atol=1e-4)
