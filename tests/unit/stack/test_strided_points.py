"""Convolutions of one pixel at a stride, whose gradient oneDNN crashes at, or gets wrong, with few channels."""

from __future__ import annotations

import pytest
import torch

from service.spec import Recipe
from workers.plain.network import build, initialize, load_weights
from workers.stack.blueprint import StackKey
from workers.stack.dropout import LaneDropout
from workers.stack.flat import FlatModel


@pytest.mark.parametrize("normalization", ["none", "weight"])
def test_the_gradient_of_a_residual_network_is_that_of_double_precision(normalization: str) -> None:
    recipe = Recipe({"family": "cnn", "width": 8, "depth": 2, "shortcuts": True, "normalization": normalization})
    shape = StackKey.of(recipe, (3, 48, 48), 5).shape
    model = FlatModel(shape, torch.device("cpu"))
    initialize(model.template, recipe, 1)
    weights, stats = (each[None] for each in model.rows())
    x = torch.randn(18, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    model.module.eval()
    rates, keys = torch.zeros(1, model.dropouts), torch.zeros(1, model.dropouts, dtype=torch.int32)
    row = weights.clone().requires_grad_()
    out, _ = model.forward(row, stats, rates, keys, x[None])
    (found,) = torch.autograd.grad(out.square().sum(), row)
    plain = build(shape, LaneDropout)
    load_weights(plain, model.state_dict(weights[0], stats[0]))
    plain = plain.double().eval()
    parameters = dict(plain.named_parameters())
    exact = plain(x.double())
    torch.testing.assert_close(out[0].double(), exact, rtol=1e-3, atol=1e-4)
    gradients = dict(zip(parameters, torch.autograd.grad(exact.square().sum(), list(parameters.values())), strict=True))
    for name, own in model.state_dict(found[0], stats[0]).items():
        if name in gradients:
            scale = float(gradients[name].abs().max())
            torch.testing.assert_close(own.double(), gradients[name], rtol=1e-2, atol=1e-3 * scale)
