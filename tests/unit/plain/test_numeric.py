"""Embeddings of numbers, the scaling layer and learnt activations, beside loops and torch's own layers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from workers.plain.mlp import Mlp
from workers.plain.network import Shape, build, initialize, lr_factors
from workers.plain.numeric import BIN_UNITS, BINS, FREQUENCIES, Blend, Periodic, PiecewiseLinear, Scale
from workers.plain.update import optimizer_of

STRONG = {
    "numeric_embedding": "periodic",
    "feature_scaling": True,
    "learnt_activation": True,
    "bias_lr_factor": 0.1,
    "embedding_lr_factor": 0.2,
    "scaling_lr_factor": 6.0,
    "activation_lr_factor": 0.3,
    "fan_in_lr": True,
}


def test_a_periodic_embedding_is_its_formula() -> None:
    layer = Periodic(3)
    layer.initialize(lambda weight: None, torch.Generator().manual_seed(1))
    w, c, v = layer.frequency.detach(), layer.phase.detach().view(3, FREQUENCIES), layer.bias.detach().view(3, 3)
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(2))
    found = layer(x).detach().view(5, 3, 4)
    for row in range(5):
        for number in range(3):
            value = float(x[row, number])
            waves = [math.cos(2 * math.pi * float(w[number, f]) * value + float(c[number, f])) for f in range(FREQUENCIES)]
            mixed = np.array(waves) @ layer.weight.detach()[number].numpy() + v[number].numpy()
            np.testing.assert_allclose(found[row, number], [value, *mixed], rtol=1e-4, atol=1e-5)


def test_a_periodic_embedding_begins_as_published() -> None:
    layer = Periodic(400)
    layer.initialize(lambda weight: None, torch.Generator().manual_seed(1))
    assert float(layer.frequency.detach().std()) == pytest.approx(0.1, rel=0.05)
    assert float(layer.phase.detach().abs().max()) <= math.pi
    assert float(layer.phase.detach().std()) == pytest.approx(math.pi / math.sqrt(3), rel=0.05)
    assert float(layer.weight.detach().abs().max()) <= 0.25


def test_a_piecewise_linear_embedding_interpolates_between_quantiles() -> None:
    generator = torch.Generator().manual_seed(4)
    # A number with many values, one with two, a constant.
    x = torch.stack([torch.randn(981, generator=generator), torch.arange(981) % 2.0, torch.full((981,), 3.0)], 1)
    layer = PiecewiseLinear(3)
    layer.initialize(lambda weight: None, generator)
    layer.observe(x)
    np.testing.assert_allclose(layer.edges[0], np.quantile(x[:, 0].numpy(), np.linspace(0, 1, BINS + 1)), atol=0.02)
    torch.testing.assert_close(layer.edges[1, :2], torch.tensor([0.0, 1.0]))
    assert float(layer.edges[1].diff()[1:].abs().sum()) == float(layer.edges[2].diff().abs().sum()) == 0.0
    with torch.no_grad():
        layer.weight.normal_(generator=generator)
    values = torch.tensor([-9.0, -0.7, 0.0, 0.31, 9.0])
    found = layer(torch.stack([values, values, values], 1)).detach().view(5, 3, BIN_UNITS)
    w, slope, bias = (each.detach().numpy() for each in (layer.weight, layer.slope, layer.bias.view(3, BIN_UNITS)))
    for number, edges in ((0, layer.edges[0].numpy()), (1, np.array([0.0, 1.0])), (2, np.array([3.0]))):
        heights = np.concatenate([np.zeros((1, BIN_UNITS)), np.cumsum(w[number, : len(edges) - 1], axis=0)])
        for unit in range(BIN_UNITS):
            curve = np.interp(values.numpy(), edges, heights[:, unit])
            expected = curve + slope[number, unit] * values.numpy() + bias[number, unit]
            np.testing.assert_allclose(found[:, number, unit], expected, rtol=1e-3, atol=1e-3)


def test_bins_are_those_of_the_rows_that_training_sees() -> None:
    shape = Shape.of({"family": "mlp", "widths": (4,), "numeric_embedding": "piecewise_linear"}, (5,), 2, (3,))
    network, x = build(shape), torch.randn(300, 5)
    initialize(network, {}, 0, x)
    assert isinstance(network, Mlp)
    assert isinstance(network.numeric, PiecewiseLinear)
    edges = network.numeric.edges
    assert edges.shape == (2, BINS + 1)
    torch.testing.assert_close(edges[:, 0], x[:, :2].amin(0))
    torch.testing.assert_close(edges[:, -1], x[:, :2].amax(0))


@pytest.mark.parametrize("normalization", ["none", "weight", "layer"])
def test_unit_variance_on_training_rows(normalization: str) -> None:
    settings = {"widths": (40, 30), "activation": "selu", "normalization": normalization, "members": 2}
    network, x = build(Shape.of({"family": "mlp", **settings}, (5,), 3)), 7.0 * torch.randn(500, 5)
    initialize(network, {"unit_variance": True, "init": "normal", "init_std": 0.01}, 0, x)
    seen: dict[str, float] = {}
    for name, module in network.named_modules():
        if type(module).__name__ in ("Linear", "WeightNormLinear", "MembersHead"):
            module.register_forward_hook(lambda _, __, out, name=name: seen.__setitem__(name, float(out.detach().std())))
    network.eval()(x)
    assert len(seen) == 3
    assert list(seen.values()) == pytest.approx([1.0, 1.0, 1.0], rel=1e-3)


def test_scaling_and_blending() -> None:
    x = torch.randn(4, 3)
    scale, blend = Scale(3), Blend(nn.SELU(), 3)
    assert torch.equal(scale(x), x)
    torch.testing.assert_close(blend(x), F.selu(x))
    with torch.no_grad():
        scale.factor.copy_(torch.tensor([1.0, 2.0, 0.5]))
        blend.share.copy_(torch.tensor([0.0, 1.0, 0.25]))
    torch.testing.assert_close(scale(x), x * torch.tensor([[1.0, 2.0, 0.5]]))
    expected = torch.stack([x[:, 0], F.selu(x[:, 1]), 0.75 * x[:, 2] + 0.25 * F.selu(x[:, 2])], 1)
    torch.testing.assert_close(blend(x), expected)


def test_every_parameter_has_the_rate_of_its_group() -> None:
    shape = Shape.of({"family": "mlp", "widths": (16, 8), "normalization": "layer", **STRONG}, (9,), 3, (4,))
    network = build(shape)
    initialize(network, {}, 0)
    factors = lr_factors(network)
    assert set(factors) == {name for name, _ in network.named_parameters()}
    inputs = 5 * 4 + 4
    assert factors["blocks.0.0.weight"] == pytest.approx(math.sqrt(256 / inputs))
    assert factors["head.weight"] == pytest.approx(math.sqrt(256 / 8))
    assert factors["head.bias"] == factors["blocks.1.0.bias"] == 0.1
    assert factors["numeric.frequency"] == factors["numeric.bias"] == 0.2
    assert (factors["scaling.factor"], factors["blocks.0.2.share"], factors["blocks.0.1.weight"]) == (6.0, 0.3, 1.0)
    optimizer = optimizer_of(network, {"optimizer": "adamw", "adam_beta1": 0.9, "adam_beta2": 0.95})
    grouped = {id(each): group["factor"] for group in optimizer.param_groups for each in group["params"]}
    assert grouped == {id(each): factors[name] for name, each in network.named_parameters()}


def test_a_shape_has_only_what_is_on() -> None:
    plain = Shape.of({"family": "mlp", "widths": (4,), "bias_lr_factor": 1.0, "feature_scaling": False}, (3,), 1)
    assert not {name for name, _ in plain.settings} & set(STRONG)
    words_only = build(Shape.of({"family": "mlp", "widths": (4,), **STRONG}, (5,), 2, (2, 3)))
    assert isinstance(words_only, Mlp)
    assert words_only.numeric is None
    assert words_only.eval()(torch.eye(5)).shape == (5, 2)
