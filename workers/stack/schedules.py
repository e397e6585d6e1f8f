"""Learning-rate schedules as pure functions of the epoch; only `plateau` remembers, and it is an object.

A schedule is stepped once per epoch, as `torch.optim.lr_scheduler` is by convention, and equal to torch's scheduler where
there is one (`one_cycle` is stepped in every update, as torch's is), else to the published formula of TensorFlow 1, whose
`decay_steps` are all epochs. Warmup comes in front: the schedule starts when it is over. Factors multiply `lr`.
References: Loshchilov and Hutter, "SGDR" (2017) for cosine and warm restarts; Goyal et al. (2017) for warmup; Smith and
Topin, "Super-convergence" (2018) for one cycle; Bello et al., "Neural optimizer search" (2017) for linear cosine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.spec import Recipe

LINEAR_COSINE_ALPHA, LINEAR_COSINE_BETA = 0.0, 0.001
ONE_CYCLE_END = 1e4
"""By how much the last rate of one cycle is lower than its first (torch's `final_div_factor`)."""


def factor(recipe: Recipe, epoch: int, epochs: int) -> float:
    """The factor of ``epoch`` (0-based, behind the warmup) of ``epochs``; 1 for schedules that need more to know it."""
    formula = _FACTORS.get(recipe.word("lr_schedule"))
    return formula(recipe, epoch, epoch / max(1, epochs)) if formula else 1.0


def _piecewise(recipe: Recipe, epoch: int, share: float) -> float:
    passed = sum(share >= recipe.number(milestone) for milestone in ("piecewise_first", "piecewise_second"))
    return float(recipe.number("piecewise_gamma") ** passed)


def _warm_restarts(recipe: Recipe, epoch: int, share: float) -> float:
    cycle = _cycle_share(epoch, recipe.integer("restart_period"), recipe.integer("restart_mult"))
    return _cosine(cycle, recipe.number("cosine_floor"))


_FACTORS: Mapping[str, Callable[[Recipe, int, float], float]] = {
    "step": lambda r, epoch, share: r.number("step_gamma") ** (epoch // r.integer("step_every")),
    "piecewise": _piecewise,
    "polynomial": lambda r, epoch, share: (1.0 - share) ** r.number("polynomial_power"),
    "exponential": lambda r, epoch, share: r.number("exponential_gamma") ** epoch,
    "natural_exponential": lambda r, epoch, share: math.exp(-r.number("decay_rate") * share),
    "inverse_time": lambda r, epoch, share: 1.0 / (1.0 + r.number("decay_rate") * share),
    "cosine": lambda r, epoch, share: _cosine(share, r.number("cosine_floor")),
    "linear_cosine": lambda r, epoch, share: _linear_cosine(share, r.number("linear_cosine_periods")),
    "warm_restarts": _warm_restarts,
}
"""Schedules that are functions of the recipe, the epoch, and the share of the epochs that are done."""


def _cosine(share: float, floor: float) -> float:
    return floor + (1.0 - floor) * (1.0 + math.cos(math.pi * share)) / 2.0


def _linear_cosine(share: float, periods: float, noise: float = 0.0) -> float:
    """`linear_cosine_decay` of TensorFlow 1, and with ``noise`` on its linear part the noisy one; never negative."""
    oscillation = (1.0 + math.cos(2.0 * math.pi * periods * share)) / 2.0
    return max(0.0, (LINEAR_COSINE_ALPHA + 1.0 - share + noise) * oscillation + LINEAR_COSINE_BETA)


def _one_cycle(update: NDArray[np.int64], updates: int, rise: float, divisor: float) -> NDArray[np.float64]:
    """The factors of these of all ``updates``: half a cosine up to 1 for a share of ``rise`` of them, then one down."""
    start, end = 1.0 / divisor, 1.0 / (divisor * ONE_CYCLE_END)
    top = max(0.0, rise * updates - 1.0)
    up = update / max(top, 1e-9)
    down = (update - top) / max(updates - 1.0 - top, 1e-9)
    rising = 1.0 + (start - 1.0) * (1.0 + np.cos(np.pi * np.clip(up, 0.0, 1.0))) / 2.0
    falling = end + (1.0 - end) * (1.0 + np.cos(np.pi * np.clip(down, 0.0, 1.0))) / 2.0
    return np.where(update <= top, rising, falling)


def _cycle_share(epoch: int, period: int, mult: int) -> float:
    """How far into its cycle an epoch is, where cycle i is ``period · multⁱ`` epochs long."""
    while epoch >= period:
        epoch -= period
        period *= mult
    return epoch / period


@dataclass
class Plateau:
    """Multiply the rate by ``factor`` when the monitored value (lower is better) has not improved for ``patience`` epochs.

    As `torch.optim.lr_scheduler.ReduceLROnPlateau` with an absolute threshold of 0.
    """

    patience: int
    factor: float
    scale: float = 1.0
    best: float = math.inf
    bad_epochs: int = 0

    def observe(self, value: float) -> None:
        """Take in the value of one more epoch."""
        if value < self.best:
            self.best, self.bad_epochs = value, 0
        else:
            self.bad_epochs += 1
        if self.bad_epochs > self.patience:
            self.scale *= self.factor
            self.bad_epochs = 0


_REMEMBERED = ("scale", "best", "bad_epochs")


class LaneSchedule:
    """The learning rate of one lane, update by update."""

    def __init__(self, recipe: Recipe, epochs: int, seed: int = 0) -> None:
        self._recipe = recipe
        self._seed = seed
        self._warmup = recipe.integer("warmup_epochs")
        self._epochs = max(1, epochs - self._warmup)
        self._plateau: Plateau | None = None
        if recipe.word("lr_schedule") == "plateau":
            self._plateau = Plateau(recipe.integer("plateau_patience"), recipe.number("plateau_factor"))

    def rates(self, epoch: int, updates: int) -> NDArray[np.float32]:
        """(updates,) learning rates of all updates of ``epoch``."""
        peak = self._recipe.number("lr")
        if epoch < self._warmup:
            done = epoch * updates + np.arange(1, updates + 1)
            return (peak * done / (self._warmup * updates)).astype(np.float32)
        return (peak * self._factors(epoch - self._warmup, updates)).astype(np.float32)

    def _factors(self, epoch: int, updates: int) -> NDArray[np.float64]:
        """(updates,) factors of an epoch behind the warmup."""
        recipe = self._recipe
        if recipe.word("lr_schedule") == "one_cycle":
            rise, divisor = recipe.number("one_cycle_rise"), recipe.number("one_cycle_divisor")
            return _one_cycle(epoch * updates + np.arange(updates), self._epochs * updates, rise, divisor)
        if recipe.word("lr_schedule") == "noisy_linear_cosine":
            variance = recipe.number("noise_variance") / (1.0 + epoch) ** recipe.number("noise_decay")
            noise = np.random.default_rng([self._seed, epoch]).normal(scale=math.sqrt(variance))
            periods = recipe.number("linear_cosine_periods")
            return np.full(updates, _linear_cosine(epoch / self._epochs, periods, noise))
        return np.full(updates, self._plateau.scale if self._plateau else factor(recipe, epoch, self._epochs))

    def saved(self) -> dict[str, float]:
        """What the schedule remembers; empty for all but plateau."""
        return {name: float(getattr(self._plateau, name)) for name in _REMEMBERED} if self._plateau else {}

    def restore(self, saved: dict[str, float]) -> None:
        """Remember it again."""
        if self._plateau:
            self._plateau.scale, self._plateau.best = saved["scale"], saved["best"]
            self._plateau.bad_epochs = int(saved["bad_epochs"])

    def observe(self, epoch: int, loss: float) -> None:
        """Tell the schedule the validation loss behind ``epoch``."""
        if self._plateau and epoch >= self._warmup:
            self._plateau.observe(loss)
