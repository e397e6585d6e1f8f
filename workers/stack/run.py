"""One recipe in training: its curve, its best epoch, and when it ends by itself. Knows no stack, no database and no pruner.

A run is one recipe on one or more lanes (a lane per fold). Its value is the mean over its lanes, and its lanes come and
go together. A run ends by itself when it has *converged* (patience ran out; best weights restored), when its epochs are
spent, or when its loss is not finite; whoever calls `StackRunner.epoch` may also end it (*time*, *stopped*) or remove it
(*pruned*).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from service.spec import EarlyStopping, Recipe, sign_of
from workers.plain.schedules import Schedule, ends_cycle, strength
from workers.stack.techniques.averaging import holds

Ending = Literal["converged", "epochs", "time", "stopped", "not_finite", "out_of_memory"]


@dataclass(frozen=True)
class Protocol:
    """What all runs of a study have in common."""

    metric: str
    epochs: int
    early_stopping: EarlyStopping | None
    stop_after: int | None = None
    """Epochs after which a run ends, although its schedules are for ``epochs``."""

    @property
    def last(self) -> int:
        """The largest number of epochs."""
        return self.epochs if self.stop_after is None else min(self.epochs, self.stop_after)

    @property
    def sign(self) -> float:
        """+1 where lower is better: values times sign are to be minimized."""
        return sign_of(self.metric)


_SAVED = ("epoch", "curve", "best_value", "best_epoch", "_stale", "_monitored")


@dataclass(eq=False)
class Run:
    """One recipe in training. ``key`` is the caller's own name for it; ``fold_seeds`` has one (fold, seed) per lane."""

    key: int
    recipe: Recipe
    fold_seeds: tuple[tuple[int, int], ...]
    protocol: Protocol
    part: int = 0
    """Which of the study's data on the device its folds are of, where there are several."""
    epoch: int = 0
    curve: dict[str, list[float]] = field(default_factory=dict)
    best_value: float = math.nan
    best_epoch: int = -1
    ending: Ending | None = None
    restore: list[dict[str, Tensor]] | None = None
    """State of its lanes from a checkpoint, until it gets some."""
    _stale: int = 0
    _monitored: float = math.inf
    _schedule: Schedule = field(init=False)

    def __post_init__(self) -> None:
        self._schedule = Schedule(self.recipe, self.protocol.epochs, seed=self.fold_seeds[0][1])

    def resume(self, saved: dict[str, Any]) -> None:
        """Go on where a checkpoint of `StackRunner.checkpoint` was made; its lanes are restored when it gets some."""
        for name, value in saved["run"].items():
            setattr(self, name, value)
        self._schedule.restore(saved["schedule"])
        self.restore = saved["lanes"]

    def saved(self) -> dict[str, Any]:
        """The host's part of a checkpoint."""
        return {
            "run": {name: getattr(self, name) for name in _SAVED},
            "schedule": self._schedule.saved(),
        }

    @property
    def lanes(self) -> int:
        """Number of lanes it takes."""
        return len(self.fold_seeds)

    @property
    def value(self) -> float:
        """The objective after the last epoch."""
        return self.curve[self.protocol.metric][-1]

    def rates(self, updates: int) -> NDArray[np.float32]:
        """(updates,) learning rates of the coming epoch."""
        return self._schedule.rates(self.epoch, updates)

    def holds(self, updates: int) -> NDArray[np.float32]:
        """(updates,) shares of the averaged weights that the coming epoch's updates keep."""
        return holds(self.recipe, self.epoch, self.protocol.epochs, updates)

    @property
    def restarts(self) -> bool:
        """Whether a cycle has ended with the last epoch, after which its weights are kept as a snapshot."""
        return self.recipe.flag("snapshots") and self.epoch > 0 and ends_cycle(self.recipe, self.epoch - 1)

    def strengths(self) -> tuple[float, float] | None:
        """The factors of dropout and of weight decay in the coming epoch; None if they never change."""
        schedules = ("dropout_schedule", "weight_decay_schedule")
        if all(self.recipe.word(name) == "constant" for name in schedules):
            return None
        dropout, decay = (strength(self.recipe, name, self.epoch, self.protocol.epochs) for name in schedules)
        return dropout, decay

    def observe(self, train_loss: float, metrics: dict[str, float]) -> bool:
        """Take in one finished epoch; returns whether the run is at its best (and its weights are to be kept)."""
        self.curve.setdefault("train_loss", []).append(train_loss)
        for name, value in metrics.items():
            self.curve.setdefault(name, []).append(value)
        self._schedule.observe(self.epoch, metrics["loss"])
        self.epoch += 1
        if not (math.isfinite(train_loss) and math.isfinite(metrics["loss"]) and math.isfinite(self.value)):
            self.ending = "not_finite"
            return False
        improved = self._improves(metrics)
        if self.epoch >= self.protocol.last:
            self.ending = "epochs"
        stopping = self.protocol.early_stopping
        if stopping and self._stale >= stopping.patience:
            self.ending = "converged"
        return improved

    def _improves(self, metrics: dict[str, float]) -> bool:
        """Whether the epoch's weights replace the kept ones: the last of the best monitored so far, or simply the last."""
        stopping = self.protocol.early_stopping
        monitored = self._monitored_value(metrics)
        better = monitored < self._monitored - (stopping.min_delta if stopping else 0.0)
        as_good = monitored == self._monitored
        if better:
            self._monitored, self._stale = monitored, 0
        else:
            self._stale += 1
        keep = better or as_good or (stopping is None or not stopping.restore_best)
        if keep:
            self.best_value, self.best_epoch = self.value, self.epoch - 1
        return keep

    def _monitored_value(self, metrics: dict[str, float]) -> float:
        """What early stopping looks at, to be minimized."""
        stopping = self.protocol.early_stopping
        name = self.protocol.metric if stopping is None or stopping.monitor == "metric" else stopping.monitor
        return sign_of(name) * metrics[name]
