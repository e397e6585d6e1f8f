"""A stack: k lanes that train as one model, one epoch at a time.

It knows matrices and lanes by position, nothing of trials, pruning or patience (see `workers.stack.runner`). Inside an epoch
nothing returns to the host. Shapes: `k` lanes, `P` parameters, `Q` statistics, `u` updates per epoch, `b` batch, `n` rows.
Not thread-safe.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from service.spec import Recipe
from workers.plain.network import Shape, adopt, initialize
from workers.scoring.metrics import evaluate
from workers.stack.compiling import compiled
from workers.stack.device_data import DeviceData
from workers.stack.flat import FlatModel
from workers.stack.gradient import update_keys
from workers.stack.hashing import combine, permutations
from workers.stack.lanes import LaneState, blank_columns, joined_columns, load_columns, select_columns
from workers.stack.optimizers import RULES, bias_corrections
from workers.stack.precision import shortened_products
from workers.stack.programs import Program
from workers.stack.techniques import techniques_of
from workers.stack.update import Update

log = logging.getLogger(__name__)

CHECKED_UPDATES = 2
_ORDER = 0x5EED
_EVALUATION_ELEMENTS = 1 << 24
"""Activations of one layer that an evaluation may hold at once (64 MiB)."""


@dataclass(frozen=True)
class StackKey:
    """What changes the graph: trials with equal keys share a stack."""

    shape: Shape
    optimizer: str
    batch_size: int
    micro_batches: int = 1
    precision: str = "float32"

    @classmethod
    def of(cls, recipe: Recipe, inputs: tuple[int, ...], outputs: int, categories: tuple[int, ...] = ()) -> StackKey:
        """The key of a recipe on data with examples of the shape ``inputs`` (see `Shape.of`)."""
        shape = Shape.of(recipe.effective(), inputs, outputs, categories)
        parts, precision = recipe.integer("micro_batches"), recipe.word("precision")
        return cls(shape, recipe.word("optimizer"), recipe.integer("batch_size"), parts, precision)


class Stack:
    """k lanes of one `StackKey` on one device's data.

    ``techniques`` are those that lanes are expected to have on, so that a compiled update need not be compiled again
    when they come. A stack learns of others by itself.
    """

    def __init__(
        self, key: StackKey, data: DeviceData, *, programs: Path | None = None, techniques: frozenset[str] = frozenset()
    ) -> None:
        self.key = key
        self.data = data
        self.model = FlatModel(key.shape, data.device)
        self.techniques = techniques
        self._programs = programs
        self._prepare()
        self.updates = -(-data.train_rows // key.batch_size)
        self.batch = -(-data.train_rows // self.updates)
        self.state = self._idle_state(0)
        self.columns = blank_columns(0, self.model.dropouts, data.device, classes=data.outputs)
        self.folds = torch.zeros(0, dtype=torch.int64, device=data.device)
        self.best_weights, self.best_stats = self.state.weights.clone(), self.state.stats.clone()

    def run_eagerly(self) -> None:
        """Use the update and the evaluation as they are written, for any number of lanes."""
        self._programs = None
        self._prepare()

    def _prepare(self) -> None:
        """The evaluation, the update with the techniques in use, and what it is checked against."""
        key = self.key
        self._eager = Update(
            self.model,
            key.optimizer,
            self.data.task,
            self.techniques,
            micro_batches=key.micro_batches,
            mixed_precision=key.precision == "bfloat16",
        )
        self.update: Callable[..., Tensor] = self._compiled(self._eager, "update")
        self._forward = self._compiled(partial(self.model.forward, shared=self.data.folds == 1), "evaluation")
        self._unchecked = CHECKED_UPDATES if self._programs else 0

    def _compiled(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        """The function as a program, in a stack that has some."""
        if self._programs is None:
            return function
        if self.data.device.type == "cuda":
            return compiled(function)
        return Program(function, repr((name, self.key, self.data.task, sorted(self.techniques))), self._programs)

    @property
    def lanes(self) -> int:
        """k, the number of lanes, idle ones included."""
        return int(self.state.weights.shape[0])

    def resize(self, keep: Sequence[int], k: int) -> None:
        """Keep the lanes ``keep`` as lanes 0, 1, …, drop the others, and add idle lanes up to ``k``."""
        chosen = torch.tensor(list(keep), dtype=torch.int64, device=self.data.device)
        idle = k - len(keep)
        fresh = self._idle_state(idle)
        self.state = self.state.select(chosen).followed_by(fresh)
        blank = blank_columns(idle, self.model.dropouts, self.data.device, classes=self.data.outputs)
        self.columns = joined_columns(select_columns(self.columns, chosen), blank)
        self.folds = torch.cat([self.folds[chosen], torch.zeros(idle, dtype=torch.int64, device=self.data.device)])
        self.best_weights = torch.cat([self.best_weights[chosen], fresh.weights])
        self.best_stats = torch.cat([self.best_stats[chosen], fresh.stats])

    def load(self, lane: int, recipe: Recipe, *, seed: int, fold: int = 0) -> None:
        """Start a new run in ``lane``: weights from ``seed`` or `DeviceData.start`, the recipe's rates."""
        initialize(self.model.module, recipe, seed)
        if self.data.start is not None and recipe.word("fine_tune") != "off":
            adopt(self.model.module, self.data.start)
        weights, stats = self.model.rows()
        self.state.weights[lane] = weights
        self.state.stats[lane] = stats
        self.state.mean_weights[:, lane] = weights
        self.state.mean_stats[:, lane] = stats
        self.state.first[lane], self.state.second[lane] = 0.0, 0.0
        self.state.updates[lane] = 0
        self.folds[lane] = fold
        rates = self.model.rates(recipe)
        load_columns(self.columns, lane, recipe, rates=rates, seed=seed, balance=self.data.balance[fold])
        if self._programs is None:  # a compiled update is made once, for any rates
            self.model.drop_in((self.columns["dropout"] > 0).any(0).tolist())
        techniques = self.techniques | techniques_of([recipe])
        if techniques != self.techniques:
            if "averaging" in techniques - self.techniques:
                self.state = self.state.with_averages()
            self.techniques = techniques
            self._prepare()

    def train_epoch(self, rates: NDArray[np.float32], holds: NDArray[np.float32] | None = None) -> Tensor:
        """One epoch of all lanes at learning rates ``rates (k, u)``; returns the mean training losses (k,).

        ``holds`` (k, u) determines how the weights are averaged (see `workers.stack.techniques.averaging`); without it,
        they are not.

        Every lane sees all of its rows in its own order; the last batch is filled with the order's first rows.
        """
        return self.train_updates(rates, self.updates, holds)

    def train_updates(self, rates: NDArray[np.float32], updates: int, holds: NDArray[np.float32] | None = None) -> Tensor:
        """The first ``updates`` updates of an epoch; see `train_epoch`."""
        self.model.module.train()
        lr = torch.from_numpy(np.ascontiguousarray(rates.T)).to(self.data.device)
        hold = torch.zeros_like(lr) if holds is None else torch.from_numpy(np.ascontiguousarray(holds.T)).to(lr.device)
        batches = self._batches()
        total = torch.zeros(self.lanes, device=self.data.device)
        updates = min(updates, self.updates)
        steps = torch.arange(updates, dtype=torch.int32, device=self.data.device)[:, None] + self.state.updates
        keys = update_keys(self.columns["seed"], steps, self.model.dropouts)
        bias = bias_corrections(self.columns["rest1"], self.columns["rest2"], steps + 1)
        with shortened_products(self.key.precision == "tf32"):
            for u in range(updates):
                rows = batches[:, u * self.batch : (u + 1) * self.batch]
                total += self._step(lr[u], bias[u], hold[u], keys[u], self.data.x[rows], self.data.y[rows])
        return total / updates

    def _step(self, *batch: Tensor) -> Tensor:
        """One update; the first ones of a compiled stack are checked against the eager ones."""
        if self._unchecked == 0:
            return self.update(self.state, self.columns, *batch)
        self._unchecked -= 1
        before = self.state.copy()
        losses = self.update(self.state, self.columns, *batch)
        expected = self._eager(before, self.columns, *batch)
        if not torch.allclose(losses, expected, rtol=1e-3, atol=1e-4, equal_nan=True):
            log.warning("the compiled update is wrong on this machine; the stack is trained without torch.compile")
            self.state, losses = before, expected
            self.run_eagerly()
        return losses

    @torch.no_grad()
    def evaluate(self) -> Tensor:
        """Metrics (k, len(metrics.names(…))) of the present weights on each lane's validation rows."""
        rows, mask = self.data.valid[self.folds], self.data.mask[self.folds]
        out = self._outputs(self._forward, *self.state.evaluated(), rows)
        scale = self.data.scale[self.folds]
        wanted, positive = self.data.wanted, self.data.positive
        return evaluate(self.data.task, out, self.data.y[rows], mask, scale, wanted=wanted, positive=positive)

    def sparsity(self) -> Tensor:
        """(k,) share of the weights that are exactly zero."""
        penalized = self._eager.penalized
        return ((self.state.evaluated()[0] == 0) * penalized).sum(1) / penalized.sum()

    @torch.no_grad()
    def predict(self, weights: Tensor, stats: Tensor, rows: Tensor) -> Tensor:
        """Outputs (k, r, outputs) of the given weights on data rows ``rows (k, r)``, in eval mode.

        For any number of lanes and rows, so it is run eagerly.
        """
        return self._outputs(partial(self.model.forward, shared=self.data.folds == 1), weights, stats, rows)

    def _outputs(self, forward: Callable[..., Any], weights: Tensor, stats: Tensor, rows: Tensor) -> Tensor:
        """Outputs in as many parts as memory asks for; all have one shape, for which there is one program."""
        self.model.module.eval()
        k, count = len(weights), rows.shape[1]
        chunk = max(1, _EVALUATION_ELEMENTS // max(1, k * self.model.largest_activation))
        parts = -(-count // chunk)
        size = -(-count // parts)
        rates = self.columns["dropout"][:k]
        keys = torch.zeros(k, self.model.dropouts, dtype=torch.int32, device=rows.device)
        found = []
        for start in range(0, count, size):
            part = rows[:, max(0, min(start, count - size)) :][:, :size]
            x = self.data.x[part[0] if self.data.folds == 1 else part]
            found.append(forward(weights, stats, rates, keys, x)[0][:, start - count if start + size > count else None :])
        return torch.cat(found, dim=1)

    def keep_best(self, improved: Sequence[bool]) -> None:
        """Remember the present weights of every lane where ``improved`` (k,) as its best."""
        mask = torch.tensor(list(improved), device=self.data.device)[:, None]
        weights, stats = self.state.evaluated()
        self.best_weights = torch.where(mask, weights, self.best_weights)
        self.best_stats = torch.where(mask, stats, self.best_stats)

    def best(self, lane: int) -> dict[str, Tensor]:
        """The best weights of a lane, named as in the module's state dict, on the CPU."""
        named = self.model.state_dict(self.best_weights[lane], self.best_stats[lane])
        return {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in named.items()}

    def saved(self, lane: int) -> dict[str, Tensor]:
        """A lane's whole state, on the CPU."""
        best = {"best_weights": self.best_weights[lane], "best_stats": self.best_stats[lane]}
        return {**self.state.lane(lane), **{name: value.cpu().clone() for name, value in best.items()}}

    def restore(self, lane: int, saved: dict[str, Tensor]) -> None:
        """Bring a lane to a state that `saved` gave."""
        self.state.load(lane, saved)
        self.best_weights[lane] = saved["best_weights"].to(self.data.device)
        self.best_stats[lane] = saved["best_stats"].to(self.data.device)

    def _batches(self) -> Tensor:
        """(k, u·b) data rows in each lane's order of this epoch."""
        epochs = self.state.updates // self.updates
        keys = combine(combine(self.columns["seed"], _ORDER), epochs)
        order = permutations(keys, self.data.train_rows)
        order = torch.cat([order, order[:, : self.updates * self.batch - self.data.train_rows]], dim=1)
        return self.data.train[self.folds].gather(1, order)

    def _idle_state(self, k: int) -> LaneState:
        """Rows for k idle lanes."""
        return LaneState.zeros(
            k,
            parameters=self.model.parameters,
            statistics=self.model.statistics,
            moments=RULES[self.key.optimizer].moments,
            averaging="averaging" in self.techniques,
            device=self.data.device,
        )
