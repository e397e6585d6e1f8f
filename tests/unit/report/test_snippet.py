"""The snippet runs, and is what the stack did: its rates, its network, and its updates beside those of a lane."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from service.report.schedule_code import SCHEDULES
from service.report.snippet import NoSnippet, snippet
from service.spec import SETTINGS
from service.spec.groups.lr_schedule import SCHEDULES as ALL_SCHEDULES
from tests.unit.report.programs import EPOCHS, adopt, counterparts, network_of, optimizer_of, program, spec
from tests.unit.stack.runs import CLASSES, FEATURES, ROWS, data, recipe
from tests.unit.stack.test_embeddings import LEVELS, categories
from workers.plain.schedules import Schedule
from workers.stack.stack import Stack, StackKey


def test_it_knows_every_schedule() -> None:
    assert set(SCHEDULES) == set(ALL_SCHEDULES)


@pytest.mark.parametrize("name", [name for name in ALL_SCHEDULES if name not in ("noisy_linear_cosine", "plateau")])
@pytest.mark.parametrize("warmup", [0, 2])
def test_its_rates_are_those_of_the_stack(name: str, warmup: int) -> None:
    setting = recipe(lr_schedule=name, warmup_epochs=warmup, step_every=2, restart_period=2, cosine_floor=0.1)
    rate = program(setting, spec())["learning_rate"]
    schedule = Schedule(setting, EPOCHS)
    for epoch in range(EPOCHS):
        found = [rate(epoch, update, 4) for update in range(4)]
        np.testing.assert_allclose(found, schedule.rates(epoch, 4), rtol=1e-5, atol=1e-12)


def test_noise_without_variance_is_no_noise() -> None:
    rate = program(recipe(lr_schedule="noisy_linear_cosine", noise_variance=0.0), spec())["learning_rate"]
    calm = program(recipe(lr_schedule="linear_cosine"), spec())["learning_rate"]
    assert [rate(epoch, 0, 1) for epoch in range(EPOCHS)] == [calm(epoch, 0, 1) for epoch in range(EPOCHS)]


def only_classes(values: dict[str, Any]) -> bool:
    return any(SETTINGS[name].task == "classification" for name in values)


CASES: list[dict[str, Any]] = [
    {"optimizer": "sgd", "momentum": 0.7, "nesterov": True, "l1": 1e-3, "max_norm": 0.8},
    {"optimizer": "adamw", "weight_decay": 3.0, "normalization": "batch", "adam_beta1": 0.8},
    {"optimizer": "adam", "l2": 0.05, "normalization": "weight", "proximal_l1": 0.3, "max_norm": 0.9},
    {"optimizer": "rmsprop", "clip_norm": 0.1, "normalization": "group", "normalization_groups": 4, "activation": "gelu"},
    {"optimizer": "adagrad", "clip_value": 0.01, "normalization": "layer", "activation": "elu", "weight_decay": 500.0},
    {"optimizer": "adadelta", "activation": "tanh", "depth": 0},
    {"skip_connections": True, "normalization": "batch", "normalization_position": "after", "width": FEATURES, "l2": 0.01},
    {"skip_connections": True, "normalization": "weight", "activation": "silu", "max_norm": 0.7},
    {"label_smoothing": 0.2, "class_weights": 0.7},
]


@pytest.mark.parametrize(
    ("values", "task"),
    [
        (each, task)
        for each in CASES
        for task in ("classification", "regression")
        if task[0] == "c" or not only_classes(each)
    ],
)
def test_its_updates_are_those_of_the_stack(values: dict[str, Any], task: str) -> None:
    setting = recipe(**values)
    on = data(task=task)
    stack = Stack(StackKey.of(setting, on.inputs, on.outputs), on)
    stack.resize([], 1)
    stack.load(0, setting, seed=3)
    names = program(setting, spec(task))
    model = names["make_model"](FEATURES, CLASSES if task == "classification" else 1)
    adopt(model, network_of(stack))
    optimizer = optimizer_of(snippet(setting, spec(task)), model)
    batches = stack._batches()[0]
    weights = [stack.hyper.class_weights[0]] if setting.number("class_weights") else []
    model.train()
    for update in range(stack.updates):
        rows = batches[update * stack.batch : (update + 1) * stack.batch]
        names["train_step"](model, optimizer, on.x[rows], on.y[rows], 0.01, *weights)
    stack.train_epoch(np.full((1, stack.updates), 0.01, dtype=np.float32))
    for ours, theirs in counterparts(network_of(stack), model):
        torch.testing.assert_close(theirs.detach(), ours.detach(), rtol=2e-4, atol=2e-5)


def test_its_embeddings_are_those_of_the_stack() -> None:
    on = categories()
    setting = recipe(embedding=4, depth=1, l2=0.1, max_norm=0.9, weight_decay=2.0)
    stack = Stack(StackKey.of(setting, on.inputs, on.outputs, on.categories), on)
    stack.resize([], 1)
    stack.load(0, setting, seed=3)
    names = program(setting, spec())
    model = names["make_model"](on.inputs[0], CLASSES, list(LEVELS))
    adopt(model, network_of(stack))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.0)
    model.train()
    batches = stack._batches()[0]
    for update in range(stack.updates):
        rows = batches[update * stack.batch : (update + 1) * stack.batch]
        names["train_step"](model, optimizer, on.x[rows], on.y[rows], 0.01)
    stack.train_epoch(np.full((1, stack.updates), 0.01, dtype=np.float32))
    for ours, theirs in counterparts(network_of(stack), model):
        torch.testing.assert_close(theirs.detach(), ours.detach(), rtol=2e-4, atol=2e-5)
    names["train"](on.x, on.y, on.x, on.y, CLASSES, list(LEVELS))


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_it_trains_with_everything_on(task: str) -> None:
    setting = recipe(dropout=(0.1, 0.2), input_dropout=0.05, lr_schedule="plateau", plateau_patience=2, init="xavier")
    torch.manual_seed(0)
    on = data(task=task)
    train, valid = on.train[0], on.valid[0]
    outputs = CLASSES if task == "classification" else 1
    stopping = {**spec()["early_stopping"], "patience": 15}
    names = program(setting, spec(task, budget={"epochs": 60}, early_stopping=stopping))
    model = names["train"](on.x[train], on.y[train], on.x[valid], on.y[valid], outputs)
    out = model(on.x[valid]).detach()
    target = on.y[valid]
    if task == "classification":
        assert (out.argmax(1) == target).float().mean() > 0.6
    else:
        assert (out[:, 0] - target).square().mean() < 0.5 * target.square().mean()
    assert len(train) == ROWS


def test_without_early_stopping_it_trains_to_the_end() -> None:
    text = snippet(recipe(), spec(early_stopping=None))
    assert "break" not in text
    on = data()
    program(recipe(), spec(early_stopping=None))["train"](on.x, on.y, on.x, on.y, CLASSES)


@pytest.mark.parametrize("name", ["activation", "optimizer", "init", "init_distribution"])
def test_it_has_a_line_for_every_word(name: str) -> None:
    """It must not stop at a value of a setting that it knows."""
    for word in SETTINGS[name].words:
        model = program(recipe(**{name: word}), spec())["make_model"](FEATURES, CLASSES)
        assert model(torch.zeros(2, FEATURES)).shape == (2, CLASSES)


def test_what_it_cannot_say_it_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NoSnippet, match="family forest"):
        snippet(recipe(family="forest"), spec())
    monkeypatch.setattr("service.report.snippet._KNOWN", {"lr"})
    with pytest.raises(NoSnippet, match="no snippet with width, l1, batch_size"):
        snippet(recipe(lr=0.5, l1=0.1), spec())
