"""Optimizers against torch.optim over many updates: every lane of a stack of different settings is its trial alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from service.spec import Recipe
from service.spec.groups.optimizer import OPTIMIZERS
from tests.unit.stack.runs import data, recipe
from workers.stack.flat import FlatModel
from workers.stack.lanes import LaneState, blank_columns, load_columns
from workers.stack.optimizers import RULES, bias_corrections
from workers.stack.stack import StackKey
from workers.stack.techniques import Step, techniques_of
from workers.stack.update import Update

UPDATES = 300

Make = Callable[[list[Tensor], Recipe], torch.optim.Optimizer]


def sgd(params: list[Tensor], r: Recipe) -> torch.optim.Optimizer:
    nesterov = r.flag("nesterov") and r.number("momentum") > 0
    return torch.optim.SGD(
        params, lr=r.number("lr"), momentum=r.number("momentum"), nesterov=nesterov, weight_decay=r.number("l2")
    )


def adam(params: list[Tensor], r: Recipe) -> torch.optim.Optimizer:
    betas = (r.number("adam_beta1"), r.number("adam_beta2"))
    return torch.optim.Adam(params, lr=r.number("lr"), betas=betas, weight_decay=r.number("l2"))


def adamw(params: list[Tensor], r: Recipe) -> torch.optim.Optimizer:
    betas = (r.number("adam_beta1"), r.number("adam_beta2"))
    return torch.optim.AdamW(params, lr=r.number("lr"), betas=betas, weight_decay=r.number("weight_decay"))


def plain(rule: Any) -> Make:
    return lambda params, r: rule(params, lr=r.number("lr"), weight_decay=r.number("l2"))


THEIRS: dict[str, Make] = {
    "sgd": sgd,
    "adam": adam,
    "adamw": adamw,
    "rmsprop": plain(torch.optim.RMSprop),
    "adagrad": plain(torch.optim.Adagrad),
    "adadelta": plain(torch.optim.Adadelta),
}
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "sgd": [{"momentum": 0.0}, {"momentum": 0.5}, {"momentum": 0.9, "nesterov": True, "l2": 0.1}],
    "adam": [{"l2": 0.1}, {"adam_beta1": 0.5}, {"adam_beta2": 0.9, "lr": 0.05}],
    "adamw": [{"weight_decay": 1.0}, {"adam_beta1": 0.0}, {"adam_beta2": 0.99999, "weight_decay": 10.0}],
    "rmsprop": [{}, {"l2": 0.3}, {"lr": 0.001}],
    "adagrad": [{}, {"l2": 0.3}, {"lr": 0.5}],
    "adadelta": [{"lr": 1.0}, {"l2": 0.3, "lr": 0.5}, {}],
}


class Bowl:
    """A narrow quadratic bowl with a moving slope: gradients that change in size and sign."""

    def __init__(self, size: int) -> None:
        generator = torch.Generator().manual_seed(3)
        self.scale = torch.exp(0.5 * torch.randn(size, generator=generator))
        self.start = torch.randn(size, generator=generator)

    def gradient(self, weights: Tensor, update: int) -> Tensor:
        slope = torch.sin(torch.arange(weights.shape[-1]) + 0.3 * update)
        return self.scale * weights + slope


def ours(settings: Sequence[Recipe], updates: int = UPDATES) -> Tensor:
    """(k, P) weights behind all updates, the first matrices of the network being penalized as ever."""
    on = data()
    key = StackKey.of(settings[0], on.inputs, on.outputs)
    model = FlatModel(key.shape, on.device)
    bowl, k = Bowl(model.parameters), len(settings)
    update = Update(model, key.optimizer, "classification", techniques_of(settings))
    columns = blank_columns(k, model.dropouts, on.device)
    for lane, setting in enumerate(settings):
        load_columns(columns, lane, setting, rates=model.rates(setting), seed=lane)
    state = LaneState.zeros(
        k, parameters=model.parameters, statistics=0, moments=RULES[key.optimizer].moments, averaging=False, device=on.device
    )
    state.weights += bowl.start
    lr = torch.tensor([setting.number("lr") for setting in settings])
    for number in range(updates):
        state.updates += 1
        (bias,) = bias_corrections(columns["rest1"], columns["rest2"], state.updates[None])
        gradient = bowl.gradient(state.weights, number)
        places = (model.penalty_mask(), model.body_mask(), model.units())
        update.apply(Step(gradient, state, columns, lr, torch.zeros(k), torch.zeros(k, 1), *places), bias)
    return state.weights


def ours_once(setting: Recipe) -> Tensor:
    """(P,) weights behind one update from the bowl's start."""
    return ours([setting], updates=1)[0]


def theirs(setting: Recipe) -> Tensor:
    """(P,) weights of the same training by torch.optim, with biases in a group that is not penalized."""
    on = data()
    model = FlatModel(StackKey.of(setting, on.inputs, on.outputs).shape, on.device)
    bowl, mask = Bowl(model.parameters), model.penalty_mask() > 0
    penalized, free = bowl.start[mask].requires_grad_(), bowl.start[~mask].requires_grad_()
    optimizer = THEIRS[setting.word("optimizer")]([penalized, free], setting)
    group = optimizer.param_groups[0]
    optimizer.param_groups[0] = {**group, "params": [penalized]}
    optimizer.add_param_group({**group, "params": [free], "weight_decay": 0.0})
    whole = bowl.start.clone()
    for number in range(UPDATES):
        gradient = bowl.gradient(whole, number)
        penalized.grad, free.grad = gradient[mask], gradient[~mask]
        optimizer.step()
        whole[mask], whole[~mask] = penalized.detach(), free.detach()
    return whole


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_lane_is_torch_optim(optimizer: str) -> None:
    settings = [recipe(optimizer=optimizer, **values) for values in SETTINGS[optimizer]]
    together = ours(settings)
    for lane, setting in enumerate(settings):
        torch.testing.assert_close(together[lane], theirs(setting), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(together[lane], ours([setting])[0], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_weight_decay_is_decoupled_under_every_rule(optimizer: str) -> None:
    """One update with decay is the decay, then the update without it, which does not look at the weights."""
    plain, decayed = ours_once(recipe(optimizer=optimizer)), ours_once(recipe(optimizer=optimizer, weight_decay=20.0))
    mask = FlatModel(StackKey.of(recipe(), (6,), 3).shape, torch.device("cpu")).penalty_mask()
    start = Bowl(len(mask)).start
    torch.testing.assert_close(decayed, plain - 0.01 * 20.0 * mask * start, rtol=1e-5, atol=1e-6)
