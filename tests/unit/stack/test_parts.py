"""Parts of the stack against references: torch's schedulers, statistics of the hash."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from service.spec import Recipe
from service.spec.groups.lr_schedule import SCHEDULES as NAMES_OF_SCHEDULES
from workers.plain.schedules import Schedule
from workers.stack import hashing
from workers.stack.hashing import combine, draw, mix, normal, permutations, uniform
from workers.stack.run import Protocol, Run
from workers.stack.techniques.mixing import beta_quantiles, shares


def tensorflow(formula: Callable[[float], float]) -> Any:
    """A formula of TensorFlow 1's learning_rate_decay as a scheduler, of global_step / decay_steps."""
    return lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda step: formula(step / 20))


SCHEDULES: list[tuple[dict[str, Any], Any]] = [
    ({"lr_schedule": "flat_cosine"}, tensorflow(lambda t: 1.0 if t < 0.5 else 0.5 * (1 + math.cos(math.pi * (2 * t - 1))))),
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
    (
        {"lr_schedule": "piecewise", "piecewise_first": 0.25, "piecewise_second": 0.7, "piecewise_gamma": 0.3},
        lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [5, 14], 0.3),
    ),
    (
        {"lr_schedule": "polynomial", "polynomial_power": 2.5},
        lambda o: torch.optim.lr_scheduler.PolynomialLR(o, 20, power=2.5),
    ),
    ({"lr_schedule": "natural_exponential", "decay_rate": 2.0}, tensorflow(lambda t: math.exp(-2.0 * t))),
    ({"lr_schedule": "inverse_time", "decay_rate": 4.0}, tensorflow(lambda t: 1 / (1 + 4.0 * t))),
    (
        {"lr_schedule": "linear_cosine", "linear_cosine_periods": 1.5},
        tensorflow(lambda t: (1 - t) * 0.5 * (1 + math.cos(math.pi * 2 * 1.5 * t)) + 0.001),
    ),
]


@pytest.mark.parametrize(("settings", "make"), SCHEDULES, ids=[case[0]["lr_schedule"] for case in SCHEDULES])
def test_schedules_are_torchs(settings: dict[str, Any], make: Any) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    theirs = make(optimizer)
    ours = Schedule(Recipe({"lr": 0.5, **settings}), 20)
    for epoch in range(20):
        np.testing.assert_allclose(ours.rates(epoch, 3), [optimizer.param_groups[0]["lr"]] * 3, rtol=1e-5)
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize(("rise", "divisor"), [(0.3, 25.0), (0.5, 4.0), (0.1, 100.0)])
def test_one_cycle_is_torchs_in_every_update(rise: float, divisor: float) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.5, total_steps=60, pct_start=rise, div_factor=divisor, cycle_momentum=False
    )
    recipe = Recipe({"lr": 0.5, "lr_schedule": "one_cycle", "one_cycle_rise": rise, "one_cycle_divisor": divisor})
    ours = Schedule(recipe, 20)
    for rate in np.concatenate([ours.rates(epoch, 3) for epoch in range(20)]):
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-5)
        optimizer.step()
        if theirs.last_epoch < 59:
            theirs.step()


def test_coslog4_is_its_formula_in_every_update() -> None:
    rates = np.concatenate(
        [Schedule(Recipe({"lr": 0.5, "lr_schedule": "coslog4"}), 20).rates(epoch, 3) for epoch in range(20)]
    )
    expected = [0.25 * (1 - math.cos(2 * math.pi * math.log2(1 + 15 * update / 60))) for update in range(60)]
    np.testing.assert_allclose(rates, expected, rtol=1e-5, atol=1e-7)
    assert all(rates[round(60 * end / 15)] < 1e-6 for end in (1, 3, 7)), "where its cycles end"


@pytest.mark.parametrize("name", ["dropout", "weight_decay"])
def test_strengths_are_constant_and_then_fall_as_a_cosine(name: str) -> None:
    setting = Recipe({f"{name}_schedule": "flat_cosine"})
    run = Run(0, setting, ((0, 0),), Protocol("loss", 10, None))
    found = []
    for run.epoch in range(10):
        strengths = run.strengths()
        assert strengths is not None
        found.append(strengths[name == "weight_decay"])
        assert strengths[name != "weight_decay"] == 1.0
    expected = [1.0] * 5 + [0.5 * (1 + math.cos(math.pi * (2 * epoch / 10 - 1))) for epoch in range(5, 10)]
    np.testing.assert_allclose(found, expected)
    assert Run(0, Recipe({}), ((0, 0),), Protocol("loss", 10, None)).strengths() is None


def test_noisy_linear_cosine_is_the_published_formula_with_noise_of_the_trials_own_seed() -> None:
    """Averaged over seeds it is linear_cosine where that is not cut off at 0, and its spread is the formula's."""
    noisy = Recipe({"lr": 1.0, "lr_schedule": "noisy_linear_cosine", "noise_variance": 0.01, "noise_decay": 0.5})
    plain = Schedule(Recipe({"lr": 1.0, "lr_schedule": "linear_cosine"}), 20)
    for epoch in (0, 3, 10):
        rates = np.array([Schedule(noisy, 20, seed).rates(epoch, 2) for seed in range(4000)])
        assert np.ptp(rates, axis=1).max() == 0.0
        oscillation = (1 + math.cos(math.pi * epoch / 20)) / 2
        deviation = oscillation * math.sqrt(0.01 / (1 + epoch) ** 0.5)
        assert rates.mean() == pytest.approx(plain.rates(epoch, 1)[0], abs=4 * deviation / math.sqrt(4000))
        assert rates.std() == pytest.approx(deviation, rel=0.05)
    assert Schedule(noisy, 20, 5).rates(7, 1) == Schedule(noisy, 20, 5).rates(7, 1)
    wild = Recipe({**noisy, "noise_variance": 10.0})
    assert min(Schedule(wild, 20, seed).rates(0, 1)[0] for seed in range(50)) == 0.0


def test_plateau_is_torchs() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.3, patience=2, threshold=0.0, eps=0.0)
    recipe = Recipe({"lr": 0.5, "lr_schedule": "plateau", "plateau_patience": 2, "plateau_factor": 0.3})
    ours = Schedule(recipe, 100)
    rng = np.random.default_rng(0)
    for epoch in range(60):
        np.testing.assert_allclose(ours.rates(epoch, 1), [optimizer.param_groups[0]["lr"]], rtol=1e-5)
        loss = float(rng.normal(loc=1 / (epoch + 1), scale=0.3))
        ours.observe(epoch, loss)
        optimizer.step()
        theirs.step(loss)


@pytest.mark.parametrize("schedule", NAMES_OF_SCHEDULES)
def test_warmup_goes_in_front_of_any_schedule(schedule: str) -> None:
    """Behind a warmup of 4 the schedule is that of 16 epochs."""
    late = Schedule(Recipe({"lr": 0.5, "lr_schedule": schedule, "warmup_epochs": 4}), 20, seed=3)
    short = Schedule(Recipe({"lr": 0.5, "lr_schedule": schedule}), 16, seed=3)
    for epoch in range(16):
        np.testing.assert_array_equal(late.rates(4 + epoch, 3), short.rates(epoch, 3))
    assert late.rates(3, 3)[-1] == pytest.approx(0.5)


def test_warmup_climbs_in_every_update_and_delays_the_schedule() -> None:
    recipe = Recipe({"lr": 1.0, "lr_schedule": "step", "step_every": 1, "step_gamma": 0.5, "warmup_epochs": 2})
    ours = Schedule(recipe, 6)
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


def test_the_normal_numbers_are_normal_and_their_neighbours_independent() -> None:
    keys = combine(torch.arange(200, dtype=torch.int32), 3)
    draws = normal(keys[:, None], torch.arange(500, dtype=torch.int32)[None]).numpy()
    assert stats.kstest(draws.ravel(), "norm").pvalue > 0.001
    assert abs(np.corrcoef(draws[:-1].ravel(), draws[1:].ravel())[0, 1]) < 0.02
    assert abs(np.corrcoef(draws[:, :-1].ravel(), draws[:, 1:].ravel())[0, 1]) < 0.02


@pytest.mark.parametrize("alpha", [0.1, 0.4, 1.0, 4.0])
def test_the_shares_of_mixup_are_beta_distributed(alpha: float) -> None:
    keys = combine(torch.arange(20000, dtype=torch.int32), 9)
    drawn = shares(beta_quantiles(alpha).repeat(len(keys), 1), keys).numpy()
    exact = stats.beta.ppf(uniform(draw(keys, torch.zeros_like(keys))).numpy(), alpha, alpha)
    error = np.abs(drawn - exact)
    assert error.mean() < 2e-4
    assert np.quantile(error, 0.99) < 5e-3
    assert (shares(beta_quantiles(0.0).repeat(10, 1), keys[:10]) == 1).all()


def test_permutations_are_permutations_and_uniform() -> None:
    keys = combine(torch.arange(2000, dtype=torch.int32), 1)
    orders = permutations(keys, 5)
    assert torch.equal(orders.sort(1).values, torch.arange(5).expand(2000, 5))
    counts = np.bincount(orders[:, 0].numpy(), minlength=5)
    assert stats.chisquare(counts).pvalue > 0.001
    assert torch.equal(orders, permutations(keys, 5))


def test_what_a_graph_reads_is_not_in_a_cache_that_drops_it() -> None:
    """Counters are kept on the CPU only; elsewhere they are computed, and are the same."""
    before = hashing._kept_scattered.cache_info().currsize
    for n in range(900, 900 + 3):
        assert hashing._scattered(n, torch.device("meta")).shape == (n,)
    assert hashing._kept_scattered.cache_info().currsize == before
    computed = torch.arange(900, dtype=torch.int32) * hashing._GOLDEN
    assert torch.equal(computed, hashing._scattered(900, torch.device("cpu")))
