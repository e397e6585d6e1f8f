"""The snippet's networks for images and series are the service's own: output by output, update by update."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from service.report.snippet import snippet
from service.spec import Recipe
from service.spec.model import ACTIVATIONS, NORMALIZATIONS
from tests.unit.report.programs import adopt, counterparts, network_of, optimizer_of, program, spec
from tests.unit.stack.test_families import SHAPES, data, setting
from workers.plain.network import Shape, build, initialize
from workers.stack.stack import Stack, StackKey

CNNS: list[dict[str, Any]] = [
    *({"normalization": each, "activation": act} for each, act in zip(NORMALIZATIONS["cnn"], ACTIVATIONS * 2, strict=False)),
    *({"downsampling": each, "blocks": 2, "pooling": "max"} for each in ("max", "average")),
    {"shortcuts": False, "downsampling": "average", "normalization": "weight"},
]
SERIES: list[dict[str, Any]] = [
    {"cell": cell, "normalization": each, "pooling": how, "activation": act}
    for cell in ("gru", "transformer")
    for each, how, act in zip(NORMALIZATIONS["sequence"], ("mean", "max", "last", "mean"), ACTIVATIONS, strict=False)
]
CASES = [*(("cnn", each) for each in CNNS), *(("sequence", each) for each in SERIES)]


def of(family: str, **values: Any) -> Recipe:
    """Without dropout, whose masks are a stack's own."""
    none = {"dropout": 0.0, "input_dropout": 0.0, "head_dropout": 0.0}
    return setting(family, 2, **{**none, **values})


@pytest.mark.parametrize(("family", "values"), CASES, ids=str)
def test_its_network_says_what_the_service_s_says(family: str, values: dict[str, Any]) -> None:
    """With dropout, which is off; with statistics and gains that are no neutral elements."""
    recipe = of(family, **values, dropout=(0.1, 0.2), input_dropout=0.1, head_dropout=0.3, widths=(6, 9), heads=3)
    ours = build(Shape.of(recipe.effective(), SHAPES[family], 2))
    initialize(ours, recipe, 0)
    randomize(ours)
    theirs = program(recipe, spec())["make_model"](SHAPES[family][0 if family == "cnn" else 1], 2)
    adopt(theirs, ours)
    on = data(family)
    torch.testing.assert_close(theirs.eval()(on.x), ours.eval()(on.x), rtol=1e-4, atol=1e-5)
    kinds = [type(each).__name__ for each in theirs.modules() if "Dropout" in type(each).__name__]
    assert ("Dropout2d" in kinds) == (family == "cnn")


@torch.no_grad()
def randomize(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if value.dtype == torch.float32 and value.ndim == 1:
            value.copy_(torch.rand(value.shape, generator=generator) + (0.5 if name.endswith("weight") else 0.1))


# The bias of attention's keys has no gradient but rounding noise, which Adam scales up.
_PLAIN = {"optimizer": "sgd"}
UPDATES: list[tuple[str, dict[str, Any]]] = [
    ("cnn", {"normalization": "batch", "max_norm": 0.8, "optimizer": "sgd"}),
    ("cnn", {"normalization": "weight", "max_norm": 0.9, "l2": 0.01, "shortcuts": False}),
    ("cnn", {"normalization": "layer", "clip_norm": 0.5, "downsampling": "average", "pooling": "max"}),
    ("sequence", {"normalization": "batch", "pooling": "last", "max_norm": 0.9}),
    ("sequence", {"normalization": "layer", "pooling": "max", "weight_decay": 3.0}),
    ("sequence", {"normalization": "batch", "cell": "transformer", "l2": 0.01, **_PLAIN}),
    ("sequence", {"normalization": "group", "cell": "transformer", "proximal_l1": 0.1, **_PLAIN}),
]


@pytest.mark.parametrize(("family", "values"), UPDATES, ids=str)
def test_its_updates_are_those_of_the_stack(family: str, values: dict[str, Any]) -> None:
    recipe = of(family, **values)
    on = data(family)
    stack = Stack(StackKey.of(recipe, on.inputs, on.outputs), on)
    stack.resize([], 1)
    stack.load(0, recipe, seed=3)
    names = program(recipe, spec())
    model = names["make_model"](on.inputs[0 if family == "cnn" else 1], 2)
    adopt(model, network_of(stack))
    optimizer = optimizer_of(snippet(recipe, spec()), model)
    order = stack._batches()[0]
    model.train()
    for update in range(stack.updates):
        rows = order[update * stack.batch : (update + 1) * stack.batch]
        names["train_step"](model, optimizer, on.x[rows], on.y[rows], 0.003)
    stack.train_epoch(np.full((1, stack.updates), 0.003, dtype=np.float32))
    for ours, theirs in counterparts(network_of(stack), model):
        torch.testing.assert_close(theirs.detach(), ours.detach(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("family", "cell"), [("cnn", "gru"), ("sequence", "gru"), ("sequence", "transformer")])
@pytest.mark.parametrize("init", ["he", "orthogonal", "normal"])
def test_it_trains(family: str, cell: str, init: str) -> None:
    """From its own initial weights, with dropout, to better than chance."""
    recipe = setting(family, 1, cell=cell, normalization="layer", width=8, lr=0.02, init=init, init_std=0.2)
    torch.manual_seed(0)
    on = data(family)
    train, valid = on.train[0], on.valid[0]
    stopping = {**spec()["early_stopping"], "patience": 30}
    names = program(recipe, spec(budget={"epochs": 30}, early_stopping=stopping))
    model = names["train"](on.x[train], on.y[train], on.x[valid], on.y[valid], 2)
    assert (model(on.x[train]).argmax(1) == on.y[train]).float().mean() > 0.75
