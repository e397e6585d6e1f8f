"""Pruning of all lanes of an epoch in one judgement, with the semantics of Optuna's pruners of the same names.

Where Optuna judges trials one by one, so that the order of judging matters, a cohort is judged at once here: every trial
is compared as if all others of its cohort had reported before it. Pure and in memory; `epoch` counts from 1.

References: Optuna's `MedianPruner` and `SuccessiveHalvingPruner`; Li et al., "Massively parallel hyperparameter tuning"
(ASHA, 2020).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from service.spec import MedianPruner, NoPruner, StudySpec, SuccessiveHalvingPruner


@dataclass(frozen=True)
class Standing:
    """A running trial behind ``epoch``: its last and its best value so far."""

    number: int
    epoch: int
    value: float
    best: float


class Judge(Protocol):
    """Remembers what finished trials reached, and says which running ones are to be pruned. Not thread-safe."""

    def remember(self, values: Sequence[float], *, complete: bool, judged_here: bool) -> None:
        """Take in the curve of a finished trial. ``judged_here``: this judge has seen it at every epoch already."""

    def judge(self, cohort: Sequence[Standing]) -> set[int]:
        """The numbers of the trials that are to be pruned."""


def make_judge(spec: StudySpec) -> Judge:
    """The judge that a study asks for."""
    sign = 1.0 if spec.direction == "minimize" else -1.0
    match spec.pruner:
        case MedianPruner() as pruner:
            return MedianJudge(pruner, sign)
        case SuccessiveHalvingPruner() as pruner:
            return HalvingJudge(pruner, sign)
        case NoPruner():
            return NeverJudge()


class NeverJudge:
    """Prunes nothing."""

    def remember(self, values: Sequence[float], *, complete: bool, judged_here: bool) -> None:
        """Nothing to remember."""

    def judge(self, cohort: Sequence[Standing]) -> set[int]:
        """Nobody."""
        return set()


class MedianJudge:
    """Prunes a trial whose best value so far is worse than the median of completed trials at the same epoch."""

    def __init__(self, pruner: MedianPruner, sign: float) -> None:
        self._pruner = pruner
        self._sign = sign
        self._completed = 0
        self._at_epoch: dict[int, list[float]] = {}
        self._medians: dict[int, float] = {}

    def remember(self, values: Sequence[float], *, complete: bool, judged_here: bool) -> None:
        """Only completed trials set the mark."""
        if not complete:
            return
        self._completed += 1
        self._medians.clear()
        for epoch, value in enumerate(values, start=1):
            self._at_epoch.setdefault(epoch, []).append(self._sign * value)

    def judge(self, cohort: Sequence[Standing]) -> set[int]:
        """Compare each with the median; a trial without any finite value is pruned, as by Optuna."""
        if self._completed == 0 or self._completed < self._pruner.startup_trials:
            return set()
        return {
            standing.number
            for standing in cohort
            if standing.epoch > self._pruner.warmup_epochs and self._is_worse(self._sign * standing.best, standing.epoch)
        }

    def _is_worse(self, best: float, epoch: int) -> bool:
        if math.isnan(best):
            return True
        if epoch not in self._medians:
            values = np.asarray(self._at_epoch.get(epoch, []))
            finite = values[~np.isnan(values)]
            self._medians[epoch] = float(np.median(finite)) if len(finite) else math.inf
        return best > self._medians[epoch]


class HalvingJudge:
    """Asynchronous successive halving: at epochs m, m·η, m·η² … the best 1/η of all that came so far go on."""

    def __init__(self, pruner: SuccessiveHalvingPruner, sign: float) -> None:
        self._pruner = pruner
        self._sign = sign
        self._rungs: list[list[float]] = []
        self._rung_of: dict[int, int] = {}

    def remember(self, values: Sequence[float], *, complete: bool, judged_here: bool) -> None:
        """Another worker's trial competes on every rung that it has reached."""
        if judged_here:
            return
        rung = 0
        while (epoch := self._epoch_of(rung)) <= len(values):
            self._rung(rung).append(self._sign * values[epoch - 1])
            rung += 1

    def judge(self, cohort: Sequence[Standing]) -> set[int]:
        """Enter all that have reached a rung, then let each rung's best part go on."""
        pruned: set[int] = set()
        waiting: Mapping[int, Standing] = {standing.number: standing for standing in cohort}
        while waiting:
            reached = {
                number: standing
                for number, standing in waiting.items()
                if standing.epoch >= self._epoch_of(self._rung_of.get(number, 0))
            }
            for number, standing in reached.items():
                self._rung(self._rung_of.get(number, 0)).append(self._key(standing))
            going_on = {}
            for number, standing in reached.items():
                rung = self._rung_of.get(number, 0)
                if math.isnan(standing.value) or self._key(standing) > self._bar(rung):
                    pruned.add(number)
                else:
                    self._rung_of[number] = rung + 1
                    going_on[number] = standing
            waiting = going_on
        return pruned

    def _key(self, standing: Standing) -> float:
        return math.inf if math.isnan(standing.value) else self._sign * standing.value

    def _bar(self, rung: int) -> float:
        """The worst value of a rung that still goes on; with fewer than η values, the best."""
        values = self._rungs[rung]
        place = max(0, len(values) // self._pruner.reduction_factor - 1)
        return float(np.partition(values, place)[place])

    def _epoch_of(self, rung: int) -> int:
        return int(self._pruner.min_epochs * self._pruner.reduction_factor**rung)

    def _rung(self, rung: int) -> list[float]:
        while len(self._rungs) <= rung:
            self._rungs.append([])
        return self._rungs[rung]
