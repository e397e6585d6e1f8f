"""Lanes that begin with the weights of another network, all free or with a frozen body, beside torch alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from service.spec import Recipe
from tests.unit.stack.reference import alone
from tests.unit.stack.runs import CLASSES, data, protocol, recipe
from workers.plain.network import build, initialize
from workers.stack.device_data import DeviceData
from workers.stack.run import Run
from workers.stack.runner import StackRunner
from workers.stack.stack import Stack, StackKey

EPOCHS = 4


def earlier(setting: Recipe, *, head: bool) -> DeviceData:
    """Data whose lanes begin with weights and running statistics that are no neutral elements."""
    on = data()
    module = build(StackKey.of(setting, on.inputs, on.outputs).shape)
    initialize(module, setting, 99)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, value in [*module.named_parameters(), *module.named_buffers()]:
            if value.dtype == torch.float32 and value.ndim == 1:
                # A unit that is always on would get a bias that the next batch normalization takes away again.
                value.copy_(
                    torch.rand(value.shape, generator=generator) - (0.5 if name.endswith(("bias", "mean")) else -0.5)
                )
    kept = {name: value for name, value in module.state_dict().items() if "num_batches" not in name}
    return replace(on, start={name: value for name, value in kept.items() if head or not name.startswith("head.")})


LANES: dict[str, list[dict[str, Any]]] = {
    "adamw": [
        {"fine_tune": "all", "weight_decay": 5.0},
        {"fine_tune": "head", "weight_decay": 5.0, "lr": 0.05},
        {"fine_tune": "head", "l1": 1e-3, "l2": 0.1, "clip_norm": 0.3},
        {"fine_tune": "all", "proximal_l1": 0.5, "clip_norm": 0.2},
        {"fine_tune": "off", "l2": 0.01},
    ],
    "sgd": [
        {"fine_tune": "head", "lr": 0.1, "max_norm": 0.7, "momentum": 0.8},
        {"fine_tune": "all", "lr": 0.1, "max_norm": 0.7},
        {"fine_tune": "head", "clip_value": 0.01, "proximal_l1": 0.2, "lr": 0.3},
    ],
}


@pytest.mark.parametrize("head", [False, True])
@pytest.mark.parametrize("normalization", ["none", "batch", "weight"])
@pytest.mark.parametrize("optimizer", list(LANES))
def test_a_stack_of_different_lanes_is_torch_alone(optimizer: str, normalization: str, head: bool) -> None:
    settings = [recipe(optimizer=optimizer, normalization=normalization, **values) for values in LANES[optimizer]]
    on = earlier(settings[0], head=head)
    stack = StackRunner(StackKey.of(settings[0], on.inputs, on.outputs), on)
    runs = [Run(seed, setting, ((0, seed),), protocol(epochs=EPOCHS)) for seed, setting in enumerate(settings)]
    stack.add(runs)
    for _ in range(EPOCHS):
        stack.epoch()
    out = stack.blocks[0].stack.predict(*stack.blocks[0].stack.state.evaluated(), on.valid[0].repeat(len(runs), 1))
    for lane, (run, setting) in enumerate(zip(runs, settings, strict=True)):
        found = alone(setting, lane, on, EPOCHS)
        np.testing.assert_allclose(run.curve["train_loss"], found.losses, rtol=5e-4)
        torch.testing.assert_close(out[lane], found.network(on.x[on.valid[0]]), rtol=2e-3, atol=3e-4)
        frozen = {name: value for name, value in stack.blocks[0].stack.best(lane).items() if not name.startswith("head.")}
        if setting.word("fine_tune") == "head":
            assert on.start is not None
            for name, value in frozen.items():
                torch.testing.assert_close(value, on.start[name], rtol=0.0, atol=0.0)


@pytest.mark.parametrize("head", [False, True])
def test_a_lane_begins_with_the_given_weights_and_a_head_of_its_own_where_there_is_none(head: bool) -> None:
    setting = recipe(fine_tune="all", normalization="batch")
    on = earlier(setting, head=head)
    assert on.start is not None
    stack = Stack(StackKey.of(setting, on.inputs, on.outputs), on)
    stack.resize([], 3)
    for lane, choice in enumerate(("all", "head", "off")):
        stack.load(lane, Recipe({**setting, "fine_tune": choice}), seed=lane)
    begun: list[dict[str, Tensor]] = [stack.model.state_dict(stack.state.weights[i], stack.state.stats[i]) for i in range(3)]
    for name, value in on.start.items():
        assert torch.equal(begun[0][name], value)
        assert torch.equal(begun[1][name], value)
        assert not torch.equal(begun[2][name], value)
    assert torch.equal(begun[0]["head.weight"], begun[1]["head.weight"]) == head


def test_what_is_frozen_costs_stacks_without_it_nothing() -> None:
    setting = recipe(fine_tune="all")
    stack = Stack(StackKey.of(setting, (6,), CLASSES), earlier(setting, head=True))
    stack.resize([], 1)
    stack.load(0, setting, seed=1)
    assert stack.techniques == frozenset()
    stack.load(0, recipe(fine_tune="head"), seed=1)
    assert stack.techniques == {"frozen"}
