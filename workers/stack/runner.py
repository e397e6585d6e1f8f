"""Runs (trials, or finalists) on the lanes of one stack, epoch by epoch. Knows no database and no pruner."""

from __future__ import annotations

import gc
import logging
import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from workers.scoring.metrics import names
from workers.stack.device_data import DeviceData
from workers.stack.memory import is_out_of_memory
from workers.stack.run import Run
from workers.stack.stack import Stack, StackKey
from workers.stack.techniques import TECHNIQUES
from workers.timing import Timer

log = logging.getLogger(__name__)

TAIL = 4
"""A compiled stack with less than a TAIL-th of its lanes in use is slower than an eager one of just these lanes."""


@dataclass(frozen=True)
class Compiled:
    """How a stack is compiled: always for this number of ``lanes``; its ``programs`` are kept in a folder."""

    lanes: int
    programs: Path

    def suits(self, lanes: int) -> bool:
        """Whether a stack that needs ``lanes`` should be compiled so; with fewer in use an eager one is faster."""
        return lanes > self.lanes // TAIL


class StackRunner:
    """Runs of one stack key: lanes are filled, trained together, freed as soon as their run is over.

    An eager stack always has as many lanes as its runs need. A ``compiled`` one has those that its program was made for:
    runs beyond them wait for a free lane, and lanes without a run are computed in vain. When only a few runs are
    left, they go on in an eager stack of their own size.
    """

    def __init__(
        self,
        key: StackKey,
        data: DeviceData,
        *,
        compiled: Compiled | None = None,
        techniques: frozenset[str] = frozenset(),
    ) -> None:
        self._make = partial(Stack, key, data, techniques=techniques)
        self._stack: Stack | None = None
        self._compiled = compiled
        self._most = math.inf
        self.runs: list[Run] = []
        self.waiting: deque[Run] = deque()
        self._owner: list[Run | None] = []
        self.last_call = False
        """Set by the caller when no further runs will come."""
        self.lane_epochs = 0
        self.computed_lane_epochs = 0
        self.timer = Timer()

    @property
    def stack(self) -> Stack:
        """The stack, made when it is first needed: that may take more memory than there is."""
        if self._stack is None:
            self._stack = self._make(programs=self._compiled.programs if self._compiled else None)
        return self._stack

    @property
    def stack_lanes(self) -> int:
        """Lanes of the stack, idle ones included."""
        return self._stack.lanes if self._stack else 0

    @property
    def lanes(self) -> int:
        """Lanes in use."""
        return sum(run.lanes for run in self.runs)

    @property
    def wanted_lanes(self) -> int:
        """Lanes in use, and those that waiting runs will need."""
        return self.lanes + sum(run.lanes for run in self.waiting)

    @property
    def idle_share(self) -> float:
        """Share of the lanes that the next epoch would compute in vain, though runs may still come for them."""
        if self._compiled is None or self.last_call:
            return 0.0
        return max(0.0, 1.0 - self.wanted_lanes / self._compiled.lanes)

    def add(self, runs: Sequence[Run]) -> None:
        """Hand over new runs; they start with the next epoch, or when lanes are free."""
        self.waiting.extend(runs)

    def _admit(self) -> None:
        """Give lanes to waiting runs, first come first served."""
        admitted: list[Run] = []
        if self._compiled and self.last_call and not self._compiled.suits(self.wanted_lanes):
            self.stack.run_eagerly()
            self._compiled = None
        room = min(self._compiled.lanes if self._compiled else math.inf, self._most) - self.lanes
        while self.waiting and self.waiting[0].lanes <= room:
            admitted.append(self.waiting.popleft())
            room -= admitted[-1].lanes
            self.runs.append(admitted[-1])
        self._resize(self._compiled.lanes if self._compiled else self.lanes)
        idle = iter([lane for lane, owner in enumerate(self._owner) if owner is None])
        for run in admitted:
            for fold, seed in run.fold_seeds:
                lane = next(idle)
                self.stack.load(lane, run.recipe, seed=seed, fold=fold)
                self._owner[lane] = run
            if run.restore is not None:
                for lane, saved in zip(self.lanes_of(run), run.restore, strict=True):
                    self.stack.restore(lane, saved)
                run.restore = None

    def remove(self, run: Run) -> None:
        """Free a run's lanes, keeping its curve."""
        self.runs.remove(run)
        self._owner = [None if owner is run else owner for owner in self._owner]

    def epoch(self) -> list[Run]:
        """Train every run for one epoch and evaluate it. Ended runs stay on their lanes until removed.

        Where memory runs out, half of the lanes must do: all runs begin again, as many at a time as fit.

        Returns:
            The runs in order of arrival, each with one more point on its curve, and ``ending`` set where it is over.
        """
        while True:
            try:
                return self._epoch()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            if len(self.runs) == 1:
                self._drop_stack()
                self.runs[0].ending = "out_of_memory"
                return list(self.runs)
            self._retreat()

    def _retreat(self) -> None:
        """Begin again with half of the lanes."""
        self._most = max(self.lanes // 2, *(run.lanes for run in self.runs))
        log.warning("out of memory with %d lanes; going on with %d", self.lanes, self._most)
        again = [Run(run.key, run.recipe, run.fold_seeds, run.protocol) for run in self.runs]
        self.waiting.extendleft(reversed(again))
        self.runs, self._compiled = [], None
        self._drop_stack()

    def _drop_stack(self) -> None:
        """Free its memory at once: reporting the failure takes some, too."""
        self._stack, self._owner = None, []
        gc.collect()

    def _epoch(self) -> list[Run]:
        self._admit()
        rates = np.zeros((self.stack.lanes, self.stack.updates), dtype=np.float32)
        for lane, owner in enumerate(self._owner):
            if owner is not None:
                rates[lane] = owner.rates(self.stack.updates)
        with self.timer.section("updates"):
            losses = self.stack.train_epoch(rates, self._holds()).cpu().numpy()
        with self.timer.section("evaluation"):
            table = np.concatenate([losses[:, None], self.stack.evaluate().cpu().numpy()], axis=1)
        zeroing = [each for each in TECHNIQUES if each.makes_zeros and each.name in self.stack.techniques]
        sparsity = self.stack.sparsity().cpu().numpy() if zeroing else None
        self.lane_epochs += self.lanes
        self.computed_lane_epochs += self.stack.lanes
        columns = names(self.stack.data.task, self.stack.data.wanted)
        keep = [False] * self.stack.lanes
        for run in self.runs:
            lanes = self.lanes_of(run)
            train_loss, *values = table[lanes].mean(axis=0, dtype=np.float64).tolist()
            metrics = dict(zip(columns, values, strict=True))
            if sparsity is not None and any(each.is_on(run.recipe) for each in zeroing):
                metrics["sparsity"] = float(sparsity[lanes].mean())
            improved = run.observe(train_loss, metrics)
            for lane in lanes:
                keep[lane] = improved
        self.stack.keep_best(keep)
        return list(self.runs)

    def _holds(self) -> NDArray[np.float32] | None:
        """(k, u) how every lane averages its weights; None where none does."""
        if "averaging" not in self.stack.techniques:
            return None
        nothing = np.zeros(self.stack.updates, dtype=np.float32)
        return np.stack([owner.holds(self.stack.updates) if owner else nothing for owner in self._owner])

    def lanes_of(self, run: Run) -> list[int]:
        """The lanes a run is on, in order of its folds."""
        return [lane for lane, owner in enumerate(self._owner) if owner is run]

    def checkpoint(self, run: Run) -> dict[str, Any]:
        """All that is needed to go on with a run elsewhere."""
        return {**run.saved(), "lanes": [self.stack.saved(lane) for lane in self.lanes_of(run)]}

    def best_weights(self, run: Run) -> list[dict[str, Tensor]]:
        """The kept weights of each of a run's lanes; valid until the run is removed."""
        return [self.stack.best(lane) for lane in self.lanes_of(run)]

    def weights_in(self, checkpoint: Mapping[str, Any]) -> list[dict[str, Tensor]]:
        """The weights that a checkpoint of this stack's runs would go on with, lane by lane."""
        return [self.stack.model.state_dict(lane["weights"], lane["stats"]) for lane in checkpoint["lanes"]]

    def predict(self, run: Run, rows: Sequence[Tensor]) -> list[Tensor]:
        """Outputs (1, r, o) of each of a run's lanes on its ``rows (r,)`` of the data, with the kept weights, in eval mode.

        Lane by lane, so that its neighbours can't change a digit.
        """
        weights, stats = self.stack.best_weights, self.stack.best_stats
        lanes = zip(self.lanes_of(run), rows, strict=True)
        return [self.stack.predict(weights[lane, None], stats[lane, None], chosen[None]) for lane, chosen in lanes]

    def _resize(self, k: int) -> None:
        if k == len(self._owner):
            return
        keep = [lane for lane, owner in enumerate(self._owner) if owner is not None]
        self.stack.resize(keep, k)
        kept = [self._owner[lane] for lane in keep]
        self._owner = kept + [None] * (k - len(kept))
