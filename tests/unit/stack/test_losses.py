"""The focal and the Huber loss beside their formulas, and lanes that have them off."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from workers.plain.chance import Chance
from workers.plain.update import _loss
from workers.stack.gradient import EXAMPLE_LOSSES
from workers.stack.techniques.focal_gamma import FocalGamma
from workers.stack.techniques.huber_delta import HuberDelta


def test_the_focal_loss_is_its_formula() -> None:
    out = torch.randn(3, 50, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.arange(50).remainder(4).expand(3, 50)
    losses = EXAMPLE_LOSSES["classification"](out, labels)
    columns = {"focal_gamma": torch.tensor([0.0, 0.5, 3.0], dtype=torch.float64)}
    found = FocalGamma().on_losses(losses, out, labels, columns, frozenset())
    scores = np.exp(out.numpy())
    p = np.take_along_axis(scores / scores.sum(-1, keepdims=True), labels.numpy()[..., None], -1)[..., 0]
    for lane, gamma in enumerate((0.0, 0.5, 3.0)):
        np.testing.assert_allclose(found[lane], -((1 - p[lane]) ** gamma) * np.log(p[lane]), rtol=1e-6)
    assert torch.equal(found[0], losses[0]), "not even the last bit"


def test_the_huber_loss_is_its_formula() -> None:
    out = torch.linspace(-5, 5, 101, dtype=torch.float64)[None, :, None].expand(3, 101, 1)
    target = torch.zeros(3, 101, dtype=torch.float64)
    losses = EXAMPLE_LOSSES["regression"](out, target)
    columns = {"huber_delta": torch.tensor([HuberDelta.off, 0.7, 2.0], dtype=torch.float64)}
    found = HuberDelta().on_losses(losses, out, target, columns, frozenset())
    r = np.abs(out[0, :, 0].numpy())
    for lane, delta in ((1, 0.7), (2, 2.0)):
        np.testing.assert_allclose(found[lane], np.where(r <= delta, r**2, delta * (2 * r - delta)), rtol=1e-12)
    assert torch.equal(found[0], losses[0])


@pytest.mark.parametrize("gamma", [0.3, 1.0, 4.0])
def test_gradients_are_finite_where_the_network_is_sure(gamma: float) -> None:
    out = torch.tensor([[60.0, -60.0], [-60.0, 60.0]], requires_grad=True)
    labels = torch.tensor([0, 0])
    losses = EXAMPLE_LOSSES["classification"](out[None], labels[None])
    found = FocalGamma().on_losses(losses, out[None], labels[None], {"focal_gamma": torch.tensor([gamma])}, frozenset())
    (gradient,) = torch.autograd.grad(found.sum(), out)
    assert bool(gradient.isfinite().all())
    assert float(gradient[0].abs().sum()) < 1e-6 < float(gradient[1].abs().sum())


def test_an_outlier_of_the_target_pulls_less_with_the_huber_loss() -> None:
    """The slope of a line through the origin: with the squared error the outlier moves it, with δ = 1 hardly."""
    x, y = torch.arange(1.0, 21.0)[:, None] / 20, torch.arange(1.0, 21.0) / 20
    y = y.clone()
    y[3] = 50.0
    slopes = {}
    for delta in (0.0, 1.0):
        network = torch.nn.Linear(1, 1, bias=False)
        rule = torch.optim.SGD(network.parameters(), lr=0.2)
        for _ in range(400):
            rule.zero_grad()
            _loss(network, {"huber_delta": delta}, x, y, torch.ones(20), Chance(0), None).backward()  # type: ignore[no-untyped-call]
            rule.step()
        slopes[delta] = float(network.weight.detach())
    assert abs(slopes[1.0] - 1.0) < 0.2 < abs(slopes[0.0] - 1.0)
