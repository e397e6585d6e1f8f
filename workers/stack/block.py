"""A block: one stack with the runs on its lanes, trained for an epoch by one thread without waiting for others."""

from __future__ import annotations

import time
from collections.abc import Set
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from workers.stack.run import Run
from workers.stack.stack import Stack
from workers.stack.techniques import TECHNIQUES


@dataclass(frozen=True)
class Epoch:
    """What an epoch of a block brought: ``table`` (k, 1 + metrics) of training losses and metrics, ``sparsity`` (k,) where
    some technique makes zeros, and the seconds of its parts.
    """

    table: NDArray[np.float32]
    sparsity: NDArray[np.float32] | None
    updates: float
    evaluation: float


@dataclass(eq=False)
class Block:
    """``owner`` has for each lane of the ``stack`` a run, and which of its lanes this is; None on an idle lane."""

    stack: Stack
    owner: list[tuple[Run, int] | None] = field(default_factory=list)

    @property
    def live(self) -> list[int]:
        """The lanes that have a run."""
        return [lane for lane, owner in enumerate(self.owner) if owner is not None]

    @property
    def idle(self) -> list[int]:
        """The lanes that have none."""
        return [lane for lane, owner in enumerate(self.owner) if owner is None]

    def resize(self, k: int) -> None:
        """Keep the lanes in use, in their order, and have ``k`` lanes in all."""
        if k == len(self.owner):
            return
        live = self.live
        self.stack.resize(live, k)
        self.owner = [*(self.owner[lane] for lane in live), *[None] * (k - len(live))]

    def load(self, lane: int, run: Run, number: int) -> None:
        """Start lane ``number`` of a run on ``lane``."""
        fold, seed = run.fold_seeds[number]
        self.stack.load(lane, run.recipe, seed=seed, fold=fold)
        if run.restore is not None:
            self.stack.restore(lane, run.restore[number])
        self.owner[lane] = (run, number)

    def move(self, lane: int, to: Block, target: int) -> None:
        """Move what is on ``lane`` to the idle lane ``target`` of another block."""
        owner, saved = self.owner[lane], self.stack.saved(lane)
        assert owner is not None
        to.load(target, *owner)
        to.stack.restore(target, saved)
        self.owner[lane] = None

    def free(self, run: Run) -> None:
        """Take a run off its lanes."""
        self.owner = [None if owner is not None and owner[0] is run else owner for owner in self.owner]

    def train(self) -> Epoch:
        """Train all lanes for one epoch, and evaluate them."""
        stack, start = self.stack, time.perf_counter()
        lanes: dict[Run, list[int]] = {}
        for lane, owner in enumerate(self.owner):
            if owner is not None:
                lanes.setdefault(owner[0], []).append(lane)
        rates, holds = (np.zeros((len(self.owner), stack.updates), dtype=np.float32) for _ in range(2))
        for run, own in lanes.items():
            rates[own] = run.rates(stack.updates)
            if run.restarts:
                for lane in own:
                    stack.take_snapshot(lane)
            if strengths := run.strengths():
                stack.set_strengths(own, run.recipe, *strengths)
            if "averaging" in stack.techniques:
                holds[own] = run.holds(stack.updates)
        losses = stack.train_epoch(rates, holds).cpu().numpy()
        trained = time.perf_counter()
        table = np.concatenate([losses[:, None], stack.evaluate().cpu().numpy()], axis=1)
        zeros = any(each.makes_zeros and each.name in stack.techniques for each in TECHNIQUES)
        sparsity = stack.sparsity().cpu().numpy() if zeros else None
        return Epoch(table, sparsity, trained - start, time.perf_counter() - trained)

    def keep_best(self, improved: Set[Run]) -> None:
        """Remember the present weights of these runs' lanes as their best."""
        keep = [owner is not None and owner[0] in improved for owner in self.owner]
        if any(keep):
            self.stack.keep_best(keep)
