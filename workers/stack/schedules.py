"""Learning-rate schedules as pure functions of the epoch; only `plateau` remembers, and it is an object.

A schedule is stepped once per epoch, as `torch.optim.lr_scheduler` is by convention, and equal to torch's scheduler of
the same name. Warmup comes in front: the schedule starts when it is over. Factors multiply the setting `lr`.
References: Loshchilov and Hutter, "SGDR" (2017) for cosine and warm restarts; Goyal et al. (2017) for warmup.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.spec import Recipe


def factor(recipe: Recipe, epoch: int, epochs: int) -> float:
    """The factor of ``epoch`` (0-based, behind the warmup) of ``epochs``; 1 for constant and for plateau."""
    floor = recipe.number("cosine_floor")
    match recipe.word("lr_schedule"):
        case "step":
            return recipe.number("step_gamma") ** (epoch // recipe.integer("step_every"))
        case "exponential":
            return recipe.number("exponential_gamma") ** epoch
        case "cosine":
            return _cosine(epoch / max(1, epochs), floor)
        case "warm_restarts":
            return _cosine(_cycle_share(epoch, recipe.integer("restart_period"), recipe.integer("restart_mult")), floor)
        case _:
            return 1.0


def _cosine(share: float, floor: float) -> float:
    return floor + (1.0 - floor) * (1.0 + math.cos(math.pi * share)) / 2.0


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

    def __init__(self, recipe: Recipe, epochs: int) -> None:
        self._recipe = recipe
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
        scale = self._plateau.scale if self._plateau else factor(self._recipe, epoch - self._warmup, self._epochs)
        return np.full(updates, peak * scale, dtype=np.float32)

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
