"""Embeddings of categories beside `nn.Embedding` and torch alone, in stacks whose lanes all differ."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from service.spec import Recipe
from tests.unit.stack.reference import alone, network_of
from tests.unit.stack.runs import CLASSES, protocol, recipe
from workers.data import Division, RawTable, prepare_all, split_rows
from workers.plain.embedding import Embeddings
from workers.plain.network import Shape, build, initialize
from workers.stack.device_data import DeviceData
from workers.stack.run import Run
from workers.stack.runner import StackRunner
from workers.stack.stack import Stack, StackKey

LEVELS = (4, 7)
EPOCHS = 5


def categories(folds: int | None = None) -> DeviceData:
    """Three numbers and two categories; 60 training rows."""
    rng = np.random.default_rng(1)
    rows = 100
    numbers = {f"x{index}": rng.normal(size=rows) for index in range(3)}
    words = {
        name: [f"{name}{code}" for code in rng.permutation(np.arange(rows) % size)]
        for name, size in zip("ab", LEVELS, strict=True)
    }
    features = pd.DataFrame({**numbers, **words})
    hashes = np.arange(rows, dtype=np.uint64)
    table = RawTable(
        features, rng.integers(0, CLASSES, rows), "classification", ("p", "q", "r"), ("a", "b"), row_hashes=hashes
    )
    parts = prepare_all(table, split_rows(table, Division(0, folds=folds)))
    return DeviceData.of(parts, task="classification", outputs=CLASSES, device=torch.device("cpu"))


def key_of(setting: Recipe, on: DeviceData) -> StackKey:
    return StackKey.of(setting, on.inputs, on.outputs, on.categories)


class Looked(nn.Module):
    """The network with `nn.Embedding`, which looks up integer codes."""

    def __init__(self, ours: nn.Module) -> None:
        super().__init__()
        tables = [value.shape for name, value in ours.named_parameters() if name.startswith("embeddings.")]
        self.tables = nn.ModuleList(nn.Embedding(levels, width) for levels, width in tables)
        before = 3 + sum(width for _, width in tables)
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in zip((before, 16), (16, CLASSES), strict=True))
        self.load_state_dict(dict(zip(self.state_dict(), ours.state_dict().values(), strict=True)))

    def forward(self, x: Tensor) -> Tensor:
        codes = [block.argmax(1) for block in torch.split(x[:, 3:], list(LEVELS), 1)]
        x = torch.cat([x[:, :3], *(table(code) for table, code in zip(self.tables, codes, strict=True))], 1)
        first, head = self.layers
        out: Tensor = head(F.relu(first(x)))
        return out


def looked_up(setting: Recipe, seed: int, on: DeviceData) -> tuple[Looked, list[float]]:
    """Trained by torch alone, from the same initial weights."""
    module = Looked(network_of(setting, seed, on))
    return module, alone(setting, seed, on, EPOCHS, network=module).losses


LANES: dict[str, list[dict[str, Any]]] = {
    "adamw": [{}, {"weight_decay": 5.0, "lr": 0.03}, {"l1": 1e-3, "l2": 0.1}, {"proximal_l1": 0.5, "clip_norm": 0.2}],
    "sgd": [{"lr": 0.1}, {"momentum": 0.9}, {"max_norm": 0.7, "lr": 0.2}, {"l2": 0.3, "clip_value": 0.01, "lr": 0.1}],
}


@pytest.mark.parametrize("optimizer", list(LANES))
def test_a_stack_of_different_lanes_is_torch_with_lookups(optimizer: str) -> None:
    on = categories()
    assert on.categories == LEVELS
    settings = [recipe(embedding=600, depth=1, optimizer=optimizer, **values) for values in LANES[optimizer]]
    stack = StackRunner(key_of(settings[0], on), on)
    runs = [Run(seed, setting, ((0, seed),), protocol(epochs=EPOCHS)) for seed, setting in enumerate(settings)]
    stack.add(runs)
    for _ in range(EPOCHS):
        stack.epoch()
    rows = on.valid[0]
    (block,) = stack.blocks
    out = block.stack.predict(*block.stack.state.evaluated(), rows.repeat(len(runs), 1))
    for lane, (run, setting) in enumerate(zip(runs, settings, strict=True)):
        module, losses = looked_up(setting, lane, on)
        np.testing.assert_allclose(run.curve["train_loss"], losses, rtol=2e-4)
        torch.testing.assert_close(out[lane], module(on.x[rows]), rtol=1e-3, atol=1e-4)
        found = stack.blocks[0].stack.model.state_dict(
            stack.blocks[0].stack.state.weights[lane], stack.blocks[0].stack.state.stats[lane]
        )
        for place, table in enumerate(module.tables):
            ours = found[f"embeddings.tables.{place}.weight"]
            torch.testing.assert_close(ours, table.get_parameter("weight").detach(), rtol=1e-3, atol=1e-4)


def test_outputs_and_gradients_are_those_of_the_lookup() -> None:
    layer = Embeddings(5, [2, 2], 600)
    codes = torch.tensor([[0, 1], [1, 1], [0, 0]])
    numbers = torch.randn(3, 1)
    x = torch.cat([numbers, F.one_hot(codes[:, 0], 2), F.one_hot(codes[:, 1], 2)], 1)
    tables = [table.get_parameter("weight").detach().clone().requires_grad_() for table in layer.tables]
    expected = torch.cat([numbers, *(F.embedding(codes[:, place], table) for place, table in enumerate(tables))], 1)
    out = layer(x)
    torch.testing.assert_close(out, expected, rtol=0.0, atol=0.0)
    weight = torch.randn(out.shape)
    (out * weight).sum().backward()
    (expected * weight).sum().backward()  # type: ignore[no-untyped-call]
    for mine, theirs in zip(layer.parameters(), tables, strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=0.0, atol=0.0)
    unseen = layer(torch.zeros(1, 5))
    assert not unseen.any()


@pytest.mark.parametrize(("widest", "sizes"), [(0, []), (2, [(4, 2), (7, 2)]), (600, [(4, 3), (7, 5)])])
def test_widths_follow_the_rule_up_to_the_setting(widest: int, sizes: list[tuple[int, int]]) -> None:
    on = categories()
    network = build(key_of(recipe(embedding=widest), on).shape)
    assert [tuple(value.shape) for name, value in network.named_parameters() if "tables" in name] == sizes


def test_equal_graphs_have_equal_shapes() -> None:
    on = categories()
    assert key_of(recipe(embedding=600), on) == key_of(recipe(embedding=5), on) != key_of(recipe(embedding=4), on)
    assert StackKey.of(recipe(embedding=600), (3,), CLASSES) == StackKey.of(recipe(), (3,), CLASSES)


def test_a_lane_with_dropout_and_mixing_is_itself_in_any_stack() -> None:
    on = categories(folds=3)
    noisy = {"input_dropout": 0.3, "dropout": 0.2, "mixup": 0.4, "feature_masking": 0.1, "normalization": "batch"}
    settings = [recipe(embedding=4, **noisy, lr=lr) for lr in (0.003, 0.01, 0.03)]

    def weights(lanes: list[int]) -> Tensor:
        stack = Stack(key_of(settings[0], on), on)
        stack.resize([], len(lanes))
        for place, lane in enumerate(lanes):
            stack.load(place, settings[lane], seed=lane, fold=lane)
        for _ in range(3):
            stack.train_epoch(np.full((len(lanes), stack.updates), 0.01, dtype=np.float32))
        return stack.state.weights

    together = weights([0, 1, 2])
    for lane in range(3):
        torch.testing.assert_close(weights([lane])[0], together[lane], rtol=1e-3, atol=1e-4)


def test_initial_embeddings_are_standard_normal() -> None:
    module = build(Shape.of(recipe(embedding=600, init="xavier").effective(), (1000,), 2, (900,)))
    initialize(module, recipe(), 3)
    table = module.get_parameter("embeddings.tables.0.weight").detach()
    assert table.shape == (900, 72)
    assert abs(table.mean().item()) < 0.02
    assert abs(table.std().item() - 1.0) < 0.02
