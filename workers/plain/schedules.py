"""Learning-rate schedules as pure functions of the epoch; only `plateau` remembers, and it is an object.

A schedule is stepped once per epoch, as `torch.optim.lr_scheduler` is by convention, and equal to torch's scheduler where
there is one (`one_cycle` is stepped in every update, as torch's is), else to the published formula of TensorFlow 1, whose
`decay_steps` are all epochs. Warmup comes first: the schedule starts when it is over. Factors multiply `lr`.
References: Loshchilov and Hutter, "SGDR" (2017) for cosine and warm restarts; Goyal et al. (2017) for warmup; Smith and
Topin, "Super-convergence" (2018) for one cycle; Bello et al., "Neural optimizer search" (2017) for linear cosine; Holzmüller
et al., "Better by default" (2024) for coslog4.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LINEAR_COSINE_ALPHA, LINEAR_COSINE_BETA = 0.0, 0.001
ONE_CYCLE_END = 1e4
"""By how much the last rate of one cycle is lower than its first (torch's `final_div_factor`)."""

Settings = Mapping[str, Any]
"""A recipe: the values of `lr`, `lr_schedule` and of all settings that belong to the schedule."""


@dataclass(frozen=True)
class Moment:
    """Where a run is: ``epoch`` (0-based, counted from the end of the warmup) of ``epochs``, of ``updates`` updates each."""

    epoch: int
    epochs: int
    updates: int
    seed: int

    @property
    def share(self) -> float:
        """The share of the epochs that are done."""
        return self.epoch / max(1, self.epochs)


def _cosine(share: float, floor: float) -> float:
    return floor + (1.0 - floor) * (1.0 + math.cos(math.pi * share)) / 2.0


def _linear_cosine(share: float, periods: float, noise: float = 0.0) -> float:
    """`linear_cosine_decay` of TensorFlow 1, and with ``noise`` on its linear part the noisy one; never negative."""
    oscillation = (1.0 + math.cos(2.0 * math.pi * periods * share)) / 2.0
    return max(0.0, (LINEAR_COSINE_ALPHA + 1.0 - share + noise) * oscillation + LINEAR_COSINE_BETA)


def _piecewise(recipe: Settings, at: Moment) -> float:
    passed = sum(at.share >= recipe[milestone] for milestone in ("piecewise_first", "piecewise_second"))
    return float(recipe["piecewise_gamma"] ** passed)


def _warm_restarts(recipe: Settings, at: Moment) -> float:
    return _cosine(_cycle_share(at.epoch, recipe["restart_period"], recipe["restart_mult"]), recipe["cosine_floor"])


def _noisy_linear_cosine(recipe: Settings, at: Moment) -> float:
    variance = recipe["noise_variance"] / (1.0 + at.epoch) ** recipe["noise_decay"]
    noise = np.random.default_rng([at.seed, at.epoch]).normal(scale=math.sqrt(variance))
    return _linear_cosine(at.share, recipe["linear_cosine_periods"], noise)


def _one_cycle(recipe: Settings, at: Moment) -> Floats:
    """(updates,): half a cosine up to 1 for a share of the run's updates, then one down."""
    start, end = 1.0 / recipe["one_cycle_divisor"], 1.0 / (recipe["one_cycle_divisor"] * ONE_CYCLE_END)
    update, last = at.epoch * at.updates + np.arange(at.updates), at.epochs * at.updates - 1.0
    top = max(0.0, recipe["one_cycle_rise"] * (last + 1.0) - 1.0)
    up = update / max(top, 1e-9)
    down = (update - top) / max(last - top, 1e-9)
    rising = 1.0 + (start - 1.0) * (1.0 + np.cos(np.pi * np.clip(up, 0.0, 1.0))) / 2.0
    falling = end + (1.0 - end) * (1.0 + np.cos(np.pi * np.clip(down, 0.0, 1.0))) / 2.0
    return np.asarray(np.where(update <= top, rising, falling), dtype=np.float64)


def _cycle_share(epoch: int, period: int, mult: int) -> float:
    """How far into its cycle an epoch is, where cycle i is ``period · multⁱ`` epochs long."""
    while epoch >= period:
        epoch -= period
        period *= mult
    return epoch / period


def ends_cycle(recipe: Settings, epoch: int) -> bool:
    """Whether a cycle of `warm_restarts` ends with ``epoch`` (0-based), so that the rate is high again after it."""
    done = epoch + 1 - int(recipe.get("warmup_epochs", 0))
    if recipe.get("lr_schedule") != "warm_restarts" or done <= 0:
        return False
    return _cycle_share(done, recipe["restart_period"], recipe["restart_mult"]) == 0.0


def _coslog4(recipe: Settings, at: Moment) -> Floats:
    """(updates,): four cycles that begin and end at 0, each twice as long as the one before."""
    share = (at.epoch + np.arange(at.updates) / at.updates) / max(1, at.epochs)
    return np.asarray((1.0 - np.cos(2.0 * np.pi * np.log2(1.0 + 15.0 * share))) / 2.0, dtype=np.float64)


def flat_cosine(share: float) -> float:
    """1 during the first half, then a cosine to 0.

    >>> flat_cosine(0.4), round(flat_cosine(0.75), 6), flat_cosine(1.0)
    (1.0, 0.5, 0.0)
    """
    return 1.0 if share < 0.5 else (1.0 + math.cos(math.pi * (2.0 * min(share, 1.0) - 1.0))) / 2.0


STRENGTHS: Mapping[str, Callable[[float], float]] = {"constant": lambda share: 1.0, "flat_cosine": flat_cosine}
"""The factor of a regularizer's strength by the share of the epochs that are done, by the words of its schedule."""


def strength(recipe: Settings, name: str, epoch: int, epochs: int) -> float:
    """By what a strength is multiplied in ``epoch`` (0-based), whose schedule is the setting ``name``."""
    return STRENGTHS[recipe.get(name, "constant")](epoch / max(1, epochs))


FACTORS: Mapping[str, Callable[[Settings, Moment], float | Floats]] = {
    "constant": lambda r, at: 1.0,
    "step": lambda r, at: r["step_gamma"] ** (at.epoch // r["step_every"]),
    "piecewise": _piecewise,
    "polynomial": lambda r, at: (1.0 - at.share) ** r["polynomial_power"],
    "exponential": lambda r, at: r["exponential_gamma"] ** at.epoch,
    "natural_exponential": lambda r, at: math.exp(-r["decay_rate"] * at.share),
    "inverse_time": lambda r, at: 1.0 / (1.0 + r["decay_rate"] * at.share),
    "cosine": lambda r, at: _cosine(at.share, r["cosine_floor"]),
    "linear_cosine": lambda r, at: _linear_cosine(at.share, r["linear_cosine_periods"]),
    "noisy_linear_cosine": _noisy_linear_cosine,
    "warm_restarts": _warm_restarts,
    "one_cycle": _one_cycle,
    "coslog4": _coslog4,
    "flat_cosine": lambda r, at: flat_cosine(at.share),
    "plateau": lambda r, at: 1.0,
}
"""The factor of an epoch, or those of its updates; of `plateau` what it has before anything was observed."""


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


class Schedule:
    """The learning rate of one run, update by update."""

    def __init__(self, recipe: Settings, epochs: int, seed: int = 0) -> None:
        self._recipe = recipe
        self._formula = FACTORS[recipe.get("lr_schedule", "constant")]
        self._seed = seed
        self._warmup = int(recipe.get("warmup_epochs", 0))
        self._epochs = max(1, epochs - self._warmup)
        self._plateau: Plateau | None = None
        if recipe.get("lr_schedule") == "plateau":
            self._plateau = Plateau(self._recipe["plateau_patience"], self._recipe["plateau_factor"])

    def rates(self, epoch: int, updates: int) -> NDArray[np.float32]:
        """(updates,) learning rates of all updates of ``epoch``, 0-based."""
        peak = float(self._recipe["lr"])
        if epoch < self._warmup:
            done = epoch * updates + np.arange(1, updates + 1)
            return (peak * done / (self._warmup * updates)).astype(np.float32)
        factor = self._formula(self._recipe, Moment(epoch - self._warmup, self._epochs, updates, self._seed))
        scale = self._plateau.scale if self._plateau else 1.0
        return (peak * scale * np.broadcast_to(factor, updates)).astype(np.float32)

    def saved(self) -> dict[str, float]:
        """What the schedule remembers; empty for all but plateau."""
        return {name: float(getattr(self._plateau, name)) for name in _REMEMBERED} if self._plateau else {}

    def restore(self, saved: dict[str, float]) -> None:
        """Remember it again."""
        if self._plateau:
            self._plateau.scale, self._plateau.best = saved["scale"], saved["best"]
            self._plateau.bad_epochs = int(saved["bad_epochs"])

    def observe(self, epoch: int, loss: float) -> None:
        """Take in the validation loss after ``epoch``."""
        if self._plateau and epoch >= self._warmup:
            self._plateau.observe(loss)
