"""Parts of the stack against references: torch's schedulers, statistics of the hash."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from service.spec import Recipe
from workers.calibration import choose
from workers.hashing import combine, draw, mix, permutations, uniform
from workers.stack.schedules import LaneSchedule

SCHEDULES: list[tuple[dict[str, Any], Any]] = [
    ({"lr_schedule": "constant"}, lambda o: torch.optim.lr_scheduler.ConstantLR(o, 1.0)),
    (
        {"lr_schedule": "step", "step_every": 3, "step_gamma": 0.4},
        lambda o: torch.optim.lr_scheduler.StepLR(o, 3, 0.4),
    ),
    (
        {"lr_schedule": "exponential", "exponential_gamma": 0.9},
        lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.9),
    ),
    (
        {"lr_schedule": "cosine", "cosine_floor": 0.1},
        lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 20, eta_min=0.1 * 0.5),
    ),
    (
        {"lr_schedule": "warm_restarts", "restart_period": 3, "restart_mult": 2, "cosine_floor": 0.0},
        lambda o: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(o, 3, 2),
    ),
]


@pytest.mark.parametrize(("settings", "make"), SCHEDULES, ids=[case[0]["lr_schedule"] for case in SCHEDULES])
def test_schedules_are_torchs(settings: dict[str, Any], make: Any) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    theirs = make(optimizer)
    ours = LaneSchedule(Recipe({"lr": 0.5, **settings}), 20)
    for epoch in range(20):
        np.testing.assert_allclose(ours.rates(epoch, 3), [optimizer.param_groups[0]["lr"]] * 3, rtol=1e-5)
        optimizer.step()
        theirs.step()


def test_plateau_is_torchs() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.3, patience=2, threshold=0.0, eps=0.0)
    recipe = Recipe({"lr": 0.5, "lr_schedule": "plateau", "plateau_patience": 2, "plateau_factor": 0.3})
    ours = LaneSchedule(recipe, 100)
    rng = np.random.default_rng(0)
    for epoch in range(60):
        np.testing.assert_allclose(ours.rates(epoch, 1), [optimizer.param_groups[0]["lr"]], rtol=1e-5)
        loss = float(rng.normal(loc=1 / (epoch + 1), scale=0.3))
        ours.observe(epoch, loss)
        optimizer.step()
        theirs.step(loss)


def test_warmup_climbs_in_every_update_and_delays_the_schedule() -> None:
    recipe = Recipe({"lr": 1.0, "lr_schedule": "step", "step_every": 1, "step_gamma": 0.5, "warmup_epochs": 2})
    ours = LaneSchedule(recipe, 6)
    rates = np.concatenate([ours.rates(epoch, 2) for epoch in range(4)])
    np.testing.assert_allclose(rates, [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 0.5, 0.5])


def test_the_hash_is_uniform_and_its_inputs_are_independent() -> None:
    keys = torch.arange(200, dtype=torch.int32)
    mixed = combine(keys, 7)
    draws = uniform(draw(mixed[:, None], torch.arange(500, dtype=torch.int32)[None])).numpy()
    assert stats.kstest(draws.ravel(), "uniform").pvalue > 0.001
    assert abs(np.corrcoef(draws[:-1].ravel(), draws[1:].ravel())[0, 1]) < 0.02
    assert abs(np.corrcoef(draws[:, :-1].ravel(), draws[:, 1:].ravel())[0, 1]) < 0.02


def test_the_hash_is_a_bijection_with_avalanche() -> None:
    x = torch.arange(1 << 16, dtype=torch.int32)
    assert len(torch.unique(mix(x))) == len(x)
    flipped = mix(x) ^ mix(x ^ 1)
    bits = sum(((flipped >> bit) & 1).float().mean().item() for bit in range(32))
    assert bits == pytest.approx(16, abs=0.5)


def test_permutations_are_permutations_and_uniform() -> None:
    keys = combine(torch.arange(2000, dtype=torch.int32), 1)
    orders = permutations(keys, 5)
    assert torch.equal(orders.sort(1).values, torch.arange(5).expand(2000, 5))
    counts = np.bincount(orders[:, 0].numpy(), minlength=5)
    assert stats.chisquare(counts).pvalue > 0.001
    assert torch.equal(orders, permutations(keys, 5))


def test_the_smallest_stack_that_is_nearly_the_fastest_is_chosen() -> None:
    assert choose({1: 10.0, 4: 30.0, 16: 99.0, 32: 101.0}) == 16
    assert choose({1: 10.0}) == 1
