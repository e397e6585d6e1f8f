"""Pruning of many trials at once, with the semantics of Optuna's pruners of the same names.

Optuna judges trials one by one, so that their order matters. Here a cohort is judged at once: every trial is compared as if
all others of its cohort had reported before it. Pure and in memory; `epoch` counts from 1.

References: Optuna's pruners; Li et al., "Hyperband", JMLR 18 (2018), and "Massively parallel hyperparameter tuning"
(ASHA, 2020).
"""

from __future__ import annotations

import binascii
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, assert_never

import numpy as np

from service.spec import (
    HyperbandPruner,
    MedianPruner,
    NoPruner,
    PatientPruner,
    PercentilePruner,
    Pruner,
    SuccessiveHalvingPruner,
    ThresholdPruner,
)
from service.spec.nested import place
from service.spec.searchable import Searchable


@dataclass(frozen=True)
class Standing:
    """A running trial after ``epoch``: its last ``value``, its ``best`` value so far, and its ``curve``, by epoch."""

    number: int
    epoch: int
    value: float
    best: float
    curve: Sequence[float] = ()


class Judge(Protocol):
    """Remembers the curves of finished trials, and decides which running trials to prune. Not thread-safe."""

    def remember(self, number: int, values: Sequence[float], *, complete: bool, judged_here: bool) -> None:
        """Add the curve of a finished trial. ``judged_here``: this judge has seen it at every epoch already."""

    def judge(self, cohort: Sequence[Standing]) -> set[int]:
        """The numbers of the trials to prune."""


def make_judge(spec: Searchable) -> Judge:
    """The judge for a study's pruner."""
    if spec.searches == 1:
        return _judge(spec.pruner, spec, spec.sign)
    return InterleavedJudge([_judge(spec.pruner, spec, spec.sign) for _ in range(spec.searches)])


def _judge(pruner: Pruner, spec: Searchable, sign: float) -> Judge:
    judge: Judge
    match pruner:
        case MedianPruner(startup_trials=startup, warmup_epochs=warmup):
            judge = PercentileJudge(50.0, startup, warmup, sign)
        case PercentilePruner(percentile=percentile, startup_trials=startup, warmup_epochs=warmup):
            judge = PercentileJudge(percentile, startup, warmup, sign)
        case SuccessiveHalvingPruner(min_epochs=epochs, reduction_factor=factor):
            judge = HalvingJudge(epochs, factor, sign)
        case HyperbandPruner():
            judge = HyperbandJudge(pruner, spec.budget.epochs, sign, name=f"{spec.seed}")
        case ThresholdPruner():
            judge = ThresholdJudge(pruner)
        case PatientPruner(pruner=inner):
            judge = PatientJudge(pruner, None if inner is None else _judge(inner, spec, sign), sign)
        case NoPruner():
            judge = NeverJudge()
        case _:
            assert_never(pruner)
    return judge


class InterleavedJudge:
    """Trials compete only within the search that they belong to, each of which has a judge (see `service.spec.nested`)."""

    def __init__(self, judges: Sequence[Judge]) -> None:
        self._judges = judges

    def remember(self, number: int, values: Sequence[float], *, complete: bool, judged_here: bool) -> None:
        """Pass a trial on with its number in its search."""
        search, own = place(number, len(self._judges))
        self._judges[search].remember(own, values, complete=complete, judged_here=judged_here)

    def judge(self, cohort: Sequence[Standing]) -> set[int]:
        """What the judges decide on their own trials."""
        members: dict[int, dict[int, Standing]] = {}
        for standing in cohort:
            search, own = place(standing.number, len(self._judges))
            members.setdefault(search, {})[own] = standing
        return {
            own[number].number
            for search, own in members.items()
            for number in self._judges[search].judge([replace(each, number=number) for number, each in own.items()])
        }


class NeverJudge:
    """Prunes nothing."""

    def remember(self, number: int, values: Sequence[float], *, complete: bool, judged_here: bool) -> None:
        """Nothing to remember."""

    def judge(self, cohort: Sequence[Standing]) -> set[int]:
        """No trial."""
        return set()


class PercentileJudge:
    """Prunes a trial whose best value so far is worse than the given percentile of completed trials at that epoch."""

    def __init__(self, percentile: float, startup_trials: int, warmup_epochs: int, sign: float) -> None:
        self._percentile = percentile
        self._startup_trials = startup_trials
        self._warmup_epochs = warmup_epochs
        self._sign = sign
        self._completed = 0
        self._at_epoch: dict[int, list[float]] = {}
        self._thresholds: dict[int, float] = {}

    def remember(self, number: int, values: Sequence[float], *, complete: bool, judged_here: bool) -> None:
        """Only completed trials determine the threshold."""
        if not complete:
            return
        self._completed += 1
        self._thresholds.clear()
        for epoch, value in enumerate(values, start=1):
            self._at_epoch.setdefault(epoch, []).append(self._sign * value)

    def judge(self, cohort: Sequence[Standing]) -> set[int]:
        """Compare each trial with the threshold; a trial with NaN values only is pruned, as by Optuna."""
        if self._completed == 0 or self._completed < self._startup_trials:
            return set()
        return {
            standing.number
            for standing in cohort
            if standing.epoch > self._warmup_epochs and self._is_worse(self._sign * standing.best, standing.epoch)
        }

    def _is_worse(self, best: float, epoch: int) -> bool:
        if math.isnan(best):
            return True
        if epoch not in self._thresholds:
            values = np.asarray(self._at_epoch.get(epoch, []))
            known = values[~np.isnan(values)]
            self._thresholds[epoch] = float(np.percentile(known, self._percentile)) if len(known) else math.inf
        return best > self._thresholds[epoch]


class HalvingJudge:
    """Asynchronous successive halving: at epochs m, m·η, m·η² … the best 1/η of the trials so far are promoted."""

    def __init__(self, min_epochs: int, reduction_factor: int, sign: float) -> None:
        self._min_epochs = min_epochs
        self._factor = reduction_factor
        self._sign = sign
        self._rungs: list[list[float]] = []
        self._rung_of: dict[int, int] = {}

    def remember(self, number: int, values: Sequence[float], *, complete: bool, judged_here: bool) -> None:
        """A trial of another worker competes on every rung that it has reached."""
        if judged_here:
            return
        rung = 0
        while (epoch := self._epoch_of(rung)) <= len(values):
            self._rung(rung).append(self._sign * values[epoch - 1])
            rung += 1

    def judge(self, cohort: Sequence[Standing]) -> set[int]:
        """Add all trials that have reached a rung to it, then promote the best of each rung."""
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
            promoted = {}
            for number, standing in reached.items():
                rung = self._rung_of.get(number, 0)
                if math.isnan(standing.value) or self._key(standing) > self._cutoff(rung):
                    pruned.add(number)
                else:
                    self._rung_of[number] = rung + 1
                    promoted[number] = standing
            waiting = promoted
        return pruned

    def _key(self, standing: Standing) -> float:
        return math.inf if math.isnan(standing.value) else self._sign * standing.value

    def _cutoff(self, rung: int) -> float:
        """The worst value of a rung that is promoted; with fewer than η values, the best value."""
        values = self._rungs[rung]
        place = max(0, len(values) // self._factor - 1)
        return float(np.partition(values, place)[place])

    def _epoch_of(self, rung: int) -> int:
        return int(self._min_epochs * self._factor**rung)

    def _rung(self, rung: int) -> list[float]:
        while len(self._rungs) <= rung:
            self._rungs.append([])
        return self._rungs[rung]


class HyperbandJudge:
    """Successive halving in brackets: bracket s begins at epoch m·ηˢ. A trial's number determines its bracket."""

    def __init__(self, pruner: HyperbandPruner, epochs: int, sign: float, *, name: str) -> None:
        """``name`` makes the assignment of brackets specific to the study, as the study's name does in Optuna."""
        factor, least = pruner.reduction_factor, pruner.min_epochs
        count = math.floor(math.log(epochs / least, factor)) + 1
        self._name = name
        self._brackets = [HalvingJudge(least * factor**bracket, factor, sign) for bracket in range(count)]
        # The number of trials in each bracket is such that all brackets take about the same number of epochs.
        self._shares = [math.ceil(count * factor**s / (s + 1)) for s in range(count - 1, -1, -1)]

    def bracket(self, number: int) -> int:
        """The bracket of a trial."""
        place = binascii.crc32(f"{self._name}_{number}".encode()) % sum(self._shares)
        return int(np.searchsorted(np.cumsum(self._shares), place, side="right"))

    def remember(self, number: int, values: Sequence[float], *, complete: bool, judged_here: bool) -> None:
        """A trial competes only in its own bracket."""
        self._brackets[self.bracket(number)].remember(number, values, complete=complete, judged_here=judged_here)

    def judge(self, cohort: Sequence[Standing]) -> set[int]:
        """Each bracket judges its own trials."""
        members: dict[int, list[Standing]] = {}
        for standing in cohort:
            members.setdefault(self.bracket(standing.number), []).append(standing)
        return {number for bracket, own in members.items() for number in self._brackets[bracket].judge(own)}


class ThresholdJudge:
    """Prunes a trial whose last value is outside the bounds or NaN."""

    def __init__(self, pruner: ThresholdPruner) -> None:
        self._lower = -math.inf if pruner.lower is None else pruner.lower
        self._upper = math.inf if pruner.upper is None else pruner.upper
        self._warmup_epochs = pruner.warmup_epochs

    def remember(self, number: int, values: Sequence[float], *, complete: bool, judged_here: bool) -> None:
        """Nothing to remember: trials are not compared with each other."""

    def judge(self, cohort: Sequence[Standing]) -> set[int]:
        """Compare each trial with the bounds; NaN is outside."""
        late = [standing for standing in cohort if standing.epoch > self._warmup_epochs]
        return {standing.number for standing in late if not self._lower <= standing.value <= self._upper}


class PatientJudge:
    """Prunes only trials that have not improved during the last epochs; an inner judge, if any, decides which of them."""

    def __init__(self, pruner: PatientPruner, inner: Judge | None, sign: float) -> None:
        self._patience = pruner.patience
        self._min_delta = pruner.min_delta
        self._inner = inner
        self._sign = sign

    def remember(self, number: int, values: Sequence[float], *, complete: bool, judged_here: bool) -> None:
        """Pass the trial on to the inner judge."""
        if self._inner is not None:
            self._inner.remember(number, values, complete=complete, judged_here=judged_here)

    def judge(self, cohort: Sequence[Standing]) -> set[int]:
        """The trials without improvement, or those of them that the inner judge prunes."""
        stalled = [standing for standing in cohort if self._is_stalled(standing.curve)]
        if self._inner is not None:
            return self._inner.judge(stalled)
        return {standing.number for standing in stalled}

    def _is_stalled(self, curve: Sequence[float]) -> bool:
        """Whether the best of the last patience + 1 values is worse than the best before them by more than min_delta."""
        late = self._patience + 1
        if len(curve) <= late:
            return False
        values = self._sign * np.asarray(curve)
        before, after = values[:-late], values[-late:]
        if np.isnan(before).all() or np.isnan(after).all():
            return False
        return bool(np.nanmin(before) + self._min_delta < np.nanmin(after))
