"""Members that share their weights, beside separate networks with the effective weights."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from workers.plain.chance import Chance
from workers.plain.members import Adapted, MembersHead
from workers.plain.mlp import Mlp
from workers.plain.network import Shape, build, initialize, lr_factors
from workers.plain.update import optimizer_of, update

MEMBERS = 3


def network(outputs: int = 4, **settings: Any) -> Mlp:
    shape = Shape.of({"family": "mlp", "widths": (6, 5), "members": MEMBERS, **settings}, (7,), outputs)
    made = build(shape)
    initialize(made, {}, 11)
    assert isinstance(made, Mlp)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():  # training has moved all factors and biases
        for parameter in made.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return made


def adapted(made: Mlp, layer: int) -> Adapted:
    block = made.blocks[layer]
    assert isinstance(block, nn.Sequential)
    found = block[0]
    assert isinstance(found, Adapted)
    return found


def separate(made: Mlp, member: int, activation: type[nn.Module]) -> nn.Sequential:
    """The member as a network of its own: diag(s)·W·diag(r) for every shared weight W."""
    layers: list[nn.Module] = []
    for number in range(len(made.blocks)):
        found = adapted(made, number)
        shared = found.layer.weight
        assert isinstance(shared, torch.Tensor)
        r, s, b = (each.detach().view(MEMBERS, -1)[member] for each in (found.input_factor, found.output_factor, found.bias))
        dense = nn.Linear(shared.shape[1], shared.shape[0])
        with torch.no_grad():
            dense.weight.copy_(s[:, None] * shared * r[None])
            dense.bias.copy_(b)
        layers += [dense, activation()]
    head = made.head
    assert isinstance(head, MembersHead)
    own = nn.Linear(head.in_features, head.out_features // MEMBERS)
    with torch.no_grad():
        own.weight.copy_(head.weight.view(MEMBERS, -1, head.in_features)[member])
        own.bias.copy_(head.bias.view(MEMBERS, -1)[member])
    return nn.Sequential(*layers, own)


@pytest.mark.parametrize("outputs", [1, 4])
def test_members_are_separate_networks_and_predict_their_average(outputs: int) -> None:
    made, x = network(outputs), torch.randn(9, 7, generator=torch.Generator().manual_seed(1))
    each = torch.stack([separate(made, member, nn.ReLU)(x) for member in range(MEMBERS)])
    torch.testing.assert_close(made.train()(x), each.transpose(0, 1))
    found = made.eval()(x)
    if outputs == 1:
        torch.testing.assert_close(found, each.mean(0))
    else:
        torch.testing.assert_close(found.softmax(1), each.softmax(2).mean(0))
    assert len({round(float(value), 4) for value in each[:, 0, 0].detach()}) == MEMBERS


def test_first_factors_are_signs_and_the_others_one() -> None:
    made = build(Shape.of({"family": "mlp", "widths": (200, 5), "members": MEMBERS}, (300,), 2))
    initialize(made, {}, 1)
    assert isinstance(made, Mlp)
    first, second = (adapted(made, layer) for layer in (0, 1))
    signs = first.input_factor.detach()
    assert set(signs.tolist()) == {-1.0, 1.0}
    assert abs(float(signs.mean())) < 0.2
    assert bool((first.output_factor == 1).all())
    assert bool((second.input_factor == 1).all())


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_the_mean_of_the_members_losses(task: str, smoothing: float) -> None:
    made = network(1 if task == "regression" else 4).train()
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(8, 7, generator=generator)
    y = torch.randn(8, generator=generator) if task == "regression" else torch.randint(0, 4, (8,), generator=generator)
    out = copy.deepcopy(made)(x).detach()
    expected = [
        F.mse_loss(own.squeeze(1), y) if task == "regression" else F.cross_entropy(own, y, label_smoothing=smoothing)
        for own in out.unbind(1)
    ]
    recipe = {"optimizer": "sgd", "momentum": 0.0, "nesterov": False, "label_smoothing": smoothing}
    loss = update(made, optimizer_of(made, recipe), recipe, (x, y), lr=0.0, chance=Chance(0, x.device))
    assert loss == pytest.approx(float(np.mean(expected)), rel=1e-5)


def test_biases_of_members_have_the_rate_of_biases() -> None:
    factors = lr_factors(network(bias_lr_factor=0.1, fan_in_lr=True))
    assert factors["blocks.0.0.bias"] == factors["head.bias"] == 0.1
    assert factors["blocks.0.0.input_factor"] == factors["blocks.0.0.output_factor"] == 1.0
    assert factors["blocks.0.0.layer.weight"] == pytest.approx((256 / 7) ** 0.5)


@pytest.mark.parametrize("normalization", ["batch", "layer", "group", "weight", "none"])
def test_every_normalization_takes_members(normalization: str) -> None:
    made = network(normalization=normalization, normalization_groups=2)
    assert made.train()(torch.randn(6, 7)).shape == (6, MEMBERS, 4)
    assert made.eval()(torch.randn(6, 7)).shape == (6, 4)
